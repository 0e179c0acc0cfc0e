"""How good predictions are, and beside which baselines: pure functions of arrays."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from common.dataset_info import DatasetInfo
from common.labels import expected_class
from trainer.evaluation.predictions import Predictions

# With fewer groups a bootstrap over them may give too narrow an interval (Cameron, Gelbach and
# Miller, Bootstrap-Based Improvements for Inference with Clustered Errors, 2008).
FEW_GROUPS = 30

# A genre with fewer clips gets no figures of its own.
MIN_CLIPS_OF_A_GENRE = 20

_BOOTSTRAP_DRAWS = 2_000
# All draws at once would take gigabytes where there are many artists; one by one, mostly Python.
_NUMBERS_AT_ONCE = 1 << 15
_CALIBRATION_BINS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """How well one class is predicted; `num_examples` are of that class."""

    precision: float
    recall: float
    f1: float
    num_examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baselines:
    """Accuracies without listening, None where the training split is empty.

    Attributes:
        majority, genre: of the most frequent class, overall and in the track's genre.
        metadata: of gradient boosting, see `boosting.inputs_without_sound`; None too in an
            evaluation of before there was one.
    """

    majority: float | None
    genre: float | None
    metadata: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """How good some answers are; the figures are those of `Evaluation` by the same names."""

    num_examples: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    macro_f1: float
    log_loss: float
    spearman: float | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scores":
        """Builds scores of plain JSON values; raises as `Evaluation.from_dict` does."""
        low, high = values["accuracy_ci95"]
        return cls(**{**values, "accuracy_ci95": (low, high)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """How much worse the answers are when each clip is given an input of another, at random.

    Of two inputs that say the same, each may seem to be worth nothing. (L. Breiman, "Random
    Forests", 2001, section 10.)

    Attributes:
        num_examples: of how many clips.
        log_loss_increase, log_loss_increase_ci95: in nats, and the 95 % interval (low, high).
        accuracy_decrease: as a share.
    """

    num_examples: int
    log_loss_increase: float
    log_loss_increase_ci95: tuple[float, float]
    accuracy_decrease: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Importance":
        """Builds one of plain JSON values; raises as `Evaluation.from_dict` does."""
        low, high = values["log_loss_increase_ci95"]
        return cls(**{**values, "log_loss_increase_ci95": (low, high)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of a split; the fields are the keys of `evaluation.json`, in that order.

    Attributes:
        num_examples: of the split.
        accuracy, accuracy_ci95: of the predicted classes, and the 95 % interval (low, high).
        balanced_accuracy: mean recall of the classes that there are.
        macro_f1: mean F1 of the classes that there are or that were predicted.
        per_class: by class name, in the order of the labels.
        confusion: counts by true class (rows) and predicted class (columns).
        log_loss: mean cross-entropy in nats.
        ece: expected calibration error, 0…1.
        spearman: rank correlation of the expected class with the listens, None where one of the
            two is constant.
        baselines: accuracies without listening.
        ndcg: normalised discounted cumulative gain of the clips ranked by expected class, the gain
            of a clip being ln(1 + listens): 0…1, None where nobody listened to any.
        top_tenth_recall: how many of the tenth that is listened to most are in the tenth with the
            highest expected class, 0…1.
        spearman_age: rank correlation of the expected class with the date of creation, where that
            is known; None as for `spearman`. Far from 0, a network may have learned the date.
        by_genre: the scores of each genre that has MIN_CLIPS_OF_A_GENRE, the largest first.
        baseline_scores: by name, all scores of the baselines that there are.
        importance: by name, of each input of a network that takes more than the picture.
    """

    num_examples: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    per_class: dict[str, ClassMetrics]
    confusion: list[list[int]]
    log_loss: float
    ece: float
    spearman: float | None
    baselines: Baselines
    ndcg: float | None = None
    top_tenth_recall: float | None = None
    spearman_age: float | None = None
    by_genre: dict[str, Scores] = dataclasses.field(default_factory=dict)
    baseline_scores: dict[str, Scores] = dataclasses.field(default_factory=dict)
    importance: dict[str, Importance] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the same as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Evaluation":
        """Builds an evaluation of plain JSON values.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: they are not those of an evaluation.
        """
        low, high = values["accuracy_ci95"]
        per_class = {name: ClassMetrics(**scores) for name, scores in values["per_class"].items()}
        nested = {
            "accuracy_ci95": (low, high),
            "per_class": per_class,
            "baselines": Baselines(**values["baselines"]),
        }
        for key in ("by_genre", "baseline_scores"):
            # An evaluation of before there were any has none.
            named = values.get(key, {}).items()
            nested[key] = {name: Scores.from_dict(scores) for name, scores in named}
        found = values.get("importance", {}).items()
        nested["importance"] = {name: Importance.from_dict(of_input) for name, of_input in found}
        return cls(**{**values, **nested})


def evaluate(
    predictions: Predictions,
    training_counts: Mapping[bytes, NDArray[Any]],
    class_names: Sequence[str],
    *,
    of_metadata: NDArray[Any] | None = None,
    importance: Mapping[str, Importance] | None = None,
) -> Evaluation:
    """Evaluates the predictions for a split.

    Args:
        predictions: of the split.
        training_counts: of the training split, for the baselines: {genre: how many of each class,
            int [classes]}.
        class_names: in the order of the labels.
        of_metadata: probabilities [examples, classes] by `boosting`; None to leave them out.
        importance: of each input, if it was measured.
    """
    labels, predicted, correct = predictions.label, predictions.predicted, predictions.correct
    classes = list(range(len(class_names)))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    is_there = support > 0
    is_predicted = np.bincount(predicted, minlength=len(classes)) > 0
    expected = expected_class(predictions.probabilities)
    beside = baselines(predictions, training_counts)
    scores = baseline_scores(predictions, training_counts)
    if of_metadata is not None:
        scores["metadata"] = scores_of(dataclasses.replace(predictions, probabilities=of_metadata))
        beside = dataclasses.replace(beside, metadata=scores["metadata"].accuracy)
    return Evaluation(
        num_examples=predictions.num_examples,
        accuracy=float(correct.mean()),
        accuracy_ci95=interval_of_mean(correct, groups_of(predictions)),
        balanced_accuracy=float(recall[is_there].mean()),
        macro_f1=float(f1[is_there | is_predicted].mean()),
        per_class={
            name: ClassMetrics(
                precision=float(precision[c]),
                recall=float(recall[c]),
                f1=float(f1[c]),
                num_examples=int(support[c]),
            )
            for c, name in enumerate(class_names)
        },
        confusion=metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
        log_loss=cross_entropy(predictions),
        ece=calibration_error(predictions.confidence, correct),
        spearman=rank_correlation(expected, predictions.listens),
        baselines=beside,
        ndcg=ndcg(expected, predictions.listens),
        top_tenth_recall=top_tenth_recall(expected, predictions.listens),
        spearman_age=correlation_with_age(expected, predictions.date_created),
        by_genre=scores_by_genre(predictions),
        baseline_scores=scores,
        importance=dict(importance or {}),
    )


def scores_of(predictions: Predictions, predicted: NDArray[Any] | None = None) -> Scores:
    """Returns the scores of predictions; their answers are the likeliest classes unless given."""
    if predicted is None:
        predicted = predictions.predicted
    correct = predicted == predictions.label
    return Scores(
        num_examples=predictions.num_examples,
        accuracy=float(correct.mean()),
        accuracy_ci95=interval_of_mean(correct, groups_of(predictions)),
        macro_f1=float(
            metrics.f1_score(predictions.label, predicted, average="macro", zero_division=0)
        ),
        log_loss=cross_entropy(predictions),
        spearman=rank_correlation(expected_class(predictions.probabilities), predictions.listens),
    )


def scores_by_genre(predictions: Predictions) -> dict[str, Scores]:
    """Returns the scores of each genre with MIN_CLIPS_OF_A_GENRE, the largest first, then by name.

    Tracks without a genre are of none.
    """
    genres, counts = np.unique(predictions.genre, return_counts=True)
    ranked = sorted(zip((-counts).tolist(), genres.tolist(), strict=True))
    return {
        genre.decode(errors="replace"): scores_of(predictions.rows(predictions.genre == genre))
        for count, genre in ranked
        if genre and -count >= MIN_CLIPS_OF_A_GENRE
    }


def cross_entropy(predictions: Predictions) -> float:
    """Returns the mean cross-entropy in nats."""
    return float(cross_entropies(predictions).mean())


def cross_entropies(predictions: Predictions) -> NDArray[Any]:
    """Returns that of each example [examples]; a probability of the truth is at least 1e-7."""
    labels = predictions.label
    of_truth = predictions.probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(of_truth, 1e-7)))


