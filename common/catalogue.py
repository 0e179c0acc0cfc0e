"""Catalogues: FMA's `tracks.csv` or a plain CSV, read as a stream, each row checked as it passes.

Beside a catalogue there may be tables of further columns by track id: FMA's `features.csv` and
`echonest.csv`, whose columns have names of three header lines, or a plain CSV with a column
track_id.

FMA's has three header lines (group, column, name of the index). A plain one has a line with
`track_id,path,listens` and, where known, `artist_id,artist,album_id,album,genre,date_created`. Rows
are counted as a spreadsheet counts them, so FMA's first track stands in row 4. Cells may hold
newlines, so a row may be longer than a line.
"""

import array
import bisect
import contextlib
import csv
import datetime
import io
import math
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from common.dataset_config import SPLITS, SUBSETS
from common.errors import UserFacingError
from common.hashing import stable_hash
from common.inputs import (
    STANDING_CATEGORY,
    STANDING_NUMBER,
    Inputs,
)
from common.printable import printable

NO_INPUTS = Inputs()
# A longer category or text is cut: what a record holds is bounded.
_LONGEST_CATEGORY, _LONGEST_TEXT = 200, 20_000
# Beyond it a number is infinite as float32.
_LARGEST_NUMBER = 3e38
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# A table's header has at most so many lines, as FMA's echonest.csv.
_MOST_HEADER_LINES = 4

# Of an artist's or album's id and a date.
UNKNOWN = -1

# FMA's longest cells (biographies) pass the csv module's default of 128 KiB.
_LONGEST_CELL = 1 << 24

_FMA_COLUMNS = {
    "track_id": ("", ""),
    "listens": ("track", "listens"),
    "genre": ("track", "genre_top"),
    "date_created": ("track", "date_created"),
    "artist_id": ("artist", "id"),
    "album_id": ("album", "id"),
    "subset": ("set", "subset"),
    "split": ("set", "split"),
}
_PLAIN_COLUMNS = ("track_id", "path", "listens")
_PLAIN_OPTIONAL_COLUMNS = (
    "artist_id",
    "artist",
    "album_id",
    "album",
    "genre",
    "date_created",
    "counted_at",
)
# FMA's own, and ISO 8601 as programs write it.
_DATES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")
_FMA_SPLITS = dict(zip(("training", "validation", "test"), SPLITS, strict=True))


