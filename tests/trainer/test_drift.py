"""Drift: what it is beside second implementations, and how often it alarms."""

import numpy as np
import pytest
from scipy.spatial import distance

from trainer.continuous import drift

WHERE = {"what": "input", "name": "level"}


def numbers(old, new, *, artists=None, threshold=0.25):
    artists = artists or (len(old), len(new))
    return drift.of_numbers(old, new, artists=artists, threshold=threshold, **WHERE)


def counts(old, new, *, artists=None, threshold=0.05):
    old, new = np.array(old), np.array(new)
    artists = artists or (int(old.sum()), int(new.sum()))
    return drift.of_counts(old, new, artists=artists, threshold=threshold, **WHERE)


def test_the_index_against_its_definition():
    rng = np.random.default_rng(0)
    old, new = rng.normal(0, 1, 5_000), rng.normal(0.5, 1.2, 3_000)
    edges = [-np.inf, *np.quantile(old, np.arange(1, 10) / 10), np.inf]
    p, q = (np.histogram(values, edges)[0] / len(values) for values in (old, new))
    expected = sum((b - a) * np.log(b / a) for a, b in zip(p, q, strict=True))
    assert numbers(old, new).value == pytest.approx(expected, rel=0.01)


def test_the_divergence_against_scipy():
    for old, new in (([50, 30, 20], [20, 30, 50]), ([10, 0, 90], [0, 100, 0])):
        expected = distance.jensenshannon(old, new) ** 2
        assert counts(old, new).value == pytest.approx(expected, abs=1e-6)


def test_without_drift_nothing_alarms():
    """In 40 times 20 generations of 8 measures, of samples small and large, tracks in groups."""
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)

        def clips(artists, rng=rng):
            of_artist = np.repeat(rng.normal(0, 1, artists), 4)
            return of_artist + rng.normal(0, 0.5, len(of_artist))

        old = clips(200)
        for _ in range(20):
            new = clips(int(rng.choice([25, 60, 300])))
            artists = (200, len(new) // 4)
            for _ in range(4):
                alarms += numbers(old, new, artists=artists).alarms
                sizes = [np.bincount((each > 0) + 1 * (each > 1)) for each in (old, new)]
                alarms += counts(*sizes, artists=artists).alarms
    assert alarms <= 2  # of 6,400, where most are asked four times


def test_what_drifts_alarms():
    rng = np.random.default_rng(1)
    old = rng.normal(0, 1, 500)
    assert numbers(old, rng.normal(1, 1, 200)).alarms
    assert counts([100, 100, 100], [150, 30, 20]).alarms
    kinds = (np.array([b"Folk", b"Rock"])[rng.integers(2, size=300)] for _ in range(2))
    same = drift.of_categories(*kinds, artists=(300, 300), threshold=0.05, **WHERE)
    assert not same.alarms
    unheard = drift.of_categories(
        np.array([b"Folk"] * 200), np.array([b"Ska"] * 200), artists=(200, 200), threshold=0.05,
        **WHERE,
    )  # fmt: skip
    assert unheard.alarms and unheard.value == pytest.approx(np.log(2))


def test_few_artists_are_not_judged():
    old, new = np.zeros(100), np.ones(100)
    assert not numbers(old, new, artists=(100, 19)).alarms
    assert numbers(old, new, artists=(100, 19)).limit is None


def test_unknown_values_are_a_kind_of_their_own():
    old, new = np.linspace(0, 1, 400), np.linspace(0, 1, 400)
    new[::2] = np.nan
    assert numbers(old, new).alarms
    assert numbers(np.full(400, np.nan), np.full(400, np.nan)).value == 0


def test_a_fall_of_the_accuracy():
    before = [(0.8, 100)] * 3
    assert drift.of_accuracy(before, (0.5, 100), threshold=0.1).alarms
    assert not drift.of_accuracy(before, (0.75, 100), threshold=0.1).alarms
    assert not drift.of_accuracy(before, (0.65, 25), threshold=0.1).alarms  # may be chance
    assert not drift.of_accuracy(before, (0.95, 100), threshold=0.1).alarms
    assert drift.of_accuracy([], (0.5, 100), threshold=0.1) is None
