"""The histograms of a training, and limits of drift, beside second implementations."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from common import divergence
from common.training_reference import Histogram, TrainingReference


def reference(seed=0, size=500) -> TrainingReference:
    rng = np.random.default_rng(seed)
    pictures = {
        name: rng.normal(100, 20, size).astype(np.float32)
        for name in ("level", "contrast", "brightness", "motion")
    }
    return TrainingReference.of(pictures, rng.dirichlet([1, 2, 3], size).astype(np.float32))


def test_tenths_hold_a_tenth_each():
    values = np.random.default_rng(0).normal(size=1_000)
    histogram = Histogram.of(values)
    assert histogram.counts == (100,) * 10
    for place, edge in enumerate(histogram.edges, start=1):
        # As Prometheus counts: up to and with the edge.
        assert (values <= edge).sum() == 100 * place


def test_values_that_repeat_have_fewer_bins():
    histogram = Histogram.of(np.array([1.0] * 50 + [2.0] * 30 + [3.0] * 20))
    assert sum(histogram.counts) == 100
    assert len(histogram.counts) == len(histogram.edges) + 1 < 10
    assert histogram.edges == tuple(sorted(set(histogram.edges)))
    assert Histogram.of(np.full(7, 4.0)).counts == (7, 0)


def test_what_is_counted_of_answers():
    probabilities = np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0, 1], [0.2, 0.1, 0.7]])
    of_four = TrainingReference.of(
        {name: np.arange(4.0) for name in ("level", "contrast", "brightness", "motion")},
        probabilities,
    )
    assert of_four.labels == (1, 1, 2)
    expected = [0, 1.5, 2, 1.5]
    edges = of_four.expected_class.edges
    assert edges == pytest.approx(sorted(set(np.quantile(expected, np.arange(1, 10) / 10))))


def test_as_json_and_back():
    made = reference()
    values = json.loads(json.dumps(dataclasses.asdict(made)))
    assert TrainingReference.from_dict(values, num_classes=3) == made


def test_limits_against_scipy():
    chi2 = stats.chi2.isf(1e-4, 9)
    assert divergence.psi_limit(0.0, bins=10, sizes=(50, 80)) == pytest.approx(
        (1 / 50 + 1 / 80) * chi2
    )
    assert divergence.psi_limit(0.25, bins=10, sizes=(5_000, 8_000)) == 0.25
    assert divergence.jensen_shannon_limit(0.0, bins=3, sizes=(50, 80)) == pytest.approx(
        (1 / 50 + 1 / 80) * stats.chi2.isf(1e-4, 2) / 8
    )
