"""Holds those bytes of a file that are at hand: all of them, or the parts that one wants of it."""

import bisect
import io
from typing import Any


class NotAtHand(Exception):
    """Bytes from `start` up to `stop` are wanted that are not at hand."""

    def __init__(self, start: int, stop: int):
        super().__init__(f"bytes {start:,} to {stop:,}")
        self.start, self.stop = start, stop


class Pieces:
    """Parts of the bytes of a file.

    Args:
        size: of the whole file.
        parts: {where a part starts: its bytes}.
    """

    def __init__(self, size: int, parts: dict[int, bytes] | None = None):
        self.size = size
        self._starts: list[int] = []
        self._parts: list[bytes] = []
        for start, data in sorted((parts or {}).items()):
            self.add(start, data)

    @classmethod
    def whole(cls, data: bytes) -> "Pieces":
        return cls(len(data), {0: data})

    @property
    def parts(self) -> dict[int, bytes]:
        """Returns {where a part starts: its bytes}, in order."""
        return dict(zip(self._starts, self._parts, strict=True))

    @property
    def num_bytes(self) -> int:
        """Returns how many bytes are at hand, those that lie in two parts twice."""
        return sum(map(len, self._parts))

    @property
    def is_whole(self) -> bool:
        return any(
            start == 0 and len(part) == self.size
            for start, part in zip(self._starts, self._parts, strict=True)
        )

    def add(self, start: int, data: bytes) -> None:
        """Adds a part; ValueError if it reaches beyond the file."""
        if start < 0 or start + len(data) > self.size:
            raise ValueError(f"{len(data):,} bytes at {start:,} of a file of {self.size:,}")
        place = bisect.bisect_right(self._starts, start)
        self._starts.insert(place, start)
        self._parts.insert(place, data)

    def read(self, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` up to `stop` or the file's end, of one part.

        Raises:
            NotAtHand: no part has all of them.
        """
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        for place in range(bisect.bisect_right(self._starts, start) - 1, -1, -1):
            begin, part = self._starts[place], self._parts[place]
            if stop <= begin + len(part):
                return part[start - begin : stop - begin]
        raise NotAtHand(start, stop)

    def all(self) -> bytes:
        """Returns all bytes; NotAtHand if they are not one part."""
        return self.read(0, self.size)

    def open(self) -> "io.RawIOBase":
        """Opens it as a binary file, in which zeros stand for what is not at hand."""
        return _Reader(self)

    def _fill(self, start: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))
        stop = start + len(buffer)
        for begin, part in zip(self._starts, self._parts, strict=True):
            first, last = max(start, begin), min(stop, begin + len(part))
            if first < last:
                buffer[first - start : last - start] = part[first - begin : last - begin]


class _Reader(io.RawIOBase):
    def __init__(self, pieces: Pieces):
        self._pieces, self._place = pieces, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._pieces.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._pieces.size - self._place))
        self._pieces._fill(self._place, view[:count])
        self._place += count
        return count
