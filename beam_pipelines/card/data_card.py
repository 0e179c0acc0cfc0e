"""A data card: what a dataset holds, how it was made and what it is not, as Markdown with pictures.

The pictures lie beside the card and are linked relatively, so it shows itself on GitHub, in an
editor and in a bucket's folder. The same dataset gives the same bytes.
"""

import json
import os
import re
import urllib.parse
from collections.abc import Iterator

from beam_pipelines.card import plots, summary
from beam_pipelines.card.contents import Contents, by_class
from beam_pipelines.output_folder import CARD_FILE
from common import dataset_info, files, labels, tables
from common.dataset_info import DatasetInfo

# Of fma_small; the poster prints them and not its thresholds.
POSTER_CLASS_SHARES = {"low": 0.168, "medium": 0.467, "high": 0.365}

_LICENCE = """\
The pictures are derived from audio. What the audio's licence says of derived works holds for \
them, and for a model trained on them.

- Of a catalogue and clips from [FMA](https://github.com/mdeff/fma): the metadata is CC BY 4.0 \
(M. Defferrard, K. Benzi, P. Vandergheynst, X. Bresson, *FMA: A Dataset for Music Analysis*, \
2017); each clip has the Creative Commons licence that its artist chose, which the column \
(track, license) of `tracks.csv` names; many are non-commercial.
- Of a catalogue of one's own: whoever owns the recordings says what may be done with them."""


def write(info: DatasetInfo, contents: Contents, destination: str) -> str:
    """Writes the card and its pictures, and returns the path of the card.

    Args:
        info: of the dataset.
        contents: what its records hold.
        destination: local or gs://, a folder or, ending in `.md`, the card's own path.

    Raises:
        OSError: it can't be written.
    """
    path = destination.rstrip("/")
    path = path if path.endswith(".md") else files.join(path, CARD_FILE)
    folder, name = os.path.split(path)
    folder = folder or "."
    files.make_folder(folder)  # before the pictures, which take longer than a refusal
    pictures = {
        f"{name.removesuffix('.md')}-{subject}.png": png
        for subject, png in _pictures(info, contents).items()
    }
    for picture, png in pictures.items():
        files.write_atomically(folder, picture, png)
    files.write_atomically(folder, name, text(info, contents, list(pictures)).encode())
    return path


def _pictures(info: DatasetInfo, contents: Contents) -> dict[str, bytes]:
    """Returns {subject: PNG}, in the order of the card; nothing where no record has a label."""
    if not contents.num_examples:
        return {}
    poster = POSTER_CLASS_SHARES if set(info.class_names) == set(POSTER_CLASS_SHARES) else None
    found = {
        "listens": plots.listens(info, contents),
        "classes": plots.classes(info, poster, reference_name="the poster"),
        "genres": plots.genres(info, contents),
    }
    if contents.years:
        found["years"] = plots.years(info, contents)
    return found | {"spectrograms": plots.contact_sheet(info, contents)}


def text(info: DatasetInfo, contents: Contents, pictures: list[str]) -> str:
    """Formats the card as Markdown; `pictures` lie beside it and are named `…-{subject}.png`."""
    links = {
        name.removesuffix(".png").rpartition("-")[2]: urllib.parse.quote(name) for name in pictures
    }

    def picture(subject: str, alternative: str) -> Iterator[str]:
        if subject in links:
            yield f"![{alternative}]({links[subject]})"

    params, check = info.config.spectrogram, info.split_check
    height, width = params.shape
    by = "artist" if check["by"] == "official" else check["by"]
    blocks = [
        f"# Dataset card: {info.num_examples:,} spectrograms labelled by popularity",
        f"Each example is a picture of {params.seconds:.2f} s of music, {height} mel bands × "
        f"{width} columns of uint8 (0 is {params.floor_db:g} dB below the clip's loudest, 255 the "
        f"loudest), and its class: how often the track was listened to.",
        *picture("spectrograms", "A few examples of each class"),
        "## Classes",
        *_markdown(_class_rows(info)),
        _thresholds_in_words(info),
        *picture("listens", "Examples by listens, with the thresholds"),
        *picture("classes", "Shares of the classes in each split"),
        "## Splits",
        *_markdown(summary.split_rows(info)),
        *([f"{summary.unlabelled_in_words(info).capitalize()}."] if info.unlabelled else []),
        f"Split by {check['by']}: {check['groups_in_two_splits']:,} {by}s lie in two splits, as "
        "the job counted of what it wrote. Counted again in the records for this card: "
        f"{contents.artists_in_two_splits:,} artists.",
        "## Genres",
        *_markdown(summary.genre_rows(contents, info)),
        *picture("genres", "Examples of each genre by class"),
        "## Artists",
        f"{summary.artists_in_words(contents)}. The largest:",
        *_markdown(summary.artist_rows(contents)),
        *(["## Dates"] if contents.years else []),
        *picture("years", "Examples of each year by class"),
        "## What was left out",
        *_markdown(_left_out_rows(info)),
        f"`{dataset_info.REJECTED_FILE}` lists each rejected track with its reason.",
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(info, contents)),
        "## Licence",
        _LICENCE,
        "## How it was made",
        *_markdown(
            [
                ("", ""),
                ("fingerprint", info.fingerprint),
                ("catalogue (SHA-256)", info.catalog_sha256),
                ("format version", str(info.format_version)),
                *sorted(info.versions.items()),
            ]
        ),
        "<details><summary>config</summary>",
        f"```json\n{json.dumps(info.config.to_dict(), indent=2)}\n```",
        "</details>",
    ]
    return "\n\n".join(blocks) + "\n"