def importance_of(predictions: Predictions, permuted: NDArray[Any]) -> Importance:
    """Returns how important an input is.

    Args:
        predictions: of some clips.
        permuted: probabilities [examples, classes] of the same clips when the input is permuted
            among them.
    """
    after = dataclasses.replace(predictions, probabilities=permuted)
    increase = cross_entropies(after) - cross_entropies(predictions)
    return Importance(
        num_examples=predictions.num_examples,
        log_loss_increase=float(increase.mean()),
        log_loss_increase_ci95=interval_of_mean(increase, groups_of(predictions)),
        accuracy_decrease=float(predictions.correct.mean() - after.correct.mean()),
    )


def majority_accuracy(info: DatasetInfo, split: str) -> float | None:
    """Returns the accuracy of the training split's majority class on a split, None if empty."""
    counts = info.splits["train"].class_counts
    majority = max(counts, key=lambda name: counts[name])
    num_examples = info.splits[split].num_examples
    return info.splits[split].class_counts[majority] / num_examples if num_examples else None


def groups_of(predictions: Predictions) -> NDArray[Any]:
    """Returns what the bootstrap draws: the artist, or the track where none is known."""
    artists = predictions.artist_id
    return np.where(artists >= 0, artists, -2 - predictions.track_id)


def num_groups(predictions: Predictions) -> int:
    """Returns how many groups the interval is drawn from."""
    return len(np.unique(groups_of(predictions)))