class Track(NamedTuple):
    """A row of the catalogue, as much of it as the dataset needs.

    Attributes:
        track_id: unique in the catalogue.
        path: of the audio, relative to the audio folder, or from anywhere if it is absolute.
        listens: how often it was heard; −1 where unknown, in a dataset that grows.
        artist_id: of the catalogue, or a hash of the artist's name; −1 where unknown.
        genre: the top genre, empty where unknown.
        date_created: seconds since 1970 UTC, −1 where unknown.
        split: `train`, `validation` or `test` as the catalogue has it, empty where it does not.
        categories, numbers, texts: in the order of the config's inputs; empty, or NaN of a number,
            where unknown.
        artist_tracks: how many other tracks of the artist are in the training split, −1 where the
            artist is unknown or nobody asks.
        artist_mean_log_listens: the mean of ln(1 + listens) over them, NaN where there are none.
        album_id: of the catalogue, or a hash of the album's name; −1 where unknown or nobody asks.
        artist_album_tracks, artist_album_mean_log_listens: the same two of the artist's tracks on
            the album.
        counted_at: when the listens were counted, in seconds since 1970 UTC; −1 where unknown.
        popularity: what the config makes of the listens; NaN if that is the listens themselves.
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
    artist_tracks: int = UNKNOWN
    artist_mean_log_listens: float = math.nan
    album_id: int = UNKNOWN
    artist_album_tracks: int = UNKNOWN
    artist_album_mean_log_listens: float = math.nan
    counted_at: int = UNKNOWN
    popularity: float = math.nan

    @property
    def value(self) -> float:
        """Returns what the thresholds of the classes divide: popularity, by default the listens."""
        return self.listens if math.isnan(self.popularity) else self.popularity

    def packed(self) -> tuple[Any, ...]:
        """Returns a tuple that Beam encodes by itself.

        File names need not be UTF-8, its strings must. Without further inputs it ends with the
        split: a catalogue may have 100 million rows.
        """
        values = tuple((self._asdict() | {"path": os.fsencode(self.path)}).values())
        place = self._fields.index("categories")
        return values[:place] if values[place:] == _NOTHING_MORE else values

    @classmethod
    def unpacked(cls, values: tuple[Any, ...]) -> "Track":
        """Returns the track of `packed`."""
        return cls(*values)._replace(path=os.fsdecode(cls(*values).path))


# What a track ends with that has no further inputs.
_NOTHING_MORE = tuple(Track._field_defaults.values())


def clip_path(track_id: int) -> str:
    """Returns where FMA keeps a clip: the id as six digits in a folder named by the first three."""
    name = f"{track_id:06d}"
    return f"{name[:3]}/{name}.mp3"


def read_tracks(
    file: BinaryIO,
    *,
    name: str,
    subset: str,
    inputs: Inputs = NO_INPUTS,
    may_lack_listens: bool = False,
) -> Iterator[Track]:
    """Yields the tracks of a catalogue, in its order.

    Args:
        file: an FMA `tracks.csv` or a plain catalogue.
        name: what messages call it.
        subset: of an FMA: `small`, `medium`, `large` or `full`, each containing the ones before
            it. A plain catalogue has none and is read whole.
        inputs: names of further columns; those that it does not have stay unknown.
        may_lack_listens: whether an empty cell means that they are unknown.

    Raises:
        UserFacingError: naming row and column of what is wrong.
    """
    lines = _Lines(file)
    rows = _rows(lines, name)
    header = _read_header(rows, name, inputs)
    wanted = SUBSETS[: SUBSETS.index(subset) + 1]
    seen, number = _Ids(), 0
    for number, cells in rows:
        if not cells:
            continue
        row = _row_of(cells, header, name, number)
        track_id, listens = row.whole_number("track_id"), UNKNOWN
        if not may_lack_listens or row.text("listens"):
            listens = row.whole_number("listens")
        if row.has("subset") and row.one_of("subset", SUBSETS) not in wanted:
            continue
        if not seen.add(track_id):
            raise row.error("track_id", "stands in an earlier row too")
        yield Track(
            track_id=track_id,
            path=row.path() if row.has("path") else clip_path(track_id),
            listens=listens,
            artist_id=row.id_of("artist"),
            genre=row.text("genre"),
            date_created=row.seconds_since_1970("date_created"),
            split=_FMA_SPLITS[row.one_of("split", _FMA_SPLITS)] if row.has("split") else "",
            categories=tuple(row.category(name) for name in inputs.categories),
            numbers=tuple(row.number(name) for name in inputs.numbers),
            texts=tuple(row.longer_text(name) for name in inputs.texts),
            album_id=row.id_of("album") if inputs.album_history else UNKNOWN,
            counted_at=row.seconds_since_1970("counted_at"),
        )
    # Spreadsheets leave it away; FMA's has it, and a cut in the last cell shows by nothing else.
    if "path" not in header.places and not lines.last.endswith(("\n", "\r")):
        raise UserFacingError(f"{name}, row {number}: has no line end; is the file cut off?")


class Columns(NamedTuple):
    """What a table of further columns says of a track, in the order of the inputs.

    Attributes:
        categories, numbers, texts: empty, or NaN of a number, where the table does not say.
    """

    categories: tuple[str, ...]
    numbers: tuple[float, ...]
    texts: tuple[str, ...]


def read_columns(file: BinaryIO, *, name: str, inputs: Inputs) -> Iterator[tuple[int, Columns]]:
    """Yields (track id, columns) of each row of a table, in its order.

    Args:
        file: FMA's `features.csv` or `echonest.csv`, or a plain CSV with a column track_id.
        name: what messages call it.
        inputs: the columns that are wanted; those that it does not have stay unknown.

    Raises:
        UserFacingError: naming row and column of what is wrong.
    """
    rows = _rows(_Lines(file), name)
    header = _read_table_header(rows, name, inputs)
    seen = _Ids()
    for number, cells in rows:
        if not cells:
            continue
        row = _row_of(cells, header, name, number)
        track_id = row.whole_number("track_id")
        if not seen.add(track_id):
            raise row.error("track_id", "stands in an earlier row too")
        yield (
            track_id,
            Columns(
                tuple(row.category(name) for name in inputs.categories),
                tuple(row.number(name) for name in inputs.numbers),
                tuple(row.longer_text(name) for name in inputs.texts),
            ),
        )


def merged(track: Track, tables: Sequence[Columns]) -> Track:
    """Returns a track with what tables say where those before them, and it itself, do not."""
    for table in tables:
        track = track._replace(
            categories=tuple(
                a or b for a, b in zip(track.categories, table.categories, strict=True)
            ),
            numbers=tuple(
                b if math.isnan(a) else a for a, b in zip(track.numbers, table.numbers, strict=True)
            ),
            texts=tuple(a or b for a, b in zip(track.texts, table.texts, strict=True)),
        )
    return track


def inputs_of_catalogue(file: BinaryIO, *, name: str, inputs: Inputs) -> set[str]:
    """Returns the inputs that a catalogue has a column for; raises as reading it does."""
    return _names_in(_read_header(_rows(_Lines(file), name), name, inputs), inputs)


def inputs_of_table(file: BinaryIO, *, name: str, inputs: Inputs) -> set[str]:
    """Returns the inputs that a table has a column for; raises as reading it does."""
    return _names_in(_read_table_header(_rows(_Lines(file), name), name, inputs), inputs)


def _names_in(header: "_Header", inputs: Inputs) -> set[str]:
    found = {name for name in _names(inputs) if _field(name) in header.places}
    standing = {STANDING_CATEGORY: "genre", STANDING_NUMBER: "date_created"}
    return found | {name for name, field in standing.items() if field in header.places}


class _Ids:
    """A set of ids that takes 8 bytes for each that is the largest so far, as most catalogues' are.

    A plain set takes about 60, which one worker does not have for 100 million rows.
    """

    def __init__(self) -> None:
        self._rising = array.array("q")
        self._others: set[int] = set()

    def add(self, number: int) -> bool:
        """Adds an id and returns whether it is a new one."""
        if not self._rising or number > self._rising[-1]:
            self._rising.append(number)
            return True
        index = bisect.bisect_left(self._rising, number)
        if self._rising[index] == number or number in self._others:
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
    """Yields (number, cells) of each row, header rows included, counted from 1."""
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


def _names(inputs: Inputs) -> list[str]:
    return [*inputs.categories, *inputs.numbers, *inputs.texts]


def _field(name: str) -> str:
    """Returns the field of `_Header` that holds the column of an input."""
    return f"input {name}"


def _add_inputs(header: _Header, columns: list[tuple[str, ...]], name: str, inputs: Inputs) -> None:
    """Finds the columns of the inputs: `columns` are their names, from the outermost line on."""
    for wanted in _names(inputs):
        places = _places_of(wanted, columns)
        # What FMA says of a track goes before what it says of its album or artist.
        of_track = [index for index in places if columns[index][0] == "track"]
        if len(places) > 1 and len(of_track) != 1:
            choices = ", ".join(_identifier(columns[index]) for index in places[:5])
            raise UserFacingError(
                f"{name}: {wanted} of config.inputs may be {choices}; take one of these names"
            )
        for index in of_track or places:
            header.places[_field(wanted)] = index
            parts = columns[index]
            header.labels[_field(wanted)] = parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _places_of(wanted: str, columns: list[tuple[str, ...]]) -> list[int]:
    """Returns where the columns are whose name, or the last lines of it, is this one."""
    return [
        index
        for index, parts in enumerate(columns)
        if any(_identifier(parts[start:]) == wanted for start in range(len(parts)))
    ]


def _identifier(parts: Sequence[str]) -> str:
    """Returns the name of a column in small letters, digits and _."""
    return re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")


def _read_header(rows: Iterator[tuple[int, list[str]]], name: str, inputs: Inputs) -> _Header:
    _, first = next(rows, (0, []))
    first = [cell.strip() for cell in first]
    if "track_id" in first:
        for column in _PLAIN_COLUMNS:
            if column not in first:
                raise UserFacingError(f"{name}: there is no column {column}")
        known = [*_PLAIN_COLUMNS, *_PLAIN_OPTIONAL_COLUMNS]
        places = {column: first.index(column) for column in known if column in first}
        header = _Header(places, {column: column for column in places}, len(first))
        _add_inputs(header, [(cell,) for cell in first], name, inputs)
        return header

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
        if pair not in pairs and (field != "album_id" or inputs.album_history):
            raise UserFacingError(f"{name}: there is no column {labels[field]}")
    places = {field: pairs.index(pair) for field, pair in _FMA_COLUMNS.items() if pair in pairs}
    header = _Header(places, labels | {"track_id": "track_id"}, len(first))
    _add_inputs(header, list(pairs), name, inputs)
    return header


def _read_table_header(rows: Iterator[tuple[int, list[str]]], name: str, inputs: Inputs) -> _Header:
    lines: list[list[str]] = []
    for _, cells in rows:
        cells = [cell.strip() for cell in cells]
        if cells[:1] == ["track_id"] or "track_id" in cells:
            # A line of its own under the others, or the only one.
            names = lines or [cells]
            if len({len(line) for line in [*lines, cells]}) > 1:
                break
            index = cells.index("track_id")
            header = _Header({"track_id": index}, {"track_id": "track_id"}, len(cells))
            columns = [
                parts if index_of != index else ("track_id",)
                for index_of, parts in enumerate(zip(*names, strict=True))
            ]
            _add_inputs(header, columns, name, inputs)
            return header
        lines.append(cells)
        if len(lines) == _MOST_HEADER_LINES:
            break
    raise UserFacingError(
        f"{name}: no track ids; its header needs a column track_id, as FMA's features.csv and "
        "echonest.csv have it"
    )


def _row_of(cells: list[str], header: _Header, name: str, number: int) -> "_Row":
    if len(cells) != header.width:
        raise UserFacingError(
            f"{name}, row {number}: {len(cells)} cells where the header has {header.width}; "
            "is the file cut off?"
        )
    return _Row(cells, header, f"{name}, row {number}")


class _Row:
    """The cells of one row, read by field, with errors that name row and column."""

    def __init__(self, cells: list[str], header: _Header, where: str):
        self._cells, self._header, self._where = cells, header, where

    def error(self, field: str, problem: str) -> UserFacingError:
        value = self._cells[self._header.places[field]].strip()
        shown, label = printable(value, at_most=40), printable(self._header.labels[field])
        return UserFacingError(f'{self._where}, column {label}: "{shown}" {problem}')

    def has(self, field: str) -> bool:
        return field in self._header.places

    def text(self, field: str) -> str:
        """Returns the cell of a field, empty where the catalogue has no such column."""
        index = self._header.places.get(field)
        text = "" if index is None else self._cells[index].strip()
        if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
            raise self.error(field, "is not UTF-8")
        return text

    def one_of(self, field: str, values: Collection[str]) -> str:
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

    def id_of(self, kind: str) -> int:
        """Returns the id of the artist or album; FMA writes −1 where there is none."""
        field = f"{kind}_id"
        if self.text(field) == str(UNKNOWN):
            return UNKNOWN
        if self.text(field):
            return self.whole_number(field)
        name = self.text(kind)
        return stable_hash(name, salt=kind) if name else UNKNOWN

    def category(self, name: str) -> str:
        """Returns a category of the inputs, empty where it is unknown."""
        if name == STANDING_CATEGORY and self.has("genre"):
            return self.text("genre")
        return self.text(_field(name))[:_LONGEST_CATEGORY]

    def longer_text(self, name: str) -> str:
        """Returns a text of the inputs, empty where it is unknown."""
        return self.text(_field(name))[:_LONGEST_TEXT]

    def number(self, name: str) -> float:
        """Returns a number of the inputs, a date in seconds since 1970 UTC; NaN if unknown."""
        if name == STANDING_NUMBER and self.has("date_created"):
            seconds = self.seconds_since_1970("date_created")
            return math.nan if seconds == UNKNOWN else float(seconds)
        field = _field(name)
        text = self.text(field)
        if not text or text.lower() == "nan":
            return math.nan
        if _NUMBER.fullmatch(text):
            number = float(text)
            if abs(number) > _LARGEST_NUMBER:
                raise self.error(field, "is too large a number")
            return number
        if (seconds_or_none := _seconds_of(text)) is None:
            raise self.error(field, "is neither a number nor a date")
        return float(seconds_or_none)

    def seconds_since_1970(self, field: str) -> int:
        text = self.text(field)
        if not text:
            return UNKNOWN
        seconds = _seconds_of(text)
        if seconds is None:
            raise self.error(field, "is not a date such as 2008-11-26 01:48:12")
        return seconds


def _seconds_of(text: str) -> int | None:
    """Seconds since 1970 UTC of a date, None of what is none."""
    for form in _DATES:
        with contextlib.suppress(ValueError):
            date = datetime.datetime.strptime(text, form)
            if date.tzinfo is None:
                date = date.replace(tzinfo=datetime.timezone.utc)
            return int(date.timestamp())
    return None