def _class_rows(info: DatasetInfo) -> summary.Rows:
    counts = [
        sum(split.class_counts[name] for split in info.splits.values()) for name in info.class_names
    ]
    rows: summary.Rows = [("class", "examples", "share", "the poster's share")]
    ranges = summary.class_ranges(info)
    for name, words, count in zip(info.class_names, ranges, counts, strict=True):
        poster = tables.percent(POSTER_CLASS_SHARES.get(name))
        share = tables.percent(count / max(1, info.num_examples))
        rows.append((words, f"{count:,}", share, poster))
    return rows


def _thresholds_in_words(info: DatasetInfo) -> str:
    thresholds = " and ".join(map(labels.in_digits, info.thresholds))
    unit = labels.unit_of(info.config.popularity)
    if info.config.quantiles:
        shares = " and ".join(f"{100 * quantile:g} %" for quantile in info.config.quantiles)
        return f"Thresholds: {thresholds} {unit}, where {shares} of the catalogue's tracks lie."
    return f"Thresholds: {thresholds} {unit}, as the config gives them."


def _left_out_rows(info: DatasetInfo) -> summary.Rows:
    return [
        ("reason", "tracks"),
        *((f"rejected: {reason}", f"{count:,}") for reason, count in info.rejected.items()),
        ("rejected in all", f"{sum(info.rejected.values()):,}"),
        ("no audio for the row of the catalogue", f"{info.missing_audio:,}"),
    ]


def _limits(info: DatasetInfo, contents: Contents) -> Iterator[str]:
    yield (
        "Listens are a running total on one site: a track that has been there for longer has had "
        "more time to collect them, and its listeners stand for no others."
    )
    if contents.num_examples:
        genres = by_class(contents.genres, len(info.class_names)).values()
        totals = [sum(column) for column in zip(*genres, strict=True)]
        by_genre = tables.percent(sum(map(max, genres)) / contents.num_examples)
        majority = tables.percent(max(totals) / contents.num_examples)
        yield (
            f"The genre alone tells something: whoever answers each genre's commonest class is "
            f"right for {by_genre} of these examples, and the commonest class of all for "
            f"{majority}. What a network adds begins there."
        )
    if leaking := contents.artists_in_two_splits:
        yield (
            f"{leaking:,} artists are heard in two splits, so test accuracy gains by leakage: a "
            "network may know the artist again. `configs/dataset_artist.py` keeps them apart."
        )
    yield (
        "A network hears the middle of a track at most, without its loudness: each picture is "
        "relative to its own loudest moment."
        if info.config.clips_per_track == 1
        else "Examples of one track are alike and share its label; they lie in the same split."
    )


def _markdown(rows: summary.Rows) -> list[str]:
    """Returns a block with a Markdown table, the first row its header."""
    header, *others = ([_cell(value) for value in row] for row in rows)
    return [tables.markdown(header, others).rstrip()]


# What starts markup, an entity or a new cell, and what GitHub makes a link without any brackets.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.|:(?=//)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _cell(value: str) -> str:
    """Returns a table's cell that shows any text as it is: a name from the catalogue is no markup.

    Entities stand for characters and never for structure (CommonMark 0.31, section 6.2); after a
    backslash, which the name may end with, that would depend.
    """
    text = " ".join(_CONTROL.sub(" ", value).split())
    return _MARKUP.sub(lambda character: f"&#{ord(character[0])};", text)
