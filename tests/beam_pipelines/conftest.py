"""The engines beside DirectRunner that run the job here, each by its flags."""

import pytest

from tests.support import engines


@pytest.fixture(scope="session")
def prism():
    return engines.prism()


@pytest.fixture(scope="session")
def flink():
    return engines.flink()
