"""The table of networks and baselines on real music: measured, in words, and as a picture."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray
from scipy import stats

MEASURES = ("accuracy", "macro_f1", "log_loss", "spearman")
_DRAWS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is known of the clips that all were asked about.

    Attributes:
        label, listens: int64 [clips].
        artist: int64 [clips], which artist each is of, from 0.
    """

    label: NDArray[Any]
    listens: NDArray[Any]
    artist: NDArray[Any]


def artists_of(artist_id: NDArray[Any], track_id: NDArray[Any]) -> NDArray[np.int64]:
    """Which artist each clip is of, from 0; one without is an artist of its own."""
    groups = np.where(artist_id >= 0, artist_id, -2 - track_id)
    return np.asarray(np.unique(groups, return_inverse=True)[1])


def measure(probabilities: NDArray[Any], asked: Asked) -> dict[str, float]:
    """The measures of probabilities [clips, classes]; an answer of one value ranks nothing: 0."""
    num_classes = probabilities.shape[1]
    answer = probabilities.argmax(axis=1)
    pairs = np.bincount(asked.label * num_classes + answer, minlength=num_classes**2)
    confusion = pairs.reshape(num_classes, num_classes)
    totals = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2 * np.diag(confusion) / np.maximum(totals, 1)
    given = probabilities[np.arange(len(answer)), asked.label]
    expected = probabilities @ np.arange(num_classes)
    spearman = 0.0
    if np.ptp(expected) > 1e-9 and np.ptp(asked.listens) > 0:
        spearman = float(stats.spearmanr(expected, asked.listens).statistic)
    return {
        "accuracy": float((answer == asked.label).mean()),
        "macro_f1": float(f1[totals > 0].mean()),
        "log_loss": float(-np.log(np.maximum(given, 1e-7)).mean()),
        "spearman": spearman,
    }


def rows(
    predictions: Mapping[str, NDArray[Any]], asked: Asked, *, seed: int = 0
) -> list[dict[str, Any]]:
    """A row for each of those asked: `name`, the measures, and `…_ci95` of each.

    The intervals are percentiles of a bootstrap over artists, whose tracks are alike, in which all
    are asked about the same clips.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(asked.artist, kind="stable")
    clips_of = np.split(order, np.cumsum(np.bincount(asked.artist))[:-1])
    draws: dict[str, list[dict[str, float]]] = {name: [] for name in predictions}
    for _ in range(_DRAWS):
        drawn = generator.integers(len(clips_of), size=len(clips_of))
        clips = np.concatenate([clips_of[artist] for artist in drawn])
        again = Asked(
            label=asked.label[clips], listens=asked.listens[clips], artist=asked.artist[clips]
        )
        for name, probabilities in predictions.items():
            draws[name].append(measure(probabilities[clips], again))
    found = []
    for name, probabilities in predictions.items():
        row: dict[str, Any] = {"name": name, **measure(probabilities, asked)}
        for key in MEASURES:
            values = [draw[key] for draw in draws[name]]
            row[f"{key}_ci95"] = [float(v) for v in np.percentile(values, [2.5, 97.5])]
        found.append(row)
    return found


def markdown(protocols: Sequence[Mapping[str, Any]]) -> str:
    """The tables, one a protocol."""
    parts = []
    for protocol in protocols:
        head = " | ".join(name.replace("_", " ").replace("f1", "F1") for name in MEASURES)
        lines = [
            f"## {protocol['title']}",
            "",
            f"Trained on {protocol['num_train']:,} clips, tested on {protocol['num_asked']:,} by "
            f"{protocol['num_artists']:,} artists. In brackets: 95 % bootstrap interval over "
            "artists.",
            "",
            f"| | {head} |",
            f"|---|{'---|' * len(MEASURES)}",
        ]
        for row in protocol["rows"]:
            cells = " | ".join(
                "{:.3f} ({:.3f} to {:.3f})".format(row[key], *row[f"{key}_ci95"])
                for key in MEASURES
            )
            lines.append(f"| {row['name']} | {cells} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def picture(protocols: Sequence[Mapping[str, Any]], *, networks: Sequence[str]) -> bytes:
    """The tables as dots with their intervals, a PNG; the networks stand out."""
    figure = matplotlib.figure.Figure(figsize=(11, 3.6 * len(protocols)), layout="constrained")
    axes = figure.subplots(len(protocols), len(MEASURES), squeeze=False, sharey="row")
    for line, protocol in zip(axes, protocols, strict=True):
        names = [row["name"] for row in protocol["rows"]]
        for place, (key, ax) in enumerate(zip(MEASURES, line, strict=True)):
            for height, row in enumerate(reversed(protocol["rows"])):
                color = "tab:orange" if row["name"] in networks else "tab:blue"
                ax.plot(row[f"{key}_ci95"], [height, height], color=color, linewidth=2, alpha=0.5)
                ax.plot(row[key], height, "o", color=color)
            ax.set_yticks(range(len(names)), reversed(names))
            ax.grid(axis="x", alpha=0.3)
            better = "less is better" if key == "log_loss" else ""
            ax.set_xlabel(f"{key.replace('_', ' ').replace('f1', 'F1')}\n{better}".strip())
            if place == 0:
                ax.set_title(protocol["title"], loc="left", fontsize=10)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150)
    return data.getvalue()
