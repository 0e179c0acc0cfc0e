"""Catalogues: FMA's `tracks.csv` or a plain CSV, read as a stream, each row checked as it passes.

FMA's has three header lines (group, column, name of the index). A plain one has a line with
`track_id,path,listens` and, where known, `artist_id,artist,genre,date_created`. Rows are counted
as a spreadsheet counts them, so FMA's first track stands in row 4. Cells may hold newlines, so a
row may be longer than a line.
"""

import array
import bisect
import contextlib
import csv
import datetime
import io
import math
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from common.dataset_config import SPLITS, SUBSETS
from common.errors import UserFacingError
from common.hashing import stable_hash

# Of an artist's id and a date.
UNKNOWN = -1

# FMA's longest cells (biographies) pass the csv module's default of 128 KiB.
_LONGEST_CELL = 1 << 24

_FMA_COLUMNS = {
    "track_id": ("", ""),
    "listens": ("track", "listens"),
    "genre": ("track", "genre_top"),
    "date_created": ("track", "date_created"),
    "artist_id": ("artist", "id"),
    "subset": ("set", "subset"),
    "split": ("set", "split"),
}
_PLAIN_COLUMNS = ("track_id", "path", "listens")
_PLAIN_OPTIONAL_COLUMNS = ("artist_id", "artist", "genre", "date_created")
# FMA's own, and ISO 8601 as programs write it.
_DATES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")
_FMA_SPLITS = dict(zip(("training", "validation", "test"), SPLITS, strict=True))


class Track(NamedTuple):
    """A row of the catalogue, as much of it as the dataset needs.

    Attributes:
        track_id: unique in the catalogue.
        path: of the audio, relative to the audio folder, or from anywhere if it is absolute.
        listens: how often it was heard.
        artist_id: of the catalogue, or a hash of the artist's name; −1 where unknown.
        genre: the top genre, empty where unknown.
        date_created: seconds since 1970 UTC, −1 where unknown.
        split: `train`, `validation` or `test` as the catalogue has it, empty where it does not.
        categories, numbers, texts: in the order of the config's inputs; empty, or NaN of a number,
            where unknown.
        artist_tracks: how many other tracks of the artist are in the training split, −1 where the
            artist is unknown or nobody asks.
        artist_mean_log_listens: the mean of ln(1 + listens) over them, NaN where there are none.
    """

    track_id: int
    path: str
    listens: int
    artist_id: int
    genre: str
    date_created: int
    split: str
    categories: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    artist_tracks: int = -1
    artist_mean_log_listens: float = math.nan

    def packed(self) -> tuple:
        """A tuple that Beam encodes by itself: file names need not be UTF-8, its strings must."""
        return tuple(self._replace(path=os.fsencode(self.path)))

    @classmethod
    def unpacked(cls, values: tuple) -> "Track":
        """The track of `packed`."""
        return cls(*values)._replace(path=os.fsdecode(cls(*values).path))


def clip_path(track_id: int) -> str:
    """Where FMA keeps a clip: the id as six digits in a folder named by the first three."""
    name = f"{track_id:06d}"
    return f"{name[:3]}/{name}.mp3"


def read_tracks(file: BinaryIO, *, name: str, subset: str) -> Iterator[Track]:
    """The tracks of a catalogue, in its order.

    Args:
        file: an FMA `tracks.csv` or a plain catalogue.
        name: what messages call it.
        subset: of an FMA: `small`, `medium`, `large` or `full`, each containing the ones before
            it. A plain catalogue has none and is read whole.

    Raises:
        UserFacingError: naming row and column of what is wrong.
    """
    lines = _Lines(file)
    rows = _rows(lines, name)
    header = _read_header(rows, name)
    wanted = SUBSETS[: SUBSETS.index(subset) + 1]
    seen, number = _Ids(), 0
    for number, cells in rows:
        if not cells:
            continue
        if len(cells) != header.width:
            raise UserFacingError(
                f"{name}, row {number}: {len(cells)} cells where the header has {header.width}; "
                "is the file cut off?"
            )
        row = _Row(cells, header, f"{name}, row {number}")
        track_id, listens = row.whole_number("track_id"), row.whole_number("listens")
        if row.has("subset") and row.one_of("subset", SUBSETS) not in wanted:
            continue
        if not seen.add(track_id):
            raise row.error("track_id", "stands in an earlier row too")
        yield Track(
            track_id=track_id,
            path=row.path() if row.has("path") else clip_path(track_id),
            listens=listens,
            artist_id=row.artist_id(),
            genre=row.text("genre"),
            date_created=row.seconds_since_1970("date_created"),
            split=_FMA_SPLITS[row.one_of("split", _FMA_SPLITS)] if row.has("split") else "",
        )
    # Spreadsheets leave it away; FMA's has it, and a cut in the last cell shows by nothing else.
    if "path" not in header.places and not lines.last.endswith(("\n", "\r")):
        raise UserFacingError(f"{name}, row {number}: has no line end; is the file cut off?")


