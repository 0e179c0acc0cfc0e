"""The reasons for which a clip is rejected."""

import pytest

from common import rejection
from tests.support.paths import ROOT


@pytest.mark.parametrize(("reason", "code"), [("loud", None), ("undecodable", "too_loud")])
def test_a_reason_that_nobody_counts_can_not_be_raised(reason, code):
    with pytest.raises(AssertionError, match="loud"):
        raise rejection.ClipError(reason, "too loud", code=code)


def test_the_documentation_lists_every_reason():
    page = (ROOT / "docs" / "dataset.md").read_text()
    for reason in rejection.REASONS:
        assert f"| `{reason}` |" in page
