"""HTTP connections that end: slow clients can't hold them, and there are only so many.

uvicorn bounds the pause between two requests, but not how long a request's head, its body or the
reading of the answer may take. This adds one clock for each connection.
"""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.limits import Limits

_HEAD_SECONDS = 10.0

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\n\r\n"
    b'{"error": {"code": "busy", "message": "Too many connections; try again soon."}}\n'
)


def protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol that uvicorn is to speak (its argument `http`)."""
    request_seconds = limits.upload_seconds + limits.answer_seconds

    class BoundedProtocol(H11Protocol):
        def connection_made(self, transport):
            self._clock = None
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(_FULL)
                transport.close()
                return
            self._allow(_HEAD_SECONDS)

        def data_received(self, data):
            if self.transport.is_closing():
                return
            awaited_head = self._awaits_head
            if awaited_head and self._clock is None:  # a further request begins
                self._allow(_HEAD_SECONDS)
            super().data_received(data)
            if awaited_head and not self._awaits_head:
                self._allow(request_seconds)

        @property
        def _awaits_head(self) -> bool:
            return self.conn.their_state is h11.IDLE

        def on_response_complete(self):
            # From here on it is uvicorn's clock for idle connections.
            self._stop()
            super().on_response_complete()
            if self.cycle is not None and not self.cycle.response_complete:
                self._allow(request_seconds)  # the next request had come already
            elif not self._awaits_head and not self.transport.is_closing():
                self._allow(_HEAD_SECONDS)  # refused early, and still sending

        def connection_lost(self, exc):
            self._stop()
            super().connection_lost(exc)

        def _allow(self, seconds: float) -> None:
            self._stop()
            self._clock = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return BoundedProtocol