class _Ids:
    """A set of ids that takes 8 bytes for each that is the largest so far, as most catalogues' are.

    A plain set takes about 60, which one worker does not have for 100 million rows.
    """

    def __init__(self):
        self._rising, self._others = array.array("q"), set()

    def add(self, number: int) -> bool:
        """Adds an id; whether it is a new one."""
        if not self._rising or number > self._rising[-1]:
            self._rising.append(number)
            return True
        place = bisect.bisect_left(self._rising, number)
        if self._rising[place] == number or number in self._others:
            return False
        self._others.add(number)
        return True


class _Lines:
    """The lines of a catalogue; `last` is the one that was read last."""

    def __init__(self, file: BinaryIO):
        # Names of files may be any bytes; in other columns `_Row.text` refuses what is not UTF-8.
        self._text = io.TextIOWrapper(
            file, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            self.last = line
            yield line


def _rows(lines: _Lines, name: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each row, header rows included, counted from 1."""
    csv.field_size_limit(_LONGEST_CELL)
    number = 0
    try:
        for number, cells in enumerate(csv.reader(lines, strict=True), start=1):
            yield number, cells
    except csv.Error as error:
        raise UserFacingError(f"{name}, row {number + 1}: {error}; is the file cut off?") from None


class _Header(NamedTuple):
    """Where each field stands, what messages call its column, and how many columns there are."""

    places: dict[str, int]
    labels: dict[str, str]
    width: int


def _read_header(rows: Iterator[tuple[int, list[str]]], name: str) -> _Header:
    _, first = next(rows, (0, []))
    first = [cell.strip() for cell in first]
    if "track_id" in first:
        for column in _PLAIN_COLUMNS:
            if column not in first:
                raise UserFacingError(f"{name}: there is no column {column}")
        known = [*_PLAIN_COLUMNS, *_PLAIN_OPTIONAL_COLUMNS]
        places = {column: first.index(column) for column in known if column in first}
        return _Header(places, {column: column for column in places}, len(first))

    _, second = next(rows, (0, []))
    _, third = next(rows, (0, []))
    if len(first) != len(second) or third[:1] != ["track_id"]:
        raise UserFacingError(
            f"{name}: its first lines are neither FMA's header (group, column, track_id) nor a "
            "plain one (track_id,path,listens and more)"
        )
    pairs = list(zip(first, second, strict=True))
    labels = {field: f"({group}, {column})" for field, (group, column) in _FMA_COLUMNS.items()}
    for field, pair in _FMA_COLUMNS.items():
        if pair not in pairs:
            raise UserFacingError(f"{name}: there is no column {labels[field]}")
    places = {field: pairs.index(pair) for field, pair in _FMA_COLUMNS.items()}
    return _Header(places, labels | {"track_id": "track_id"}, len(first))


class _Row:
    """The cells of one row, read by field, with errors that name row and column."""

    def __init__(self, cells: list[str], header: _Header, where: str):
        self._cells, self._header, self._where = cells, header, where

    def error(self, field: str, problem: str) -> UserFacingError:
        value = self._cells[self._header.places[field]].strip()
        shown = value if len(value) <= 40 else value[:40] + "…"
        if not shown.isprintable():
            shown = ascii(shown)[1:-1]
        label = self._header.labels[field]
        return UserFacingError(f'{self._where}, column {label}: "{shown}" {problem}')

    def has(self, field: str) -> bool:
        return field in self._header.places

    def text(self, field: str) -> str:
        """The cell of a field, empty where the catalogue has no such column."""
        place = self._header.places.get(field)
        text = "" if place is None else self._cells[place].strip()
        if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
            raise self.error(field, "is not UTF-8")
        return text

    def one_of(self, field: str, values) -> str:
        if self.text(field) not in values:
            raise self.error(field, f"is none of {', '.join(values)}")
        return self.text(field)

    def whole_number(self, field: str) -> int:
        text = self.text(field)
        # pandas writes a column with an empty cell so.
        digits = text.removesuffix(".0")
        # int() alone would take "1_000", "+1" and other alphabets' digits.
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            raise self.error(field, "is not a whole number")
        return int(digits)

    def path(self) -> str:
        path = self._cells[self._header.places["path"]]
        if not path or "\0" in path:
            raise self.error("path", "names no file")
        return path

    def artist_id(self) -> int:
        if self.text("artist_id"):
            return self.whole_number("artist_id")
        artist = self.text("artist")
        return stable_hash(artist, salt="artist") if artist else UNKNOWN

    def seconds_since_1970(self, field: str) -> int:
        text = self.text(field)
        if not text:
            return UNKNOWN
        for form in _DATES:
            with contextlib.suppress(ValueError):
                date = datetime.datetime.strptime(text, form)
                if date.tzinfo is None:
                    date = date.replace(tzinfo=datetime.timezone.utc)
                return int(date.timestamp())
        raise self.error(field, "is not a date such as 2008-11-26 01:48:12")
