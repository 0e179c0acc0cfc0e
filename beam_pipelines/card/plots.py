"""What a dataset holds, as pictures: a contact sheet and how its examples are distributed.

Each function returns a PNG, the same bytes for the same dataset and libraries.
"""

import contextlib
import io
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from beam_pipelines.card.contents import Contents, by_class
from beam_pipelines.card.summary import class_ranges, largest_genres
from common.dataset_info import DatasetInfo
from common.labels import label_of
from common.printable import printable
from common.spectrogram import COLORMAP, SpectrogramParams, hz_to_mel
from common.tables import percent

# A letter that the font does not have is drawn as a box, which says so itself.
warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")

_LISTENS_BINS = 40
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def _genre_of(example: dict[str, Any]) -> str:
    return _without_math(printable(example["genre"].decode())) or "genre unknown"


def _without_math(name: str) -> str:
    """Escapes what Matplotlib takes for a formula, the text between two $."""
    return name.replace("$", r"\$")


def contact_sheet(info: DatasetInfo, contents: Contents) -> bytes:
    """Draws the spectrograms of a few examples, a row for each class."""
    params = info.config.spectrogram
    examples = contents.shown
    columns = max(1, *(len(row) for row in examples.values()))
    rows, ranges = len(info.class_names), class_ranges(info)
    with _picture(3.2 * columns, 2.7 * rows, nrows=rows, ncols=columns, squeeze=False) as (
        png,
        figure,
        grid,
    ):
        image = None
        for label, axes_row in enumerate(grid):
            for index, axes in enumerate(axes_row):
                if index >= len(examples[label]):
                    axes.axis("off")
                    continue
                example = examples[label][index]
                levels = np.frombuffer(example["spectrogram"], np.uint8).reshape(params.shape)
                image = axes.imshow(
                    levels / 255 * params.floor_db - params.floor_db,
                    origin="lower",
                    aspect="auto",
                    cmap=COLORMAP,
                    vmin=-params.floor_db,
                    vmax=0,
                    extent=(0, params.seconds, 0, params.num_mels),
                )
                title = f"track {example['track_id']}: {example['listens']:,} listens"
                axes.set_title(f"{title}\n{_genre_of(example)}", fontsize=9)
                axes.set_yticks(*_frequency_ticks(params))
                axes.tick_params(labelsize=7)
                if label == rows - 1:
                    axes.set_xlabel("seconds", fontsize=8)
            grid[label][0].axis("on")
            grid[label][0].set_ylabel(
                f"{ranges[label]}\n\nfrequency (Hz)",
                fontsize=9,
            )
        if image is not None:
            bar = figure.colorbar(image, ax=grid, fraction=0.015)
            bar.set_label("dB below the clip's loudest", fontsize=8)
        figure.suptitle(
            f"{info.num_examples:,} clips, labelled by how often they were listened to", fontsize=12
        )
    return png.getvalue()


def listens(info: DatasetInfo, contents: Contents) -> bytes:
    """Draws the examples by their number of listens, on a logarithmic axis, and the thresholds.

    Where the classes are of another popularity, all in one color and without thresholds.
    """
    of_listens = info.config.popularity == "listens"
    thresholds = info.thresholds if of_listens else ()
    names = class_ranges(info) if of_listens else ["all classes"]
    values = np.array(sorted(contents.listens))
    counts = np.array([contents.listens[value] for value in values.tolist()])
    labels = np.array([label_of(value, thresholds) for value in values.tolist()])
    edges = _edges(max(1, values.min()), values.max() + 1, thresholds)
    if values.min() == 0:
        edges = np.concatenate([[0], edges])
    with _picture(9, 4) as (png, _, axes):
        axes.hist(
            [values[labels == label] for label in range(len(names))],
            bins=edges,
            weights=[counts[labels == label] for label in range(len(names))],
            stacked=True,
            color=_colors(info)[: len(names)],
            label=names,
        )
        if values.min() == 0:
            axes.set_xscale("symlog", linthresh=1)
        else:
            axes.set_xscale("log")
        ticks = _round_numbers(edges[0], edges[-1])
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(_THOUSANDS)
        for threshold in thresholds:
            axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
            axes.annotate(
                f" {threshold:,}",
                (threshold, 1),
                xycoords=("data", "axes fraction"),
                va="bottom",
                ha="center",
            )
        axes.set(xlabel="listens (logarithmic)", ylabel="examples")
        axes.legend()
    return png.getvalue()


