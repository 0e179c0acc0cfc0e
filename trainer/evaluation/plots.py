"""Plots of a training run and its evaluation: PNG for files, SVG and thumbnails for a page."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, PercentFormatter

from common.spectrogram import COLORMAP
from trainer.evaluation.epochs import EpochMetrics
from trainer.evaluation.metrics import Reliability
from trainer.network_config import color_name

# Legible on white and on black; `_INK` is what turns with the page.
_BLUE, _ORANGE, _INK = "#3d85c6", "#d9730d", "#010203"
_SVG_STYLE: dict[Any, Any] = {
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
    "grid.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "fma-popularity",  # the same names inside each time
}
_TURNING = (
    "<style>svg{color:#1f2328}"
    "@media screen and (prefers-color-scheme:dark){svg{color:#e6e8eb}}</style>"
)


def learning_curves(
    history: Sequence[EpochMetrics], *, best_epoch: int, majority: float | None
) -> bytes:
    """Plots loss and accuracy by epoch as a PNG.

    Args:
        history: the metrics of each epoch.
        best_epoch: counted from 1, the one whose weights are kept.
        majority: accuracy of the majority class on the validation split, None if unknown.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curve(left, "loss", history, best_epoch=best_epoch)
    _draw_curve(right, "accuracy", history, best_epoch=best_epoch, majority=majority)
    return _png(figure)


def beside_the_poster(results: Sequence[dict[str, Any]]) -> bytes:
    """Plots test accuracies as a PNG: each run's with its interval, the poster's, the majority's.

    Args:
        results: see `results.collect`; of one dataset or two.
    """
    colors = (_BLUE, _ORANGE)
    trainings = [len(network["trainings"]) for network in results[0]["networks"]]
    height = 1.8 + 0.25 * len(results) * sum(trainings) + 0.35 * len(trainings)
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    names, places = [], []
    below = 0.0
    for number, network in enumerate(results[0]["networks"]):
        top = below
        for of_dataset, color in zip(results, colors, strict=False):
            for run in of_dataset["networks"][number]["trainings"]:
                below += 1
                accuracy, (low, high) = run["test_accuracy"], run["test_accuracy_ci95"]
                axes.plot([low, high], [below, below], color=color, linewidth=2, alpha=0.6)
                axes.plot(accuracy, below, "o", color=color, clip_on=False)
        poster = network["poster_accuracy"]
        if poster is not None:
            axes.plot([poster, poster], [top + 0.5, below + 0.5], color="black", linewidth=3)
        names.append(f"{network['convolutions']}-conv {color_name(network['color'])}")
        places.append((top + 1 + below) / 2)
        below += 1
    for of_dataset, color in zip(results, colors, strict=False):
        label = f"split by {of_dataset['split_by']}"
        axes.plot([], [], "o-", color=color, label=f"ours, {label} (95 %)")
        axes.axvline(
            of_dataset["baselines"]["majority"],
            color=color,
            linestyle="--",
            linewidth=1,
            label=f"majority class, {label}",
        )
    axes.plot([], [], color="black", linewidth=3, label="the poster's")
    axes.set_yticks(places, names)
    axes.set(xlabel="test accuracy", xlim=(0, 1), ylim=(below, 0))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _png(figure)


def trials(found: Sequence[dict[str, Any]], *, best: int) -> bytes:
    """Plots the trials of a sweep as a PNG: accuracy by each setting, and by epoch.

    Args:
        found: see `search.of_trial`.
        best: the number of the best.
    """
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    left, middle, right, below = figure.subplot_mosaic(
        [["rate", "batch", "dropout"], ["epochs"] * 3]
    ).values()
    for axes, key in ((left, "learning_rate"), (middle, "batch_size"), (right, "dropout")):
        for trial in found:
            if trial["validation_accuracy"] is None:
                continue
            ended, chosen = trial["outcome"] == "to the end", trial["number"] == best
            color = _ORANGE if chosen else _BLUE
            axes.plot(
                trial[key],
                trial["validation_accuracy"],
                "o",
                color=color,
                markerfacecolor=color if ended else "none",
                zorder=3 if chosen else 2,
            )
        axes.set(xlabel=key.replace("_", " "))
    left.set_xscale("log")
    sizes = sorted({trial["batch_size"] for trial in found})
    middle.set_xscale("log", base=2)
    middle.set_xticks(sizes, [str(size) for size in sizes])
    for trial in found:
        ended, chosen = trial["outcome"] == "to the end", trial["number"] == best
        epochs = range(1, len(trial["curve"]) + 1)
        below.plot(
            epochs,
            trial["curve"],
            "-" if ended else ":",
            color=_ORANGE if chosen else _BLUE,
            marker="." if len(epochs) < 30 else None,
            linewidth=2 if chosen else 1,
            zorder=3 if chosen else 2,
        )
    below.set(xlabel="epoch")
    below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    below.plot([], [], "o-", color=_ORANGE, label=f"the best, trial {best}")
    below.plot([], [], "o-", color=_BLUE, label="trained to the end")
    below.plot([], [], "o:", color=_BLUE, markerfacecolor="none", label="stopped early")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    for axes in (left, middle, right, below):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
    for axes in (left, below):
        axes.set_ylabel("validation accuracy")
    return _png(figure)


