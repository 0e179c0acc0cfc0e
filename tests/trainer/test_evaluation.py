"""The evaluation against other implementations and cases with a known answer."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from common import labels
from trainer.evaluation import metrics
from trainer.evaluation.predictions import Predictions

NAMES = ("low", "medium", "high")


def through_json(evaluation: metrics.Evaluation) -> metrics.Evaluation:
    """The same after it was written and read."""
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    return metrics.Evaluation.from_dict(json.loads(text))


def predictions_of(**columns) -> Predictions:
    """Predictions with some columns given and the others of no interest."""
    size = len(next(iter(columns.values())))
    others = {
        "probabilities": np.zeros((size, 3)),
        "label": np.zeros(size, int),
        "listens": np.arange(size),
        "artist_id": np.arange(size),
        "track_id": np.arange(size),
        "genre": np.array([b""] * size),
    }
    return Predictions(**others | columns)


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    size = 200
    columns = {
        "probabilities": rng.dirichlet([1, 1, 1], size),
        "label": rng.choice(3, size, p=[0.2, 0.5, 0.3]),
        "listens": rng.integers(1, 10_000, size),
        "artist_id": rng.integers(-1, 40, size),
        "track_id": np.arange(size),
        "genre": rng.choice([b"Rock", b"Folk", b""], size),
    }
    return Predictions(**columns)


TRAINING = {
    b"Rock": np.array([0, 2, 0]),
    b"Pop": np.array([0, 1, 0]),
    b"Folk": np.array([2, 0, 1]),
}


def test_against_scikit_learn_and_scipy(predictions):
    measured = metrics.evaluate(predictions, TRAINING, NAMES)
    labels, probabilities = predictions.label, predictions.probabilities.astype(float)
    answers = probabilities.argmax(axis=1)
    assert measured.num_examples == 200
    assert measured.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, answers))
    assert measured.balanced_accuracy == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(labels, answers)
    )
    assert measured.macro_f1 == pytest.approx(
        sklearn_metrics.f1_score(labels, answers, average="macro")
    )
    assert measured.log_loss == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities), rel=1e-4
    )
    assert measured.confusion == [
        [int(((labels == true) & (answers == answer)).sum()) for answer in range(3)]
        for true in range(3)
    ]
    expected = probabilities[:, 1] + 2 * probabilities[:, 2]
    assert measured.spearman == pytest.approx(stats.spearmanr(expected, predictions.listens)[0])
    report = sklearn_metrics.classification_report(
        labels, answers, target_names=NAMES, output_dict=True, zero_division=0
    )
    for name in NAMES:
        expected = dict(
            zip(("precision", "recall", "f1", "num_examples"), report[name].values(), strict=True)
        )
        assert dataclasses.asdict(measured.per_class[name]) == pytest.approx(expected)


def test_log_loss_of_a_network_that_gave_the_truth_no_chance():
    """Finite, and as scikit-learn clips float32."""
    predictions = predictions_of(
        label=np.array([0, 1]), probabilities=np.eye(3, dtype=np.float32)[[2, 1]]
    )
    assert metrics.cross_entropy(predictions) == pytest.approx(
        sklearn_metrics.log_loss(predictions.label, predictions.probabilities, labels=[0, 1, 2]),
        rel=0.02,
    )


def test_macro_f1_where_a_class_is_only_answered():
    labels, answers = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 2, 1])
    predictions = predictions_of(probabilities=np.eye(3)[answers], label=labels)
    measured = metrics.evaluate(predictions, TRAINING, NAMES)
    assert measured.macro_f1 == pytest.approx(
        sklearn_metrics.f1_score(labels, answers, average="macro")
    )


def test_baselines_by_hand(predictions):
    labels, genres = predictions.label, predictions.genre
    guesses = np.where(genres == b"Folk", 0, 1)  # the empty genre was never seen: the majority
    measured = metrics.baselines(predictions, TRAINING)
    assert measured.majority == pytest.approx((labels == 1).mean())
    assert measured.genre == pytest.approx((labels == guesses).mean())


def test_calibration_of_an_honest_and_a_boastful_network():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.34, 1, 50_000)
    honest = rng.uniform(size=50_000) < confidence
    assert metrics.calibration_error(confidence, honest) < 0.01
    assert metrics.calibration_error(np.ones(10), np.arange(10) < 6) == pytest.approx(0.4)


def test_calibration_error_by_hand():
    rng = np.random.default_rng(3)
    confidence = np.append(rng.uniform(0.34, 1, 300), 1.0)
    correct = rng.uniform(size=301) < 0.6
    by_hand = 0
    for tenth in range(10):
        inside = (confidence >= tenth / 10) & (
            (confidence < (tenth + 1) / 10) | ((tenth == 9) & (confidence == 1))
        )
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            by_hand += inside.mean() * gap
    assert metrics.calibration_error(confidence, correct) == pytest.approx(by_hand)


def test_a_tie_of_classes_takes_the_lowest():
    training = {b"A": np.array([1, 0, 1]), b"B": np.array([1, 0, 1])}
    predictions = predictions_of(label=np.array([0, 2]), genre=np.array([b"A", b"C"]))
    measured = metrics.baselines(predictions, training)
    assert measured == metrics.Baselines(majority=0.5, genre=0.5)


def test_tracks_of_unknown_artists_are_drawn_one_by_one():
    predictions = predictions_of(
        artist_id=np.array([7, 7, -1, -1, -1, 0]), track_id=np.array([1, 2, 3, 3, 5, 0])
    )
    assert metrics.num_groups(predictions) == 4
    groups = metrics.groups_of(predictions)
    assert groups[0] == groups[1] and groups[2] == groups[3]


def test_the_interval_against_scipy():
    """Groups of one size are a sample of their means, which scipy can draw from."""
    rng = np.random.default_rng(4)
    correct = rng.uniform(size=(80, 4)) < rng.beta(2, 2, 80)[:, np.newaxis]
    theirs = stats.bootstrap(
        (correct.mean(axis=1),), np.mean, method="percentile", n_resamples=5_000, rng=5
    ).confidence_interval
    ours = metrics.interval_of_mean(correct.ravel(), np.repeat(np.arange(80), 4))
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.01)


def test_the_interval_covers_and_knows_that_artists_are_alike():
    rng = np.random.default_rng(2)
    covered = widths = 0
    for trial in range(100):
        skill = rng.beta(3, 2, 60)  # each artist's tracks are right this often; the mean is 0.6
        groups = np.repeat(np.arange(60), 5)
        correct = rng.uniform(size=300) < skill[groups]
        low, high = metrics.interval_of_mean(correct, groups, seed=trial)
        alone_low, alone_high = metrics.interval_of_mean(correct, np.arange(300), seed=trial)
        covered += low <= 0.6 <= high
        widths += (high - low) > (alone_high - alone_low)
    assert 88 <= covered <= 100
    assert widths > 90


def test_one_example():
    one = predictions_of(
        probabilities=np.array([[0.1, 0.2, 0.7]]),
        label=np.array([2]),
        artist_id=np.array([-1]),
    )
    measured = metrics.evaluate(one, TRAINING, NAMES)
    assert measured.accuracy == measured.balanced_accuracy == 1
    assert measured.accuracy_ci95 == (1, 1)
    assert measured.spearman is None
    assert through_json(measured) == measured


def test_one_class_and_equal_listens(predictions):
    predictions = dataclasses.replace(predictions, label=np.full(200, 1), listens=np.full(200, 5))
    measured = metrics.evaluate(predictions, TRAINING, NAMES)
    assert measured.balanced_accuracy == measured.accuracy
    assert dataclasses.asdict(measured.per_class["low"]) == {
        "precision": 0,
        "recall": 0,
        "f1": 0,
        "num_examples": 0,
    }
    assert measured.spearman is None
    assert measured.baselines.majority == 1
    assert through_json(measured) == measured


def test_the_surest_mistakes(predictions):
    # Two clips a track.
    predictions = dataclasses.replace(predictions, track_id=np.arange(200) // 2)
    answers = predictions.probabilities.argmax(axis=1)
    sure = predictions.probabilities.max(axis=1)
    best = {}
    for place in np.flatnonzero(answers != predictions.label):
        track = predictions.track_id[place]
        if track not in best or sure[place] > sure[best[track]]:
            best[track] = place
    expected = sorted(best.values(), key=lambda place: -sure[place])
    assert metrics.confident_mistakes(predictions, 9).tolist() == expected[:9]
    right = dataclasses.replace(predictions, label=answers)
    assert not len(metrics.confident_mistakes(right, 9))


def test_ranking_against_scikit_learn_and_scipy(predictions):
    dates = np.random.default_rng(1).integers(-1, 5, 200)
    dated = dataclasses.replace(predictions, date_created=dates)
    measured = through_json(metrics.evaluate(dated, TRAINING, NAMES))
    expected = labels.expected_class(predictions.probabilities)
    gains = np.log1p(predictions.listens)
    assert measured.ndcg == pytest.approx(sklearn_metrics.ndcg_score([gains], [expected]))
    order = sorted(range(200), key=lambda place: -expected[place])[:20]
    most = sorted(range(200), key=lambda place: -predictions.listens[place])[:20]
    assert measured.top_tenth_recall == len(set(order) & set(most)) / 20
    known = dates >= 0
    assert measured.spearman_age == pytest.approx(stats.spearmanr(expected[known], dates[known])[0])
    assert metrics.evaluate(predictions, TRAINING, NAMES).spearman_age is None


def test_a_perfect_ranking_and_a_reversed_one():
    listens = np.arange(50) ** 2
    assert metrics.ndcg(listens / 1e4, listens) == pytest.approx(1)
    assert metrics.top_tenth_recall(listens / 1e4, listens) == 1
    assert metrics.ndcg(-listens / 1e4, listens) < 0.8
    assert metrics.top_tenth_recall(-listens / 1e4, listens) == 0
    assert metrics.ndcg(np.zeros(3), np.zeros(3)) is None


def test_scores_by_genre_are_those_of_its_clips(predictions):
    measured = through_json(metrics.evaluate(predictions, TRAINING, NAMES))
    assert measured.by_genre.keys() == {"Rock", "Folk"}  # and none for an unknown genre
    assert [s.num_examples for s in measured.by_genre.values()] == sorted(
        (s.num_examples for s in measured.by_genre.values()), reverse=True
    )
    for name, scores in measured.by_genre.items():
        rows = predictions.genre == name.encode()
        labels, probabilities = predictions.label[rows], predictions.probabilities[rows]
        answers = probabilities.argmax(axis=1)
        assert scores.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, answers))
        assert scores.macro_f1 == pytest.approx(
            sklearn_metrics.f1_score(labels, answers, average="macro")
        )
        assert scores.log_loss == pytest.approx(
            sklearn_metrics.log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-4
        )
        correlation = stats.spearmanr(probabilities @ [0, 1, 2], predictions.listens[rows])[0]
        assert scores.spearman == pytest.approx(correlation)
    few = predictions.rows(np.arange(10))
    assert metrics.evaluate(few, TRAINING, NAMES).by_genre == {}


def test_baselines_have_scores_of_their_own(predictions):
    boosted = np.random.default_rng(2).dirichlet([1, 1, 1], 200)
    measured = through_json(metrics.evaluate(predictions, TRAINING, NAMES, of_metadata=boosted))
    assert list(measured.baseline_scores) == ["majority", "genre", "metadata"]
    for name, scores in measured.baseline_scores.items():
        assert scores.accuracy == getattr(measured.baselines, name)
        low, high = scores.accuracy_ci95
        assert low <= scores.accuracy <= high and np.isfinite(scores.log_loss)
    shares = (np.array([2, 3, 1]) + 1 / 3) / 7
    assert measured.baseline_scores["majority"].log_loss == pytest.approx(
        -np.log(shares[predictions.label]).mean()
    )
    assert measured.baseline_scores["majority"].spearman is None
    assert metrics.evaluate(predictions, {}, NAMES).baseline_scores == {}


def test_the_importance_of_an_input_by_hand():
    before = predictions_of(
        probabilities=np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]),
        label=np.array([0, 1]),
        artist_id=np.array([7, 7]),
    )
    permuted = np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
    found = metrics.importance_of(before, permuted)
    assert found.log_loss_increase == pytest.approx(np.log(2) / 2)
    assert found.accuracy_decrease == 0.5 and found.num_examples == 2
    # Of one artist there is nothing to draw.
    assert found.log_loss_increase_ci95 == (found.log_loss_increase,) * 2
    measured = metrics.evaluate(before, TRAINING, NAMES, importance={"genre": found})
    assert through_json(measured).importance == {"genre": found}


def test_an_evaluation_of_before_there_were_more_measures_is_read(predictions):
    values = metrics.evaluate(predictions, TRAINING, NAMES).to_dict()
    for name in (
        "ndcg",
        "top_tenth_recall",
        "spearman_age",
        "by_genre",
        "baseline_scores",
        "importance",
    ):
        del values[name]
    del values["baselines"]["metadata"]
    assert metrics.Evaluation.from_dict(values).accuracy == values["accuracy"]
