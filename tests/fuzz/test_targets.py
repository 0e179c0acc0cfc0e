"""A few hundred texts for each parser of foreign bytes; in make soak ten minutes for each."""

import pytest

from tests.fuzz.targets import TARGETS, mutated

TEXTS = 300


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_or_refuses(name):
    target = TARGETS[name]
    for seed in target.seeds:
        target.parse(seed)
    for number in range(TEXTS):
        text = mutated(target, seed=1, number=number)
        try:
            target.parse(text)
        except Exception:
            print(f"{name}, number {number}: {text!r}")
            raise
