"""FMA's `tracks.csv`, read as a stream, each row checked as it passes.

The file has three header lines (group, column, name of the index); rows are counted as a
spreadsheet counts them, so the first track stands in row 4. Cells may hold newlines, so a row may
be longer than a line.
"""

import csv
import datetime
import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from beam_pipelines.command import InputError
from beam_pipelines.dataset_config import SUBSETS

_HEADER_ROWS = 3
# FMA's longest cells (biographies) pass the csv module's default of 128 KiB.
_LONGEST_CELL = 1 << 24

_TRACK_ID = ("", "")
_LISTENS = ("track", "listens")
_GENRE = ("track", "genre_top")
_DATE = ("track", "date_created")
_ARTIST = ("artist", "id")
_SUBSET = ("set", "subset")


class Track(NamedTuple):
    """A row of the catalogue, as much of it as the dataset needs.

    Attributes:
        track_id: FMA's id.
        path: of the clip, relative to the audio folder.
        listens: how often it was heard.
        artist_id: FMA's id, −1 where unknown.
        genre: the top genre, empty where unknown.
        date_created: seconds since 1970 UTC, −1 where unknown.
    """

    track_id: int
    path: str
    listens: int
    artist_id: int
    genre: str
    date_created: int


def clip_path(track_id: int) -> str:
    """Where FMA keeps a clip: the id as six digits in a folder named by the first three."""
    name = f"{track_id:06d}"
    return f"{name[:3]}/{name}.mp3"


class HashingFile(io.RawIOBase):
    """Hands on what is read from a binary file and keeps the SHA-256 of it."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._sha256 = hashlib.sha256()

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._file.read(len(buffer))
        self._sha256.update(data)
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def check_header(file: BinaryIO, *, name: str) -> None:
    """Raises InputError unless `file` opens with the header of a `tracks.csv`."""
    _columns(_rows(file, name), name)


def read_tracks(file: BinaryIO, *, name: str, subset: str) -> Iterator[Track]:
    """The tracks of a subset, in the catalogue's order.

    Args:
        file: a `tracks.csv`.
        name: what messages call it.
        subset: `small`, `medium`, `large` or `full`, each containing the ones before it.

    Raises:
        InputError: naming row and column of what is wrong.
    """
    rows = _rows(file, name)
    places, width = _columns(rows, name)
    wanted = SUBSETS[: SUBSETS.index(subset) + 1]
    seen = set()
    for number, cells in rows:
        if not cells:
            continue
        if len(cells) != width:
            raise InputError(
                f"{name}, row {number}: {len(cells)} cells where the header has {width}; "
                "is the file cut off?"
            )
        row = _Row(cells, places, f"{name}, row {number}")
        if row.text(_SUBSET) not in SUBSETS:
            raise row.error(_SUBSET, f"is none of {', '.join(SUBSETS)}")
        track_id, listens = row.whole_number(_TRACK_ID), row.whole_number(_LISTENS)
        if row.text(_SUBSET) not in wanted:
            continue
        if track_id in seen:
            raise row.error(_TRACK_ID, "stands in an earlier row too")
        seen.add(track_id)
        yield Track(
            track_id=track_id,
            path=clip_path(track_id),
            listens=listens,
            artist_id=row.whole_number(_ARTIST, empty=-1),
            genre=row.text(_GENRE),
            date_created=row.seconds_since_1970(_DATE),
        )


def _rows(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each row, header rows included, counted from 1."""
    csv.field_size_limit(_LONGEST_CELL)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    number = 0
    try:
        for number, cells in enumerate(csv.reader(text, strict=True), start=1):
            yield number, cells
    except csv.Error as error:
        raise InputError(f"{name}, row {number + 1}: {error}; is the file cut off?") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{name}, after row {number}: not UTF-8 ({error.reason})") from None


def _columns(rows: Iterator[tuple[int, list[str]]], name: str) -> tuple[dict, int]:
    """The place of each column by its (group, column), and how many there are."""
    header = [cells for _, cells in (next(rows, (0, [])) for _ in range(_HEADER_ROWS))]
    groups, names, index_name = header
    if len(groups) != len(names) or index_name[:1] != ["track_id"]:
        raise InputError(
            f"{name}: the first three lines are not those of FMA's tracks.csv "
            "(group, column, track_id)"
        )
    places = {pair: place for place, pair in enumerate(zip(groups, names, strict=True))}
    for pair in (_LISTENS, _GENRE, _DATE, _ARTIST, _SUBSET):
        if pair not in places:
            raise InputError(f"{name}: there is no column {_label(pair)}")
    return places | {_TRACK_ID: 0}, len(groups)


def _label(pair: tuple[str, str]) -> str:
    return "track_id" if pair == _TRACK_ID else f"({pair[0]}, {pair[1]})"


class _Row:
    """The cells of one row, read by column, with errors that name both."""

    def __init__(self, cells: list[str], places: dict, where: str):
        self._cells, self._places, self._where = cells, places, where

    def error(self, column: tuple[str, str], problem: str) -> InputError:
        value = self.text(column)
        shown = value if len(value) <= 40 else value[:40] + "…"
        return InputError(f'{self._where}, column {_label(column)}: "{shown}" {problem}')

    def text(self, column: tuple[str, str]) -> str:
        return self._cells[self._places[column]].strip()

    def whole_number(self, column: tuple[str, str], *, empty: int | None = None) -> int:
        text = self.text(column)
        if not text and empty is not None:
            return empty
        # int() alone would take "1_000", "+1" and other alphabets' digits.
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise self.error(column, "is not a whole number")
        return int(text)

    def seconds_since_1970(self, column: tuple[str, str]) -> int:
        text = self.text(column)
        if not text:
            return -1
        try:
            date = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise self.error(column, "is not a date such as 2008-11-26 01:48:12") from None
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.timezone.utc)
        return int(date.timestamp())
