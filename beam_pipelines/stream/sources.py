"""Where announcements come from: what has been announced since a position, and the next one."""

import io
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Protocol

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


class Source(Protocol):
    """What announcements are read from.

    Attributes:
        uri: as manifests name it.
        spans: {part: [from, to)} of what `lines` has read.
        counts: what the manifest counts beside announcements.
        messages: what `lines` has read that has no offset: the ids, sorted.
        is_urgent: whether a manifest must account for what was read, whatever that is.
        may_have_more: whether there may be more that was announced before `lines` ended.
    """

    uri: str
    spans: dict[str, list[int]]
    counts: dict[str, int]
    messages: list[str]
    is_urgent: bool
    may_have_more: bool

    def lines(self, position: Mapping[str, int], messages: Collection[str]) -> Iterator[Line]:
        """Yields what was announced and is not accounted for.

        Args:
            position: {part: offset} up to which all is.
            messages: ids of others that are.
        """

    def accounted_for(self) -> None:
        """Hears that the manifest which accounts for what `lines` has read is there."""

    def close(self) -> None:
        """Lets go of it."""


class Folder:
    """The lines of the files `*.jsonl` in a folder or below a prefix of a bucket.

    Files may be added and lines appended to them; what has been read must stay as it is. A line
    without its end is one that is still being written, but in a bucket, where a file appears whole.

    Attributes:
        spans: {file: [from, to)} in bytes of what `lines` has read.
        counts, messages: always empty.
        is_urgent, may_have_more: never.
    """

    def __init__(self, uri: str):
        self.uri = uri.rstrip("/")
        self.spans: dict[str, list[int]] = {}
        self.counts: dict[str, int] = {}
        self.messages: list[str] = []
        self.is_urgent = self.may_have_more = False

    def lines(self, position: Mapping[str, int], messages: Collection[str] = ()) -> Iterator[Line]:
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

    def accounted_for(self) -> None:
        """Has nobody to tell."""

    def close(self) -> None:
        """Has nothing open."""


def _skip(file: io.BufferedReader, count: int) -> None:
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        count -= len(block)


def of(uri: str, *, once: bool = False, skip_expired: bool = False) -> Source:
    """Returns the source that a --source names.

    Args:
        uri: a folder, gs://bucket/prefix, kafka://broker:9092/topic or
            pubsub://projects/P/subscriptions/S.
        once: whether each run is to settle all, and to give up on one that does not answer.
        skip_expired: whether to go on where announcements are gone before they were read.

    Raises:
        UserFacingError: there is none of this kind.
    """
    scheme = uri.partition("://")[0] if files.is_remote(uri) else ""
    try:
        # Their clients are an extra.
        if scheme == "kafka":
            from beam_pipelines.stream.kafka import Topic

            return Topic(uri, once=once, skip_expired=skip_expired)
        if scheme == "pubsub":
            from beam_pipelines.stream.pubsub import Subscription

            return Subscription(uri, once=once)
    except ModuleNotFoundError as error:
        raise UserFacingError(f"{error}; pip install '.[stream]' has it") from None
    if scheme not in ("", "gs"):
        raise UserFacingError(
            f"--source={scheme}://…: neither a folder nor gs://bucket/prefix, "
            "kafka://broker:9092/topic or pubsub://projects/P/subscriptions/S"
        )
    return Folder(uri)
