"""How good the answers are, and beside what: pure functions of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from common.dataset_info import DatasetInfo

# With fewer groups a bootstrap over them may give too narrow an interval (Cameron, Gelbach and
# Miller, Bootstrap-Based Improvements for Inference with Clustered Errors, 2008).
FEW_GROUPS = 30

_BOOTSTRAP_DRAWS = 2_000
_CALIBRATION_BINS = 10


def evaluate(
    predictions: dict[str, np.ndarray],
    training: Mapping[bytes, np.ndarray],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The evaluation of a split, as it is written to `evaluation.json`.

    Args:
        predictions: columns of the split: `probabilities` [examples, classes], and [examples]
            each `label`, `listens`, `artist_id`, `track_id`, `genre` (bytes).
        training: of the training split, for the baselines: {genre: how many of each class, int
            [classes]}.
        class_names: in the order of the labels.
    """
    labels, probabilities = predictions["label"], predictions["probabilities"]
    answers = probabilities.argmax(axis=1)
    correct = answers == labels
    classes = list(range(len(class_names)))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, answers, labels=classes, zero_division=0
    )
    present = support > 0
    answered = np.bincount(answers, minlength=len(classes)) > 0
    return {
        "num_examples": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_ci95": accuracy_interval(correct, groups_of(predictions)),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present | answered].mean()),
        "per_class": {
            name: {
                "precision": float(precision[c]),
                "recall": float(recall[c]),
                "f1": float(f1[c]),
                "num_examples": int(support[c]),
            }
            for c, name in enumerate(class_names)
        },
        "confusion": metrics.confusion_matrix(labels, answers, labels=classes).tolist(),
        "log_loss": loss_and_accuracy(predictions)["loss"],
        "ece": calibration_error(probabilities.max(axis=1), correct),
        "spearman": rank_correlation(expected_class(probabilities), predictions["listens"]),
        "baselines": baselines(predictions, training),
    }


def loss_and_accuracy(predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Cross-entropy in nats and accuracy; for the arguments see `evaluate`."""
    labels, probabilities = predictions["label"], predictions["probabilities"]
    given = probabilities[np.arange(len(labels)), labels]
    return {
        "loss": float(-np.log(np.maximum(given, 1e-7)).mean()),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
    }


def majority_accuracy(info: DatasetInfo, split: str) -> float | None:
    """Accuracy on a split of the training split's majority class, None where it is empty."""
    counts = info.splits["train"].class_counts
    majority = max(counts, key=counts.get)
    num_examples = info.splits[split].num_examples
    return info.splits[split].class_counts[majority] / num_examples if num_examples else None


def groups_of(predictions: dict[str, np.ndarray]) -> np.ndarray:
    """What the bootstrap draws: the artist, or the track itself where none is known."""
    artists = predictions["artist_id"]
    return np.where(artists >= 0, artists, -2 - predictions["track_id"])


def num_groups(predictions: dict[str, np.ndarray]) -> int:
    """How many groups the interval is drawn from."""
    return len(np.unique(groups_of(predictions)))


def accuracy_interval(correct: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> list[float]:
    """A 95 % interval of the accuracy: percentiles of a bootstrap over groups.

    Tracks of one artist are alike, so drawing tracks would make the interval too narrow (cluster
    bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    Of a single group there is nothing to draw: both ends are the accuracy.

    Args:
        correct: bool [examples].
        groups: int [examples]; all examples of a group are drawn together.
        seed: of the draws.
    """
    _, index = np.unique(groups, return_inverse=True)
    hits = np.bincount(index, weights=correct)
    sizes = np.bincount(index)
    rng = np.random.default_rng(seed)
    # One draw after the other: all at once would take gigabytes where there are many artists.
    draws = (rng.integers(len(sizes), size=len(sizes)) for _ in range(_BOOTSTRAP_DRAWS))
    accuracies = [hits[drawn].sum() / sizes[drawn].sum() for drawn in draws]
    return [float(bound) for bound in np.percentile(accuracies, [2.5, 97.5])]


def reliability(confidence: np.ndarray, correct: np.ndarray) -> dict[str, np.ndarray]:
    """How often the answers are right, by how sure the network is of them.

    Args:
        confidence: probability [examples] of the answer that was given.
        correct: bool [examples].

    Returns:
        Of each bin of a tenth that has examples, from the lowest: `num_examples`, the mean
        `confidence` and the `accuracy`.
    """
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    sizes = np.bincount(bins, minlength=_CALIBRATION_BINS)
    filled = sizes > 0
    sums = {"confidence": confidence, "accuracy": correct}
    means = {
        name: np.bincount(bins, weights=values, minlength=_CALIBRATION_BINS)[filled] / sizes[filled]
        for name, values in sums.items()
    }
    return {"num_examples": sizes[filled], **means}


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error over the bins of `reliability` (Guo et al., 2017)."""
    bins = reliability(confidence, correct)
    gaps = np.abs(bins["accuracy"] - bins["confidence"])
    return float((bins["num_examples"] * gaps).sum() / len(confidence))


def expected_class(probabilities: np.ndarray) -> np.ndarray:
    """The mean of the label under the answer, from 0 to classes − 1; [examples, classes] in."""
    return probabilities.astype(np.float64) @ np.arange(probabilities.shape[1])


def rank_correlation(expected: np.ndarray, listens: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where one of the two is constant."""
    if len(np.unique(expected)) < 2 or len(np.unique(listens)) < 2:
        return None
    return float(stats.spearmanr(expected, listens).statistic)


def baselines(
    predictions: dict[str, np.ndarray], training: Mapping[bytes, np.ndarray]
) -> dict[str, float | None]:
    """Accuracies without listening: the training split's majority class, overall and by genre.

    Tracks without a genre are one of their own; a genre that training has none of gets the overall
    majority; of classes that are as frequent the lowest is taken. For the arguments see `evaluate`.
    """
    if not training:
        return {"majority": None, "genre": None}
    majority = sum(training.values()).argmax()
    by_genre = {genre: counts.argmax() for genre, counts in training.items()}
    guesses = np.array([by_genre.get(genre, majority) for genre in predictions["genre"]])
    return {
        "majority": float((predictions["label"] == majority).mean()),
        "genre": float((predictions["label"] == guesses).mean()),
    }


def confident_mistakes(predictions: dict[str, np.ndarray], count: int) -> np.ndarray:
    """The places [≤ count] of the wrong answers that were surest, from the surest; one a track."""
    labels, probabilities = predictions["label"], predictions["probabilities"]
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    surest = wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")]
    _, first = np.unique(predictions["track_id"][surest], return_index=True)
    return surest[np.sort(first)][:count]