def classes(
    info: DatasetInfo, reference: dict[str, float] | None = None, *, reference_name: str = ""
) -> bytes:
    """Draws the shares of the classes in each split, and below them those of a reference."""
    rows = {
        f"{name} ({split.num_examples:,})": np.array(list(split.class_counts.values()))
        for name, split in info.splits.items()
        if split.num_examples
    }
    rows[f"all ({info.num_examples:,})"] = np.sum(list(rows.values()), axis=0)
    if reference is not None:
        rows[reference_name] = np.array([reference[name] for name in info.class_names])
    with _picture(9, 1.2 + 0.5 * len(rows)) as (png, figure, axes):
        left = np.zeros(len(rows))
        for label, color in enumerate(_colors(info)):
            shares = np.array([counts[label] / counts.sum() for counts in rows.values()])
            bars = axes.barh(list(rows), shares, left=left, color=color)
            texts = [percent(share) if share > 0.06 else "" for share in shares]
            axes.bar_label(bars, texts, label_type="center", color=_readable_on(color))
            bars.set_label(info.class_names[label])
            left += shares
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share of the examples")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        figure.legend(loc="outside upper center", ncols=len(info.class_names))
    return png.getvalue()


def genres(info: DatasetInfo, contents: Contents) -> bytes:
    """Draws the examples of each genre by class, the largest first."""
    rows = largest_genres(contents, info)
    names = [_without_math(name if len(name) <= 30 else name[:29] + "…") for name in rows]
    with _picture(9, 1.4 + 0.32 * len(rows)) as (png, figure, axes):
        left = np.zeros(len(rows))
        for label, color in enumerate(_colors(info)):
            counts = np.array([counts[label] for counts in rows.values()])
            axes.barh(
                np.arange(len(rows)), counts, left=left, color=color, label=info.class_names[label]
            )
            left += counts
        axes.set_yticks(np.arange(len(rows)), names)
        axes.invert_yaxis()
        axes.set(xlabel="examples")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(_THOUSANDS)
        figure.legend(loc="outside upper center", ncols=len(info.class_names))
    return png.getvalue()


def years(info: DatasetInfo, contents: Contents) -> bytes:
    """Draws the examples of each year of `date_created` by class."""
    counted = by_class(contents.years, len(info.class_names))
    with _picture(9, 3.5) as (png, figure, axes):
        bottom = np.zeros(len(counted))
        for label, color in enumerate(_colors(info)):
            counts = np.array([counts[label] for counts in counted.values()])
            axes.bar(
                list(counted), counts, bottom=bottom, color=color, label=info.class_names[label]
            )
            bottom += counts
        axes.set(xlabel="year of date_created", ylabel="examples")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(_THOUSANDS)
        figure.legend(loc="outside upper center", ncols=len(info.class_names))
    return png.getvalue()


@contextlib.contextmanager
def _picture(width: float, height: float, **subplots: Any) -> Iterator[tuple[io.BytesIO, Any, Any]]:
    """(file that holds the PNG after the block, figure, axes) of `plt.subplots`, in inches."""
    png = io.BytesIO()
    # Names from the catalogue are no formulas.
    with plt.rc_context({"text.parse_math": False}):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **subplots)
        try:
            yield png, figure, axes
            figure.savefig(png, format="png", dpi=100)
        finally:
            plt.close(figure)


def _colors(info: DatasetInfo) -> np.ndarray:
    """Returns the RGBA of each class, from the fewest listens to the most."""
    return plt.get_cmap("viridis")(np.linspace(0.15, 0.9, len(info.class_names)))


def _edges(low: float, high: float, thresholds: tuple[float, ...]) -> np.ndarray:
    """Returns edges of about 40 bins that are nearly as wide as each other on a logarithmic axis.

    The thresholds are among them, so that no bar lies on both sides of one.
    """
    knots = [low, *(threshold for threshold in thresholds if low < threshold < high), high]
    width = max(np.log(high / low), 1e-9) / _LISTENS_BINS
    pieces = [
        np.geomspace(start, stop, max(1, round(np.log(stop / start) / width)), endpoint=False)
        for start, stop in itertools.pairwise(knots)
    ]
    return np.concatenate([*pieces, [high]])


def _round_numbers(low: float, high: float) -> list[int]:
    """Returns the powers of ten in a range, with 2 and 5 times each where there is room."""
    digits = (1, 2, 5) if high < 1_000 * max(1, low) else (1,)
    candidates = [0, *(digit * 10**power for power in range(19) for digit in digits)]
    return [number for number in candidates if low <= number <= high]


def _readable_on(color: np.ndarray) -> str:
    return "black" if color[:3] @ (0.299, 0.587, 0.114) > 0.5 else "white"


def _frequency_ticks(params: SpectrogramParams) -> tuple[list[float], list[str]]:
    """Returns where round frequencies lie among the bands, which are equally spaced in mel."""
    frequencies = [f for f in (0, 500, 1_000, 2_000, 4_000, 8_000) if f < params.sample_rate / 2]
    top = hz_to_mel(params.sample_rate / 2)
    places = (params.num_mels * hz_to_mel(frequencies) / top).tolist()
    return places, [f"{f:,}" for f in frequencies]
