"""What a dataset holds, for a person: a table for the terminal, a contact sheet of pictures."""

import io

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from beam_pipelines.dataset_info import DatasetInfo
from beam_pipelines.spectrogram import SpectrogramParams


def table(info: DatasetInfo) -> str:
    """Examples a split and class, and what was left out, as lines of text."""
    header = ("split", *info.class_names, "all", "artists", "shards")
    rows = [
        (
            name,
            *(f"{count:,}" for count in split.class_counts.values()),
            f"{split.num_examples:,}",
            f"{split.num_artists:,}",
            f"{len(split.shards)}",
        )
        for name, split in info.splits.items()
    ]
    counts = [
        sum(split.class_counts[name] for split in info.splits.values()) for name in info.class_names
    ]
    shares = (f"{100 * count / max(1, info.num_examples):.1f} %" for count in counts)
    rows.append(("all", *(f"{c:,}" for c in counts), f"{info.num_examples:,}", "", ""))
    rows.append(("share", *shares, "", "", ""))
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in info.rejected.items())
    check = info.split_check
    return "\n".join(
        [
            *aligned([header, *rows]),
            f"rejected: {rejected or 'none'} (listed in rejected.jsonl)",
            f"rows of the subset without audio: {info.missing_audio:,}",
            f"split by {check['by']}: {check['groups_in_two_splits']:,} in two splits "
            f"(artists: {check['artists_in_two_splits']:,})",
        ]
    )


def counters(metrics) -> str:
    """What a job counted (`PipelineResult.metrics().query()`), as lines of text."""

    def in_order(found):
        for metric in sorted(found, key=lambda metric: str(metric.key.metric)):
            name = f"{metric.key.metric.namespace}: {metric.key.metric.name}"
            # Some runners count attempts alone.
            yield name, metric.attempted if metric.committed is None else metric.committed

    rows = [(name, f"{value:,}") for name, value in in_order(metrics["counters"])]
    rows += [
        (name, f"{value.mean:.1f} (from {value.min} to {value.max})")
        for name, value in in_order(metrics["distributions"])
    ]
    return "\n".join(aligned(rows))


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def contact_sheet(info: DatasetInfo, examples: dict[int, list[dict]]) -> bytes:
    """A PNG of spectrograms, a row for each class.

    Args:
        info: of the dataset.
        examples: for each label a few decoded records.
    """
    params = info.config.spectrogram
    columns = max(1, *(len(row) for row in examples.values()))
    rows = len(info.class_names)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.7 * rows), squeeze=False, layout="constrained"
    )
    image = None
    for label, axes_row in enumerate(grid):
        for place, axes in enumerate(axes_row):
            if place >= len(examples[label]):
                axes.axis("off")
                continue
            example = examples[label][place]
            levels = np.frombuffer(example["spectrogram"], np.uint8).reshape(params.shape)
            image = axes.imshow(
                levels / 255 * params.floor_db - params.floor_db,
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=-params.floor_db,
                vmax=0,
                extent=(0, params.seconds, 0, params.num_mels),
            )
            title = f"track {example['track_id']}: {example['listens']:,} listens"
            axes.set_title(f"{title}\n{example['genre'].decode() or 'genre unknown'}", fontsize=9)
            axes.set_yticks(*_frequency_ticks(params))
            axes.tick_params(labelsize=7)
            if label == rows - 1:
                axes.set_xlabel("seconds", fontsize=8)
        grid[label][0].axis("on")
        grid[label][0].set_ylabel(f"{class_range(info, label)}\n\nfrequency (Hz)", fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=grid, fraction=0.015)
        bar.set_label("dB below the clip's loudest", fontsize=8)
    figure.suptitle(
        f"{info.num_examples:,} clips, labelled by how often they were listened to", fontsize=12
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    plt.close(figure)
    return png.getvalue()


def class_range(info: DatasetInfo, label: int) -> str:
    """A class in words, such as `medium: 1,000 to 3,499 listens`."""
    thresholds = info.thresholds
    name = info.class_names[label]
    if label == 0:
        return f"{name}: under {thresholds[0]:,} listens"
    if label == len(thresholds):
        return f"{name}: {thresholds[-1]:,} listens or more"
    return f"{name}: {thresholds[label - 1]:,} to {thresholds[label] - 1:,} listens"


def _frequency_ticks(params: SpectrogramParams) -> tuple[list[float], list[str]]:
    """Where round frequencies lie among the bands, which are equally spaced in mel."""
    import librosa

    frequencies = [f for f in (0, 500, 1_000, 2_000, 4_000, 8_000) if f < params.sample_rate / 2]
    top = librosa.hz_to_mel(params.sample_rate / 2)
    places = [params.num_mels * librosa.hz_to_mel(f) / top for f in frequencies]
    return places, [f"{f:,}" for f in frequencies]
