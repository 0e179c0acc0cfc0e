"""The report on a training run, for a person: a table for the terminal, a page for the browser.

The page is one file that loads nothing, and the same for the same run. Its template is
`page/report.html`, rendered with autoescape, so a genre may be called anything.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import labels, tables
from common.dataset_info import DatasetInfo
from common.printable import printable
from trainer.data import reader
from trainer.evaluation import boosting, metrics, pages, plots
from trainer.evaluation.epochs import EpochMetrics, best_epoch
from trainer.evaluation.metrics import Evaluation, Scores
from trainer.evaluation.predictions import Predictions
from trainer.model.input_encoder import inputs_of
from trainer.model.poster import reported_accuracy
from trainer.train_config import TrainConfig

NUM_MISTAKES = 12
# In a person's words, in the order in which they are shown.
BASELINES = {
    "majority": "majority class",
    "genre": "genre alone",
    "metadata": "metadata alone",
}

SCORES = ("accuracy", "95 %", "macro F1", "log loss", "Spearman")

_percent = pages.percent


def table(evaluation: Evaluation, *, split: str, num_artists: int) -> str:
    """Formats an evaluation as lines of text.

    Args:
        evaluation: of the split.
        split: its name.
        num_artists: what the interval of the accuracy was drawn from.
    """
    interval = f"{_interval(evaluation)}; {_drawn_from(num_artists)}"
    rows = [
        ("examples", f"{evaluation.num_examples:,}"),
        ("accuracy", f"{_percent(evaluation.accuracy)} ({interval})"),
        *_other_measures(evaluation),
    ]
    lines = [f"evaluation on {split}", *(f"  {name:<22}{value}" for name, value in rows)]
    beside = [("beside the baselines", *SCORES), *_beside_baselines(evaluation)]
    lines += [f"  {line}" for line in tables.aligned(beside)]
    lines.append("  confusion (rows: true, columns: answered)")
    names = list(evaluation.per_class)
    width = max(len(name) for name in names) + 2
    lines.append(" " * (width + 4) + "".join(f"{name:>{width}}" for name in names))
    for name, row in zip(names, evaluation.confusion, strict=True):
        lines.append(f"    {name:<{width}}" + "".join(f"{count:>{width},}" for count in row))
    return "\n".join(lines)


def page(
    *,
    config: TrainConfig,
    info: DatasetInfo,
    num_parameters: int,
    history: Sequence[EpochMetrics],
    split: str,
    predictions: Predictions | None,
    evaluation: Evaluation | None,
    pictures: Sequence[NDArray[np.uint8]] = (),
    warm_start: Mapping[str, Any] | None = None,
) -> str:
    """Renders the report as an HTML document.

    Args:
        config: of the training run.
        info: of the dataset.
        num_parameters: of the network.
        history: the metrics of each epoch, of which the best was evaluated.
        split: that it was evaluated on.
        predictions, evaluation: of the split; None and None where it has no examples.
        pictures: the spectrograms of `metrics.confident_mistakes`, none to leave them out.
        warm_start: what `training.json` says of it; None of a training from new weights.
    """
    results = None
    if predictions is not None and evaluation is not None:
        results = _results(config, info, split, predictions, evaluation, pictures)
    return pages.render(
        "report.html",
        title=f"{config.network.title}: popularity from audio",
        class_names=info.class_names,
        split=split,
        results=results,
        learning=_learning(config, info, history),
        splits=_splits(info),
        settings=_settings(config),
        facts=[*_facts(info, num_parameters), *_origin(warm_start)],
    )


def pictures_of_mistakes(
    info: DatasetInfo, dataset_dir: str, split: str, predictions: Predictions
) -> list[NDArray[np.uint8]]:
    """Reads the spectrograms uint8 [height, width] of a split's `metrics.confident_mistakes`."""
    mistakes = metrics.confident_mistakes(predictions, NUM_MISTAKES)
    pictures = {}
    batches = reader.batches(info, dataset_dir, split, batch_size=16, names=())
    for batch in batches.as_numpy_iterator():
        for row in np.flatnonzero(np.isin(batch["index"], mistakes) & (batch["weight"] > 0)):
            pictures[batch["index"][row]] = batch["spectrogram"][row]
    return [pictures[index] for index in mistakes]


