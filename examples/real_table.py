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


def compare(
    predictions: Mapping[str, NDArray[Any]],
    asked: Asked,
    *,
    pairs: Sequence[tuple[str, str]] = (),
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """Measures all that were asked, and how far apart some of them are.

    Each row has a `name`, the measures, and `…_ci95` of each: percentiles of a bootstrap over
    artists, whose tracks are alike. In each of its draws all are asked about the same clips, so the
    interval of a difference is narrower than those of the two would make believe.

    Args:
        predictions: of each, probabilities [clips, classes].
        asked: the clips.
        pairs: names (one, other) whose differences, one less the other, are wanted.
        seed: of the bootstrap.

    Returns:
        `rows`, one for each of those asked, and `differences`, one for each of the pairs.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(asked.artist, kind="stable")
    clips_of = np.split(order, np.cumsum(np.bincount(asked.artist))[:-1])
    draws: dict[str, list[NDArray[np.float64]]] = {name: [] for name in predictions}
    for _ in range(_DRAWS):
        drawn = generator.integers(len(clips_of), size=len(clips_of))
        clips = np.concatenate([clips_of[artist] for artist in drawn])
        again = Asked(
            label=asked.label[clips], listens=asked.listens[clips], artist=asked.artist[clips]
        )
        for name, probabilities in predictions.items():
            draws[name].append(_values(measure(probabilities[clips], again)))
    found = {name: _values(measure(each, asked)) for name, each in predictions.items()}
    drawn_values = {name: np.stack(values) for name, values in draws.items()}
    return {
        "rows": [_row(name, found[name], drawn_values[name]) for name in predictions],
        "differences": [
            _row(
                f"{one} − {other}",
                found[one] - found[other],
                drawn_values[one] - drawn_values[other],
            )
            for one, other in pairs
        ],
    }


def _values(measures: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([measures[key] for key in MEASURES])


def _row(name: str, values: NDArray[Any], drawn: NDArray[Any]) -> dict[str, Any]:
    """The row of values [measures] and those of the draws [draws, measures]."""
    row: dict[str, Any] = {"name": name} | dict(zip(MEASURES, values.tolist(), strict=True))
    bounds = np.percentile(drawn, [2.5, 97.5], axis=0)
    return row | {f"{key}_ci95": bounds[:, place].tolist() for place, key in enumerate(MEASURES)}


def markdown(protocols: Sequence[Mapping[str, Any]]) -> str:
    """The tables, two a protocol: of all that were asked, and of the differences if there are."""
    parts = []
    for protocol in protocols:
        parts += [
            f"## {protocol['title']}",
            f"Trained on {protocol['num_train']:,} clips, tested on {protocol['num_asked']:,} by "
            f"{protocol['num_artists']:,} artists. In brackets: 95 % bootstrap interval over "
            "artists.",
            _table(protocol["rows"]),
        ]
        if protocol["differences"]:
            parts += [
                "How far apart two of them are; of the log loss, less is better. Where the "
                "interval has 0 in it, these clips can't tell which is better.",
                _table(protocol["differences"], sign="+"),
            ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Mapping[str, Any]], *, sign: str = "") -> str:
    def said(value: float) -> str:
        return f"{round(value, 3) + 0.0:{sign}.3f}".replace("-", "−")  # + 0.0: no minus before 0

    head = " | ".join(name.replace("_", " ").replace("f1", "F1") for name in MEASURES)
    lines = [f"| | {head} |", f"|---|{'---|' * len(MEASURES)}"]
    for row in rows:
        cells = []
        for key in MEASURES:
            low, high = row[f"{key}_ci95"]
            cells.append(f"{said(row[key])} ({said(low)} to {said(high)})")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
