"""Who is served next: a bounded queue that takes turns between clients.

So a client that sends hundreds of files at once waits behind itself, not others behind it.
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect

from serving.web.limits import Refusal

_Turns = collections.deque[asyncio.Future[None]]


class Admission:
    """Turns for songs; all of it runs in one event loop.

    Args:
        concurrent: songs that are worked on at once.
        queue_length: songs that wait in all; a client may fill half of it.
        queue_seconds: how long one waits.
    """

    def __init__(self, *, concurrent: int, queue_length: int, queue_seconds: float):
        self._free = concurrent
        self._queue_length, self._queue_seconds = queue_length, queue_seconds
        # The waiting turns of each client, the next client first.
        self._waiting: collections.OrderedDict[str, _Turns] = collections.OrderedDict()
        self.num_waiting = 0

    @contextlib.asynccontextmanager
    async def turn(self, client: str, gone: asyncio.Future[None]) -> AsyncIterator[None]:
        """Waits for a turn and holds it.

        Args:
            client: who asks, such as an address.
            gone: is done when nobody waits for the answer any more.

        Raises:
            Refusal: 503 if the queue is full or the wait too long, 429 if the client's share is.
            ClientDisconnect: `gone` is done.
        """
        await self._take(client, gone)
        try:
            if gone.done():
                raise ClientDisconnect
            yield
        finally:
            self._give_back()

    async def _take(self, client: str, gone: asyncio.Future[None]) -> None:
        if self._free and not self.num_waiting:
            self._free -= 1
            return
        if self.num_waiting >= self._queue_length:
            raise Refusal(503, "busy", "The server is busy; try again soon.", retry_after=2)
        mine = self._waiting.setdefault(client, collections.deque())
        if len(mine) >= max(1, self._queue_length // 2):
            raise Refusal(
                429, "too_many", "Too many songs of yours are waiting; send fewer at once.",
                retry_after=2,
            )  # fmt: skip
        turn = asyncio.get_running_loop().create_future()
        mine.append(turn)
        self.num_waiting += 1
        try:
            await asyncio.wait(
                (turn, gone), timeout=self._queue_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            if turn.done():  # it came while this was given up
                self._give_back()
            else:
                self._forget(client, turn)
            raise
        if turn.done():
            return
        self._forget(client, turn)
        if gone.done():
            raise ClientDisconnect
        raise Refusal(503, "busy", "The server is busy; try again soon.", retry_after=5)

    def _give_back(self) -> None:
        self._free += 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            client, turns = next(iter(self._waiting.items()))
            turn = turns[0]
            self._forget(client, turn)
            if turns:
                self._waiting.move_to_end(client)
            self._free -= 1
            turn.set_result(None)

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting[client]
        turns.remove(turn)
        self.num_waiting -= 1
        if not turns:
            del self._waiting[client]