# ---- what the sections of the page show


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plot:
    """A plot as a data URI, and what it shows in words."""

    source: str
    description: str


def _results(
    config: TrainConfig,
    info: DatasetInfo,
    split: str,
    predictions: Predictions,
    evaluation: Evaluation,
    pictures: Sequence[NDArray[np.uint8]],
) -> dict[str, Any]:
    num_artists = metrics.num_groups(predictions)
    poster = reported_accuracy(config.network)
    about_poster = "The poster reports no figure for this network."
    bars: list[tuple[str, float | None, tuple[float, float] | None]] = [
        ("this network", evaluation.accuracy, evaluation.accuracy_ci95)
    ]
    for key in reversed(BASELINES):
        value, scores = getattr(evaluation.baselines, key), evaluation.baseline_scores.get(key)
        if key != "metadata" or value is not None:
            bars.append((BASELINES[key], value, None if scores is None else scores.accuracy_ci95))
    if poster is not None:
        bars.append(("on the poster", poster, None))
        about_poster = (
            "The poster's figure for this network is of fma_small with tracks split at random, so "
            "with artists on both sides, and classes whose thresholds it does not print."
        )
    clips = f"clip{'s' * (evaluation.num_examples != 1)}"
    correlation = (
        "unknown, since one of the two is the same for all clips"
        if evaluation.spearman is None
        else f"{evaluation.spearman:.3f}"
    )
    return {
        "accuracy": _percent(evaluation.accuracy),
        "count": f"{evaluation.num_examples:,} {split} {clips}",
        "interval": _interval(evaluation),
        "artists": f"{num_artists:,} artist{'s' * (num_artists != 1)}",
        "heard": _heard_in_training(info, split),
        "verdict": _verdict(evaluation, num_artists),
        "bars": [{"name": n, "value": value, "interval": i} for n, value, i in bars],
        "about_poster": about_poster,
        "confusion": [
            (name, [(f"{count:,}", count / max(1, sum(counts))) for count in counts])
            for name, counts in zip(info.class_names, evaluation.confusion, strict=True)
        ],
        "per_class": [
            (
                name,
                *(f"{score:.3f}" for score in (scores.precision, scores.recall, scores.f1)),
                f"{scores.num_examples:,}",
            )
            for name, scores in evaluation.per_class.items()
        ],
        "other_measures": _other_measures(evaluation),
        "metadata": _without_sound(config, info),
        "scores": SCORES,
        "beside_baselines": _beside_baselines(evaluation),
        "importance": _importance(evaluation),
        "by_genre": [
            (printable(genre), f"{scores.num_examples:,}", *_scores(scores))
            for genre, scores in evaluation.by_genre.items()
        ],
        "least_of_a_genre": metrics.MIN_CLIPS_OF_A_GENRE,
        "calibration_error": f"{evaluation.ece:.3f}",
        "reliability": _reliability(predictions),
        "correlation": correlation,
        "expected_class": _plot(
            plots.expected_class(
                labels.expected_class(predictions.probabilities),
                predictions.listens,
                thresholds=info.thresholds,
                class_names=info.class_names,
            ),
            f"Expected class of {evaluation.num_examples:,} clips against their listens; "
            f"Spearman {correlation}.",
        ),
        "mistakes": _mistakes(info, predictions, pictures),
    }


def _without_sound(config: TrainConfig, info: DatasetInfo) -> str:
    """Names what the baseline of metadata has."""
    inputs = boosting.inputs_without_sound(inputs_of(config.network, info))
    return ", ".join([*inputs.category_features.values(), *inputs.number_features.values()])