def interval_of_mean(
    values: NDArray[Any], groups: NDArray[Any], *, seed: int = 0
) -> tuple[float, float]:
    """Returns a 95 % interval of a mean: percentiles of a bootstrap over groups.

    Tracks of one artist are alike, so drawing tracks would make the interval too narrow (cluster
    bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    Of a single group there is nothing to draw: both ends are the mean.

    Args:
        values: [examples], such as whether each is predicted right.
        groups: int [examples]; all examples of a group are drawn together.
        seed: of the draws.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=values)
    sizes = np.bincount(index)
    rng = np.random.default_rng(seed)
    parts, left = [], _BOOTSTRAP_DRAWS
    while left:
        size = min(left, max(1, _NUMBERS_AT_ONCE // len(sizes)))
        drawn = rng.integers(len(sizes), size=(size, len(sizes)))
        parts.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
        left -= size
    low, high = np.percentile(np.concatenate(parts), [2.5, 97.5])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often predictions are right, by how sure the network is of them.

    Attributes:
        num_examples: int [bins], of each bin of a tenth that has examples, from the lowest.
        confidence: float [bins], its mean.
        accuracy: float [bins].
    """

    num_examples: NDArray[Any]
    confidence: NDArray[Any]
    accuracy: NDArray[Any]


def reliability(confidence: NDArray[Any], correct: NDArray[Any]) -> Reliability:
    """Bins predictions by their confidence.

    Args:
        confidence: [examples], the probability of the predicted class.
        correct: bool [examples].
    """
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    sizes = np.bincount(bins, minlength=_CALIBRATION_BINS)
    filled = sizes > 0

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        sums = np.bincount(bins, weights=values, minlength=_CALIBRATION_BINS)
        return np.asarray(sums[filled] / sizes[filled])

    return Reliability(
        num_examples=sizes[filled], confidence=mean(confidence), accuracy=mean(correct)
    )


def calibration_error(confidence: NDArray[Any], correct: NDArray[Any]) -> float:
    """Returns the expected calibration error over the bins of `reliability` (Guo et al., 2017)."""
    bins = reliability(confidence, correct)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float((bins.num_examples * gaps).sum() / len(confidence))


def rank_correlation(expected: NDArray[Any], listens: NDArray[Any]) -> float | None:
    """Returns Spearman's rank correlation; None where one of the two is constant."""
    if len(np.unique(expected)) < 2 or len(np.unique(listens)) < 2:
        return None
    return float(stats.spearmanr(expected, listens).statistic)


