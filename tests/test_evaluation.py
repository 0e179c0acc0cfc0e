"""The evaluation against other implementations and cases with a known answer."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from trainer import evaluation

NAMES = ("low", "medium", "high")


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    size = 200
    return {
        "probabilities": rng.dirichlet([1, 1, 1], size),
        "label": rng.choice(3, size, p=[0.2, 0.5, 0.3]),
        "listens": rng.integers(1, 10_000, size),
        "artist_id": rng.integers(-1, 40, size),
        "track_id": np.arange(size),
        "genre": rng.choice([b"Rock", b"Folk", b""], size),
    }


TRAINING = {
    "label": np.array([1, 1, 1, 0, 0, 2]),
    "genre": np.array([b"Rock", b"Rock", b"Pop", b"Folk", b"Folk", b"Folk"]),
}


def test_against_scikit_learn_and_scipy(predictions):
    measured = evaluation.evaluate(predictions, TRAINING, NAMES)
    labels, probabilities = predictions["label"], predictions["probabilities"].astype(float)
    answers = probabilities.argmax(axis=1)
    assert measured["num_examples"] == 200
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(labels, answers))
    assert measured["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, answers)
    )
    assert measured["macro_f1"] == pytest.approx(metrics.f1_score(labels, answers, average="macro"))
    assert measured["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-4)
    assert np.trace(measured["confusion"]) == (labels == answers).sum()
    expected = probabilities[:, 1] + 2 * probabilities[:, 2]
    assert measured["spearman"] == pytest.approx(
        stats.spearmanr(expected, predictions["listens"])[0]
    )
    assert measured["per_class"]["high"]["num_examples"] == (labels == 2).sum()


def test_macro_f1_where_a_class_is_only_answered():
    labels, answers = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 2, 1])
    predictions = {
        "probabilities": np.eye(3)[answers],
        "label": labels,
        "listens": np.arange(5),
        "artist_id": np.arange(5),
        "track_id": np.arange(5),
        "genre": np.array([b""] * 5),
    }
    measured = evaluation.evaluate(predictions, TRAINING, NAMES)
    assert measured["macro_f1"] == pytest.approx(metrics.f1_score(labels, answers, average="macro"))


def test_baselines_by_hand(predictions):
    labels, genres = predictions["label"], predictions["genre"]
    guesses = np.where(genres == b"Folk", 0, 1)  # the empty genre was never seen: the majority
    measured = evaluation.baselines(predictions, TRAINING)
    assert measured["majority"] == pytest.approx((labels == 1).mean())
    assert measured["genre"] == pytest.approx((labels == guesses).mean())


def test_calibration_of_an_honest_and_a_boastful_network():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.34, 1, 50_000)
    honest = rng.uniform(size=50_000) < confidence
    assert evaluation.calibration_error(confidence, honest) < 0.01
    assert evaluation.calibration_error(np.ones(10), np.arange(10) < 6) == pytest.approx(0.4)


def test_the_interval_covers_and_knows_that_artists_are_alike():
    rng = np.random.default_rng(2)
    covered = widths = 0
    for trial in range(100):
        skill = rng.beta(3, 2, 60)  # each artist's tracks are right this often; the mean is 0.6
        groups = np.repeat(np.arange(60), 5)
        correct = rng.uniform(size=300) < skill[groups]
        low, high = evaluation.accuracy_interval(correct, groups, seed=trial)
        alone_low, alone_high = evaluation.accuracy_interval(correct, np.arange(300), seed=trial)
        covered += low <= 0.6 <= high
        widths += (high - low) > (alone_high - alone_low)
    assert 88 <= covered <= 100
    assert widths > 90


def test_one_example():
    one = {
        "probabilities": np.array([[0.1, 0.2, 0.7]]),
        "label": np.array([2]),
        "listens": np.array([5000]),
        "artist_id": np.array([-1]),
        "track_id": np.array([7]),
        "genre": np.array([b""]),
    }
    measured = evaluation.evaluate(one, TRAINING, NAMES)
    assert measured["accuracy"] == measured["balanced_accuracy"] == 1
    assert measured["accuracy_ci95"] == [1, 1]
    assert measured["spearman"] is None
    assert "accuracy" in evaluation.table(measured, split="test", num_artists=1)