def _importance(evaluation: Evaluation) -> dict[str, Any] | None:
    """The rows of the inputs, each with its bar as a share of the longest."""
    if not evaluation.importance:
        return None
    found = evaluation.importance.values()
    longest = max(1e-9, *(of_input.log_loss_increase for of_input in found))
    return {
        "count": f"{max(of_input.num_examples for of_input in found):,}",
        "rows": [
            {
                "name": printable(name),
                "log_loss": f"{of_input.log_loss_increase:+.3f}",
                "interval": "{:+.3f} to {:+.3f}".format(*of_input.log_loss_increase_ci95),
                "accuracy": f"{-100 * of_input.accuracy_decrease:+.1f} %",
                "share": max(0.0, of_input.log_loss_increase / longest),
            }
            for name, of_input in evaluation.importance.items()
        ],
    }


def _heard_in_training(info: DatasetInfo, split: str) -> str:
    if split == "train":
        return "all of them"
    return "some of them" if info.split_check["artists_in_two_splits"] else "none of them"


def _verdict(evaluation: Evaluation, num_artists: int) -> str:
    """Says how the interval compares with the best baseline."""
    if num_artists < metrics.FEW_GROUPS:
        return "With so few artists the interval may be too narrow."
    accuracy, name = max(
        (evaluation.baselines.majority or 0, "the majority class"),
        (evaluation.baselines.genre or 0, "genre alone"),
        (evaluation.baselines.metadata or 0, "metadata alone"),
    )
    low, high = evaluation.accuracy_ci95
    if low > accuracy:
        return f"That is better than {name}."
    return f"That is {'worse than' if high < accuracy else 'not told apart from'} {name}."


def _reliability(predictions: Predictions) -> _Plot:
    bins = metrics.reliability(predictions.confidence, predictions.correct)
    description = "; ".join(
        f"{count:,} clips answered with {_percent(sure)} on average are right in {_percent(right)}"
        for sure, right, count in zip(
            bins.confidence, bins.accuracy, bins.num_examples, strict=True
        )
    )
    return _plot(plots.reliability(bins), f"Reliability: {description}.")


def _mistakes(
    info: DatasetInfo, predictions: Predictions, pictures: Sequence[NDArray[np.uint8]]
) -> list[dict[str, Any]]:
    cards = []
    mistakes = metrics.confident_mistakes(predictions, NUM_MISTAKES)
    thumbnails = [plots.data_uri(plots.thumbnail(picture), "image/png") for picture in pictures]
    for number, index in enumerate(mistakes):
        probabilities = ", ".join(
            f"{name} {_percent(value)}"
            for name, value in zip(info.class_names, predictions.probabilities[index], strict=True)
        )
        cards.append(
            {
                "source": thumbnails[number] if number < len(thumbnails) else None,
                "track_id": int(predictions.track_id[index]),
                "genre": printable(predictions.genre[index].decode(errors="replace"))
                or "genre unknown",
                "listens": f"{int(predictions.listens[index]):,}",
                "label": info.class_names[predictions.label[index]],
                "predicted": info.class_names[predictions.predicted[index]],
                "probabilities": probabilities.replace(" %", "\N{NO-BREAK SPACE}%"),
            }
        )
    return cards


def _learning(
    config: TrainConfig, info: DatasetInfo, history: Sequence[EpochMetrics]
) -> dict[str, Any]:
    best = history[best_epoch(history, config.keep) - 1]
    why = "the last, for want of validation"
    curves = []
    for name, majority in (
        ("loss", None),
        ("accuracy", metrics.majority_accuracy(info, "validation")),
    ):
        described = f"training {getattr(best, name):.3f}"
        if best.validation_accuracy is not None:
            why = "of the best validation accuracy" if config.keep == "best" else "the last"
            described += f", validation {getattr(best, f'validation_{name}'):.3f}"
        curves.append(
            _plot(
                plots.learning_curve(name, history, best_epoch=best.epoch, majority=majority),
                f"{name.capitalize()} by epoch. At epoch {best.epoch}, which is kept: {described}.",
            )
        )
    return {"epochs": f"{len(history):,}", "best_epoch": best.epoch, "why": why, "plots": curves}