def prequential(lines: Sequence[dict[str, Any]]) -> bytes:
    """Plots how good models were on generations that they had not been trained on, as a PNG.

    Args:
        lines: of `prequential.jsonl`.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = {
        "follow": ("this model", _BLUE, "o-"),
        "served": ("the one that was served", _ORANGE, ".-"),
        "first": ("the first one, never trained on", "gray", ".:"),
    }
    for axes, score in ((left, "accuracy"), (right, "log_loss")):
        for model, (label, color, style) in shown.items():
            of_it = [line for line in lines if model in line["models"]]
            axes.plot(
                [line["generation"] for line in of_it],
                [line["models"][model][score] for line in of_it],
                style,
                color=color,
                label=label,
                zorder=3 if model == "follow" else 2,
            )
        for line in lines:
            if line["drift"]:
                axes.axvline(line["generation"], color="gray", linewidth=6, alpha=0.2)
        axes.set(xlabel="generation", title=f"{score.replace('_', ' ')} before training on it")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    left.plot([], [], color="gray", linewidth=6, alpha=0.2, label="drift")
    left.set(ylim=(0, 1))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend(loc="lower right")
    right.set(ylim=(0, None))
    return _png(figure)


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def learning_curve(
    name: str, history: Sequence[EpochMetrics], *, best_epoch: int, majority: float | None = None
) -> str:
    """Plots `loss` or `accuracy` by epoch as an SVG; for the arguments see `learning_curves`."""
    return _svg(
        lambda axes: _draw_curve(axes, name, history, best_epoch=best_epoch, majority=majority)
    )


def _draw_curve(
    axes: Axes,
    name: str,
    history: Sequence[EpochMetrics],
    *,
    best_epoch: int,
    majority: float | None = None,
) -> None:
    epochs = [metrics.epoch for metrics in history]
    marker = "o" if len(history) == 1 else None  # a line of one point is not seen
    curves = [("training", name, _BLUE), ("validation", f"validation_{name}", _ORANGE)]
    for label, key, color in curves:
        values = [getattr(metrics, key) for metrics in history]
        if None not in values:
            axes.plot(epochs, values, label=label, color=color, marker=marker)
    axes.axvline(best_epoch, color="gray", linestyle=":", label=f"kept: epoch {best_epoch}")
    if majority is not None:
        label = "always the majority class"
        axes.axhline(majority, color="gray", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="epoch", title=name.capitalize(), xlim=(0.5, len(history) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    if name == "loss":
        axes.set(ylabel="cross-entropy (nats)", ylim=(0, None))
        axes.legend()
    else:
        axes.set(ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower right")


def reliability(bins: Reliability) -> str:
    """Plots how often predictions are right by how sure they are as an SVG."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="calibrated")
        sure, right = bins.confidence, bins.accuracy
        axes.vlines(sure, sure, right, color=_ORANGE, label="gap")
        axes.plot(sure, right, "o", color=_BLUE, label="the network", clip_on=False)
        for x, count in zip(sure, bins.num_examples, strict=True):
            axes.text(x, 0.02, f"{count:,}", ha="center", rotation="vertical", fontsize=8)
        axes.set(xlabel="probability of the answer", ylabel="answers that are right")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")

    return _svg(draw)


def expected_class(
    expected: np.ndarray,
    listens: np.ndarray,
    *,
    thresholds: tuple[float, ...],
    class_names: tuple[str, ...],
) -> str:
    """Plots the expected class against the listens as an SVG, a point an example.

    Args:
        expected: float [examples], from 0 to classes − 1.
        listens: int [examples].
        thresholds: between the classes, in listens.
        class_names: in the order of the labels.
    """

    def draw(axes: Axes) -> None:
        heard = np.maximum(listens, 1)
        # As pixels, for a big split would make a big file.
        axes.scatter(heard, expected, s=12, alpha=0.5, color=_BLUE, lw=0, rasterized=True)
        for threshold in thresholds:
            axes.axvline(max(threshold, 1), color=_ORANGE, linestyle=":")
        # Whole decades, so that there are always two that can be read.
        low, high = np.floor(np.log10(heard.min())), np.floor(np.log10(heard.max())) + 1
        axes.set(xscale="log", xlabel="listens", ylabel="expected class")
        axes.set_xlim(10**low, 10**high)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.1, len(class_names) - 0.9)
        axes.set_yticks(range(len(class_names)), class_names)
        axes.grid(alpha=0.3)

    return _svg(draw)


def thumbnail(picture: np.ndarray) -> bytes:
    """Draws a spectrogram uint8 [height, width] as a PNG; row 0 is the lowest mel band."""
    image = io.BytesIO()
    matplotlib.image.imsave(
        image, picture, format="png", cmap=COLORMAP, vmin=0, vmax=255, origin="lower"
    )
    return image.getvalue()


def data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _svg(draw: Callable[[Axes], None]) -> str:
    """Draws on axes and returns the SVG: no background, no date, light ink on a dark screen."""
    file = io.StringIO()
    with matplotlib.rc_context(_SVG_STYLE):
        figure = Figure(figsize=(4.8, 3.4), layout="constrained")
        draw(figure.subplots())
        no_date = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", dpi=200, transparent=True, metadata=no_date)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    head, end, rest = svg.partition(">")
    return head + end + _TURNING + rest
