"""How good the answers are, and beside what: pure functions of arrays."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from beam_pipelines.dataset_info import DatasetInfo

_BOOTSTRAP_DRAWS = 2_000
_CALIBRATION_BINS = 10


def evaluate(
    predictions: dict[str, np.ndarray],
    training: dict[str, np.ndarray],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The evaluation of a split, as it is written to `evaluation.json`.

    Args:
        predictions: columns of the split: `probabilities` [examples, classes], and [examples]
            each `label`, `listens`, `artist_id`, `track_id`, `genre` (bytes).
        training: the columns `label` and `genre` of the training split, for the baselines.
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
        "spearman": rank_correlation(probabilities @ np.array(classes), predictions["listens"]),
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


def accuracy_interval(correct: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> list[float]:
    """A 95 % interval of the accuracy: percentiles of a bootstrap over groups.

    Tracks of one artist are alike, so drawing tracks would make the interval too narrow (cluster
    bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

    Args:
        correct: bool [examples].
        groups: int [examples]; all examples of a group are drawn together.
        seed: of the draws.
    """
    _, index = np.unique(groups, return_inverse=True)
    hits = np.bincount(index, weights=correct)
    sizes = np.bincount(index)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sizes), size=(_BOOTSTRAP_DRAWS, len(sizes)))
    accuracies = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return [float(bound) for bound in np.percentile(accuracies, [2.5, 97.5])]


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error over ten bins of confidence (Guo et al., 2017).

    Args:
        confidence: probability [examples] of the answer that was given.
        correct: bool [examples].
    """
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def rank_correlation(expected_class: np.ndarray, listens: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where one of the two is constant."""
    if len(np.unique(expected_class)) < 2 or len(np.unique(listens)) < 2:
        return None
    return float(stats.spearmanr(expected_class, listens).statistic)


def baselines(
    predictions: dict[str, np.ndarray], training: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """Accuracies without listening: the training split's majority class, overall and by genre."""
    if not len(training["label"]):
        return {"majority": None, "genre": None}
    majority = Counter(training["label"].tolist()).most_common(1)[0][0]
    by_genre = {
        genre: Counter(training["label"][training["genre"] == genre].tolist()).most_common(1)[0][0]
        for genre in set(training["genre"].tolist())
    }
    guesses = np.array([by_genre.get(genre, majority) for genre in predictions["genre"].tolist()])
    return {
        "majority": float((predictions["label"] == majority).mean()),
        "genre": float((predictions["label"] == guesses).mean()),
    }


def table(evaluation: dict[str, Any], *, split: str, num_artists: int) -> str:
    """An evaluation as lines of text; `num_artists` is what the interval was drawn from."""

    def percent(value):
        return "unknown" if value is None else f"{100 * value:.1f} %"

    low, high = evaluation["accuracy_ci95"]
    rows = [
        ("examples", f"{evaluation['num_examples']:,}"),
        (
            "accuracy",
            f"{percent(evaluation['accuracy'])} (95 %: {100 * low:.1f} to {100 * high:.1f}, "
            f"drawn from {num_artists:,} artists)",
        ),
        ("majority class", percent(evaluation["baselines"]["majority"])),
        ("genre alone", percent(evaluation["baselines"]["genre"])),
        ("balanced accuracy", percent(evaluation["balanced_accuracy"])),
        ("macro F1", f"{evaluation['macro_f1']:.3f}"),
        ("log loss", f"{evaluation['log_loss']:.3f}"),
        ("calibration error", f"{evaluation['ece']:.3f}"),
        (
            "Spearman with listens",
            "unknown" if evaluation["spearman"] is None else f"{evaluation['spearman']:.3f}",
        ),
    ]
    lines = [f"evaluation on {split}", *(f"  {name:<22}{value}" for name, value in rows)]
    lines.append("  confusion (rows: true, columns: answered)")
    names = list(evaluation["per_class"])
    width = max(len(name) for name in names) + 2
    lines.append(" " * (width + 4) + "".join(f"{name:>{width}}" for name in names))
    for name, row in zip(names, evaluation["confusion"], strict=True):
        lines.append(f"    {name:<{width}}" + "".join(f"{count:>{width},}" for count in row))
    return "\n".join(lines)
