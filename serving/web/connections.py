"""HTTP connections that end: slow clients can't hold them, and there are only so many.

uvicorn bounds the pause between two requests, but not how long a request's head, its body or the
reading of the answer may take. This adds one clock for each connection, a share of the connections
for each address, a bound on the pieces that a body comes in, and refuses what HTTP implementations
read in different ways.
"""

import asyncio
import collections
import re
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from common import tensorflow_environment
from serving.web.limits import Limits

_HEAD_SECONDS = 10.0

# Each piece of a body costs some 10 us, whatever its size, and nobody else is served meanwhile. So
# there may be a few small ones, and beyond these one for so many bytes, which is less than the
# smallest usual packet.
_SMALL_PIECES, _BYTES_PER_PIECE = 256, 512

# How long a client that is turned away has to read the answer. Closed at once while its request is
# still coming in, the connection would be reset, and the answer lost.
_READ_SECONDS = 1.0
# So many may do this at once; the others are reset.
_MOST_TURNED_AWAY = 64

# After so many connections at once, of which an eighth is left, what they needed is given back to
# the system: some 150 kB each, which the process would keep for ever.
_MANY, _FEW = 64, 8
_SECONDS_TO_FREE = 1.0


def _refusal(head: bytes, code: bytes, message: bytes) -> bytes:
    return (
        b"HTTP/1.1 " + head + b"\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        b'{"error": {"code": "' + code + b'", "message": "' + message + b'"}}\n'
    )


_FULL = _refusal(
    b"503 Service Unavailable\r\nRetry-After: 5",
    b"busy",
    b"Too many connections; try again soon.",
)
_TOO_MANY_PIECES = _refusal(
    b"400 Bad Request",
    b"unreadable",
    b"The body comes in too many small pieces; send it in larger chunks.",
)
_AMBIGUOUS = _refusal(
    b"400 Bad Request",
    b"unreadable",
    b"The request is framed in a way that servers read differently.",
)

# A line that ends without CR, and a header that goes on in the next line (obs-fold).
_LENIENT_LINE = re.compile(rb"(?<!\r)\n|\n[ \t]")


class _StrictConnection(h11.Connection):
    """A connection that raises _TurnAwayError for requests that h11 itself would take.

    These are bodies in very many small pieces, and request smuggling (RFC 9112, section 11.2):
    Content-Length beside Transfer-Encoding, folded header lines, and lines that end without CR.
    """

    _pieces = _size = 0
    _has_trailers = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        reads_lines = self.their_state is h11.IDLE or self._has_trailers
        before = self.trailing_data[0] if reads_lines else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._size = 0
            names = {name for name, _ in event.headers}
            self._has_trailers = b"transfer-encoding" in names
            if self._has_trailers and b"content-length" in names:
                raise _TurnAwayError(_AMBIGUOUS)
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._size += len(event.data)
            if self._pieces > _SMALL_PIECES + self._size // _BYTES_PER_PIECE:
                raise _TurnAwayError(_TOO_MANY_PIECES)
        if reads_lines and isinstance(event, (h11.Request, h11.EndOfMessage)):
            lines = before[: len(before) - len(self.trailing_data[0])]
            if _LENIENT_LINE.search(lines):
                raise _TurnAwayError(_AMBIGUOUS)
        return event


class _TurnAwayError(Exception):
    """A request that gets the bytes of an answer in place of the application's."""

    def __init__(self, answer: bytes):
        super().__init__()
        self.answer = answer


def protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol that uvicorn is to speak (its argument `http`)."""
    request_seconds = limits.upload_seconds + limits.answer_seconds
    served: collections.Counter[str] = collections.Counter()  # the connections of each address
    turned_away: set[H11Protocol] = set()  # those that are no longer served, and still open
    most = 0  # at once, since memory was given back

    class BoundedProtocol(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.conn = _StrictConnection(h11.SERVER)
            self._clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            nonlocal most
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            served[self._address] += 1
            most = max(most, served.total() + len(turned_away))
            share = max(1, limits.connections // 2)
            if served.total() > limits.connections or served[self._address] > share:
                self._turn_away(_FULL)
            else:
                self._allow(_HEAD_SECONDS)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing() or self in turned_away:
                return
            awaited_head = self._awaits_head
            if awaited_head and self._clock is None:  # a further request begins
                self._allow(_HEAD_SECONDS)
            super().data_received(data)
            if awaited_head and not self._awaits_head and self not in turned_away:
                self._allow(request_seconds)

        def handle_events(self) -> None:
            try:
                super().handle_events()
            except _TurnAwayError as error:
                self._turn_away(error.answer)

        @property
        def _awaits_head(self) -> bool:
            return self.conn.their_state is h11.IDLE

        def on_response_complete(self) -> None:
            # From here on it is uvicorn's clock for idle connections.
            self._stop()
            super().on_response_complete()
            if self in turned_away:
                return
            if self.cycle is not None and not self.cycle.response_complete:
                self._allow(request_seconds)  # the next request had come already
            elif not self._awaits_head and not self.transport.is_closing():
                self._allow(_HEAD_SECONDS)  # refused early, and still sending

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._leave()
            turned_away.discard(self)
            super().connection_lost(exc)
            self._give_memory_back()

        def _give_memory_back(self) -> None:
            nonlocal most
            if most >= _MANY and served.total() + len(turned_away) <= most // _FEW:
                most = 0
                give_back = tensorflow_environment.return_freed_memory
                self.loop.call_later(_SECONDS_TO_FREE, self.loop.run_in_executor, None, give_back)

        def _turn_away(self, answer: bytes) -> None:
            """Answers in place of the app, and ends when that can have been read."""
            self._leave()
            turned_away.add(self)
            if self.cycle is not None and not self.cycle.response_complete:
                if self.cycle.response_started:
                    answer = b""  # it has one
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(answer)
            self.transport.write_eof()
            self.flow.resume_reading()  # and drops what it reads
            self._allow(_READ_SECONDS if len(turned_away) <= _MOST_TURNED_AWAY else 0)

        def _leave(self) -> None:
            if self not in turned_away:
                served[self._address] -= 1
                if not served[self._address]:
                    del served[self._address]

        def _allow(self, seconds: float) -> None:
            self._stop()
            self._clock = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return BoundedProtocol