def _splits(info: DatasetInfo) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(f"{count:,}" for count in split.class_counts.values()),
            f"{split.num_examples:,}",
            f"{split.num_artists:,}",
        )
        for name, split in info.splits.items()
    ]


def _settings(config: TrainConfig) -> list[tuple[str, Any]]:
    values = config.to_dict()
    network = values.pop("network")
    return [*((f"network.{key}", value) for key, value in network.items()), *values.items()]


def _facts(info: DatasetInfo, num_parameters: int) -> list[tuple[str, str]]:
    check = info.split_check
    return [
        ("parameters", f"{num_parameters:,}"),
        ("subset", info.config.subset),
        ("thresholds", " and ".join(f"{edge:,}" for edge in info.thresholds) + " listens"),
        ("split by", check["by"]),
        ("artists in two splits", f"{check['artists_in_two_splits']:,}"),
        ("clips rejected", f"{sum(info.rejected.values()):,}"),
        ("rows without audio", f"{info.missing_audio:,}"),
        ("pictures", "{} × {}".format(*info.config.spectrogram.shape)),
        ("dataset fingerprint", info.fingerprint),
        ("catalogue SHA-256", info.catalog_sha256),
        ("made with", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]


def _origin(warm_start: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if warm_start is None:
        return []
    anew = ", the last layers anew" * bool(warm_start["reset_head"])
    return [("warm start from", f"{warm_start['path']}{anew}, weights {warm_start['fingerprint']}")]


# ---- words


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _interval(evaluation: Evaluation | Scores) -> str:
    low, high = evaluation.accuracy_ci95
    return f"95 %: {100 * low:.1f} to {100 * high:.1f}"


def _drawn_from(num_artists: int) -> str:
    """Says what the interval was drawn from, and whether that was enough."""
    if num_artists == 1:
        return "of one artist, which gives no interval"
    few = num_artists < metrics.FEW_GROUPS
    return f"drawn from {num_artists:,} artists{', so few that it may be too narrow' * few}"


def _other_measures(evaluation: Evaluation) -> list[tuple[str, str]]:
    return [
        ("balanced accuracy", _percent(evaluation.balanced_accuracy)),
        ("macro F1", f"{evaluation.macro_f1:.3f}"),
        ("log loss", f"{evaluation.log_loss:.3f}"),
        ("calibration error", f"{evaluation.ece:.3f}"),
        ("Spearman with listens", _number(evaluation.spearman)),
        ("Spearman with date", _number(evaluation.spearman_age)),
        ("nDCG", _number(evaluation.ndcg)),
        ("recall of top tenth", _percent(evaluation.top_tenth_recall)),
    ]


def _beside_baselines(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The scores of the network and of each baseline, the best informed first, in words."""
    return [
        ("this network", *_scores(evaluation)),
        *(
            (name, *_scores(evaluation.baseline_scores[key]))
            for key, name in reversed(BASELINES.items())
            if key in evaluation.baseline_scores
        ),
    ]


def _scores(scores: Evaluation | Scores) -> tuple[str, ...]:
    return (
        _percent(scores.accuracy),
        _interval(scores).removeprefix("95 %: "),
        f"{scores.macro_f1:.3f}",
        f"{scores.log_loss:.3f}",
        _number(scores.spearman),
    )


# ---- HTML


def _plot(svg: str, description: str) -> _Plot:
    source = plots.data_uri(svg.encode(), "image/svg+xml")
    return _Plot(source=source, description=description)