def ndcg(expected: NDArray[Any], listens: NDArray[Any]) -> float | None:
    """Returns the normalised discounted cumulative gain of a ranking by expected class.

    The gain is ln(1 + listens), since with the listens themselves a single hit would decide; clips
    that are ranked alike share their places. (K. Järvelin and J. Kekäläinen, "Cumulated gain-based
    evaluation of IR techniques", 2002.) None where nobody listened to any.
    """
    gains = np.log1p(np.maximum(listens, 0))
    if not gains.any():
        return None
    if len(gains) == 1:
        return 1.0
    return float(metrics.ndcg_score(gains[np.newaxis], expected[np.newaxis]))


def top_tenth_recall(expected: NDArray[Any], listens: NDArray[Any]) -> float:
    """Returns the share of the most listened tenth that is in the tenth ranked highest.

    A tenth is rounded, at least one clip; of clips that are alike the first ones count.
    """
    size = max(1, round(len(listens) / 10))
    highest = np.argsort(-expected, kind="stable")[:size]
    most_listened = np.argsort(-listens, kind="stable")[:size]
    return len(np.intersect1d(highest, most_listened)) / size


def correlation_with_age(expected: NDArray[Any], date_created: NDArray[Any] | None) -> float | None:
    """Returns Spearman's rank correlation with the dates that are known, those from 0 on."""
    if date_created is None:
        return None
    known = date_created >= 0
    return rank_correlation(expected[known], date_created[known])


def counts_by_genre(
    genre: NDArray[Any], label: NDArray[Any], num_classes: int
) -> dict[bytes, NDArray[Any]]:
    """Counts examples by genre and label, {genre: int [classes]}, of columns [examples]."""
    genres, index = np.unique(genre, return_inverse=True)
    counts = np.zeros([len(genres), num_classes], np.int64)
    np.add.at(counts, (index, label), 1)
    return dict(zip(genres.tolist(), counts, strict=True))


def baselines(predictions: Predictions, training_counts: Mapping[bytes, NDArray[Any]]) -> Baselines:
    """Returns the accuracies of the training split's majority class, overall and by genre.

    Tracks without a genre are one of their own; a genre that training has none of gets the overall
    majority; of classes that are as frequent the lowest is taken. For the arguments see `evaluate`.
    """
    if not training_counts:
        return Baselines(majority=None, genre=None)
    majority = np.sum(list(training_counts.values()), axis=0).argmax()
    by_genre = {genre: counts.argmax() for genre, counts in training_counts.items()}
    guesses = np.array([by_genre.get(genre, majority) for genre in predictions.genre])
    return Baselines(
        majority=float((predictions.label == majority).mean()),
        genre=float((predictions.label == guesses).mean()),
    )


def baseline_scores(
    predictions: Predictions, training_counts: Mapping[bytes, NDArray[Any]]
) -> dict[str, Scores]:
    """Returns the scores of `majority` and `genre`; none where the training split is empty.

    The answers are those of `baselines`. The probabilities are the training split's shares of the
    classes, overall and in the genre, to which the overall shares are added as one more track, so
    that no class is impossible. For the arguments see `evaluate`.
    """
    if not training_counts:
        return {}
    overall = np.sum(list(training_counts.values()), axis=0)
    shares = (overall + 1 / len(overall)) / (overall.sum() + 1)
    by_genre = {
        genre: (counts + shares) / (counts.sum() + 1) for genre, counts in training_counts.items()
    }
    of_genre = np.stack([by_genre.get(genre, shares) for genre in predictions.genre])
    answers = {genre: counts.argmax() for genre, counts in training_counts.items()}
    guesses = np.array([answers.get(genre, overall.argmax()) for genre in predictions.genre])
    of_majority = np.tile(shares, (predictions.num_examples, 1))
    return {
        "majority": scores_of(
            dataclasses.replace(predictions, probabilities=of_majority),
            np.full(predictions.num_examples, overall.argmax()),
        ),
        "genre": scores_of(dataclasses.replace(predictions, probabilities=of_genre), guesses),
    }


def confident_mistakes(predictions: Predictions, count: int) -> NDArray[Any]:
    """Returns the indices [≤ count] of the surest wrong predictions, surest first, one a track."""
    wrong = np.flatnonzero(~predictions.correct)
    surest = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    _, first = np.unique(predictions.track_id[surest], return_index=True)
    return surest[np.sort(first)][:count]
