"""Announcements of music: a JSON object each, from strangers, checked before anything is done.

    {"track_id": 7, "path": "ada/rivers.mp3", "announced_at": "2026-11-25T10:00:00Z",
     "listens": 1200, "artist": "Ada Rivers", "genre": "Folk"}

`track_id`, `path` and `announced_at` (RFC 3339) must be there. Every other key is a column of the
catalogue, such as `listens`, `artist_id`, `artist`, `genre`, `date_created`, `title` and what the
config's inputs name.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from common import catalogue, files, generations
from common.errors import UserFacingError, one_line
from common.inputs import Inputs

# Of a line, a key, a cell, and how many keys there are.
MAX_BYTES = 64 * 1024
_LONGEST_CELL, _LONGEST_PATH, _MOST_KEYS = 20_000, 1_024, 200
_KEY = re.compile(r"[A-Za-z]\w{0,63}", re.ASCII)
_LARGEST = 10**15
# Clocks differ, but not by more.
_EARLIEST, _SECONDS_AHEAD = generations.seconds_of("1990-01-01T00:00:00Z"), 86_400

MALFORMED, TOO_LONG, OUTSIDE = "malformed", "too_long", "outside_audio_dir"

# The catalogue's own, whose order a generation's catalogue has.
STANDING = ("path", "listens", "artist_id", "artist", "genre", "date_created", "counted_at")


class Unusable(Exception):
    """An announcement that can't be used.

    Attributes:
        reason: `MALFORMED`, `TOO_LONG` or `OUTSIDE`.
        track_id: −1 where it is not known.
    """

    def __init__(self, reason: str, message: str, *, track_id: int = -1):
        super().__init__(message)
        self.reason, self.track_id = reason, track_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Announcement:
    """One that is checked.

    Attributes:
        track_id: of the track.
        announced_at: as it was announced, RFC 3339: the event time.
        cells: {column: text} of what else is known.
    """

    track_id: int
    announced_at: str
    cells: dict[str, str]

    @property
    def seconds(self) -> float:
        """Returns the event time in seconds since 1970."""
        return generations.seconds_of(self.announced_at)

    @property
    def path(self) -> str:
        return self.cells["path"]

    @property
    def listens(self) -> int | None:
        return int(self.cells["listens"]) if "listens" in self.cells else None

    @property
    def order(self) -> tuple[float, str]:
        """Returns what decides which of two is the newer, however they came."""
        return self.seconds, json.dumps(dataclasses.asdict(self), sort_keys=True)

    def updated_by(self, newer: "Announcement") -> "Announcement":
        """Returns what is known after a newer announcement of the same track."""
        return dataclasses.replace(newer, cells=self.cells | newer.cells)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Announcement":
        """Returns that of `dataclasses.asdict`; KeyError or TypeError if it is none."""
        return cls(
            track_id=int(values["track_id"]),
            announced_at=str(values["announced_at"]),
            cells={str(key): str(cell) for key, cell in values["cells"].items()},
        )


def parse(line: bytes, *, inputs: Inputs, now: float) -> Announcement:
    """Returns the announcement in a line of JSON.

    Args:
        line: at most `MAX_BYTES`.
        inputs: of the dataset's config, whose columns are checked as a catalogue's are.
        now: seconds since 1970.

    Raises:
        Unusable: it is none, or one that leads out of the audio folder.
    """
    if len(line) > MAX_BYTES:
        raise Unusable(TOO_LONG, f"longer than {MAX_BYTES:,} bytes")
    values = _object(line)
    track_id = values.get("track_id")
    if type(track_id) is not int or not 0 <= track_id <= _LARGEST:
        raise Unusable(MALFORMED, f"track_id: {track_id!r:.60} is not a whole number from 0 on")
    try:
        _check_standing(values, now)
        cells = _cells(values)
        _check_as_row(track_id, cells, inputs)
        check_path(cells["path"])
    except Unusable as error:
        error.track_id = track_id
        raise
    return Announcement(track_id=track_id, announced_at=values["announced_at"], cells=cells)


def check_path(path: str) -> None:
    """Raises Unusable unless a path names something below the folder that it is relative to."""
    if len(path) > _LONGEST_PATH or not path or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise Unusable(MALFORMED, "path: names no file")
    parts = path.replace("\\", "/").split("/")
    if files.is_remote(path) or path.startswith(("/", "\\", "~")) or ".." in parts:
        raise Unusable(OUTSIDE, "path: leads out of --audio_dir")


def _object(line: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    try:
        values = json.loads(line.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise Unusable(MALFORMED, f"no JSON ({one_line(error, at_most=100)})") from None
    if not isinstance(values, dict):
        raise Unusable(MALFORMED, "no JSON object")
    return values


def _check_standing(values: Mapping[str, Any], now: float) -> None:
    for key in ("path", "announced_at"):
        if not isinstance(values.get(key), str):
            raise Unusable(MALFORMED, f"{key}: missing, or no text")
    for key in ("listens", "artist_id"):
        value = values.get(key)
        if value is not None and (type(value) is not int or not 0 <= value <= _LARGEST):
            raise Unusable(MALFORMED, f"{key}: {value!r:.60} is not a whole number from 0 on")
    for key in ("artist", "genre", "date_created", "title", "counted_at"):
        if not isinstance(values.get(key, ""), str | None):
            raise Unusable(MALFORMED, f"{key}: {values[key]!r:.60} is no text")
    try:
        seconds = generations.seconds_of(values["announced_at"])
    except (ValueError, OverflowError):
        raise Unusable(
            MALFORMED, f"announced_at: {values['announced_at']!r:.60} is no date of RFC 3339"
        ) from None
    if not _EARLIEST <= seconds <= now + _SECONDS_AHEAD:
        raise Unusable(MALFORMED, f"announced_at: {values['announced_at']:.60} is out of range")


def _cells(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the columns as a catalogue has them; null is as absent."""
    if len(values) > _MOST_KEYS:
        raise Unusable(MALFORMED, f"more than {_MOST_KEYS} keys")
    cells = {}
    for key, value in values.items():
        if not _KEY.fullmatch(key):
            raise Unusable(MALFORMED, f"{key!r:.60}: no name of a column")
        if key in ("track_id", "announced_at") or value is None:
            continue
        if type(value) not in (str, int, float):
            raise Unusable(MALFORMED, f"{key}: neither text nor number")
        text = value if isinstance(value, str) else repr(value)
        if len(text) > _LONGEST_CELL or "\0" in text:
            raise Unusable(MALFORMED, f"{key}: too long a text, or no text")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable(MALFORMED, f"{key}: is not Unicode") from None
        cells[key] = text
    return cells


def _check_as_row(track_id: int, cells: dict[str, str], inputs: Inputs) -> None:
    """Checks what the catalogue's own reader checks, by that."""
    # One without listens is no row yet.
    row = {"track_id": str(track_id), "listens": "0"} | cells
    text = catalogue_text([row])
    try:
        list(catalogue.read_tracks(io.BytesIO(text), name="", subset="full", inputs=inputs))
    except UserFacingError as error:
        raise Unusable(MALFORMED, str(error).partition("column ")[2] or str(error)) from None


def catalogue_text(rows: Iterable[Mapping[str, str]]) -> bytes:
    """Returns a plain catalogue of rows {column: text}, in their order."""
    rows = list(rows)
    standing = ("track_id", *STANDING)
    others = sorted({key for row in rows for key in row} - set(standing))
    text = io.StringIO(newline="")
    # A cell with a carriage return is quoted only if that ends the rows.
    writer = csv.DictWriter(_Lines(text), [*standing, *others], restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class _Lines:
    """Writes each row that ends with \\r\\n as one that ends with \\n."""

    def __init__(self, text: io.StringIO):
        self._text = text

    def write(self, row: str) -> int:
        return self._text.write(row.removesuffix("\r\n") + "\n")
