"""Where announcements come from: what has been announced since a position, and the next one."""

import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from beam_pipelines.stream import announcements
from common import files
from common.errors import UserFacingError

SUFFIX = ".jsonl"


class Line(NamedTuple):
    """An announcement as it came.

    Attributes:
        where: names it in messages.
        data: the line; cut off where it is longer than one may be.
    """

    where: str
    data: bytes


class Folder:
    """The lines of the files `*.jsonl` in a folder or below a prefix of a bucket.

    Files may be added and lines appended to them; what has been read must stay as it is. A line
    without its end is one that is still being written, but in a bucket, where a file appears whole.

    Attributes:
        spans: {file: [from, to]} in bytes of what `lines` has read.
    """

    def __init__(self, uri: str):
        self.uri = uri.rstrip("/")
        self.spans: dict[str, list[int]] = {}

    def lines(self, position: Mapping[str, int]) -> Iterator[Line]:
        """Yields what was announced after a position {file: bytes}, by name of the file.

        Raises:
            UserFacingError: there is no such folder, or a file is shorter than it was.
        """
        self.spans = {}
        sizes = files.sizes_in(self.uri)
        if not sizes and not files.folder_exists(self.uri):
            raise UserFacingError(f"{self.uri}: no such folder; --source has files *{SUFFIX}")
        for name in sorted(sizes):
            begin = position.get(name, 0)
            if sizes[name] < begin:
                raise UserFacingError(
                    f"{files.join(self.uri, name)}: has {sizes[name]:,} bytes, and {begin:,} of it "
                    "were read before; files of announcements may grow, but not change"
                )
            if name.endswith(SUFFIX) and not name.startswith(".") and sizes[name] > begin:
                yield from self._lines_of(name, begin)

    def _lines_of(self, name: str, begin: int) -> Iterator[Line]:
        path = files.join(self.uri, name)
        with files.open_to_read(path) as file:
            if file.seekable():
                file.seek(begin)
            else:
                _skip(file, begin)
            at = begin
            while data := file.readline(announcements.MAX_BYTES + 1):
                length, more = len(data), data
                while len(data) > announcements.MAX_BYTES and more and not more.endswith(b"\n"):
                    more = file.readline(announcements.MAX_BYTES)
                    length += len(more)
                if not more.endswith(b"\n") and not files.is_remote(self.uri):
                    break  # it is still being written
                if data.strip():
                    yield Line(f"{name}, byte {at:,}", data.rstrip(b"\r\n"))
                at += length
            if at > begin:
                self.spans[name] = [begin, at]


def _skip(file: io.BufferedReader, count: int) -> None:
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        count -= len(block)


def of(uri: str) -> Folder:
    """Returns the source that a --source names.

    Raises:
        UserFacingError: there is none of this kind.
    """
    scheme = uri.partition("://")[0] if files.is_remote(uri) else ""
    if scheme not in ("", "gs"):
        raise UserFacingError(f"--source={uri}: neither a folder nor gs://bucket/prefix")
    return Folder(uri)
