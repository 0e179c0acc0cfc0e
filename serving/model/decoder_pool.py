"""A pool of processes that decode songs, which replaces those that end."""

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator

from common.contained_process import Crashed, NotStartedError
from common.model_info import ModelInfo
from serving.model.song import Song
from serving.model.song_process import SongDecoder
from serving.web.limits import Limits

# Between two attempts to start a process again, the first one and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class NoDecoderError(Exception):
    """No process decodes the song, through no fault of the song."""


class DecoderPool:
    """Processes that decode songs side by side.

    A process that ends, whether a song crashed it or the system killed it, is started again in a
    thread; until it is ready, songs go to the others.

    Args:
        make_decoder: makes one, not yet started.
        count: how many processes.
        wait_seconds: how long a song waits for one that is idle.
    """

    def __init__(
        self, make_decoder: Callable[[], SongDecoder], *, count: int, wait_seconds: float
    ) -> None:
        self._all = [make_decoder() for _ in range(count)]
        self._wait_seconds = wait_seconds
        self._idle: queue.SimpleQueue[SongDecoder] = queue.SimpleQueue()
        self._closed = threading.Event()

    @classmethod
    def of_model(cls, info: ModelInfo, *, count: int, limits: Limits) -> "DecoderPool":
        """Makes a pool for the songs of a model, within the limits of a server."""

        def make_decoder() -> SongDecoder:
            return SongDecoder(
                info,
                timeout_seconds=limits.decode_seconds,
                max_seconds=limits.max_seconds,
                max_samples=limits.max_samples,
            )

        # At most twice as many songs are admitted as there are processes, so that one may wait for
        # a whole other one.
        wait_seconds = limits.decode_seconds + limits.queue_seconds
        return cls(make_decoder, count=count, wait_seconds=wait_seconds)

    def start(self) -> None:
        """Starts all processes side by side; returns when they have loaded what they need.

        Raises:
            NotStartedError: not one of them starts. Others that do not are tried again.
        """
        for decoder in self._all:
            decoder.start()
        problem: NotStartedError | None = None
        for decoder in self._all:
            try:
                decoder.make_ready()
            except NotStartedError as error:
                problem = error
        if problem is not None and not any(decoder.is_running for decoder in self._all):
            raise problem
        for decoder in self._all:
            self._give_back(decoder)

    def dispatch(self, data: bytes | bytearray) -> Song:
        """Decodes a song on the next idle process.

        A song that a process ends with is sent to another one, since the song may not be why.

        Raises:
            rejection.ClipError: as `song.load_song` does; `undecodable` if it ends two processes.
            NoDecoderError: the system ended both of them, or none is there.
        """
        try:
            return self._decode(data)
        except (Crashed, NotStartedError):
            pass
        try:
            return self._decode(data)
        except NotStartedError as error:
            raise NoDecoderError(str(error)) from None
        except Crashed as error:
            if error.is_from_outside:
                raise NoDecoderError("two decoder processes were killed from outside") from None
            raise

    def is_ready(self) -> bool:
        """Whether any process is there; starts those again that have ended while they were idle."""
        for decoder in self._take_idle():
            self._give_back(decoder)
        return any(decoder.is_running for decoder in self._all)

    def num_ready(self) -> int:
        """Returns how many processes are there, whether idle or busy."""
        return sum(decoder.is_running for decoder in self._all)

    def close(self) -> None:
        self._closed.set()
        for decoder in self._all:
            decoder.close()

    def _decode(self, data: bytes | bytearray) -> Song:
        decoder = self._next_idle()
        try:
            return decoder.decode(data)
        finally:
            self._give_back(decoder)

    def _next_idle(self) -> SongDecoder:
        """Waits for an idle process; those that have ended meanwhile are started again."""
        while True:
            try:
                decoder = self._idle.get(timeout=self._wait_seconds)
            except queue.Empty:
                raise NoDecoderError("no decoder process is there") from None
            if decoder.is_running:
                return decoder
            self._give_back(decoder)

    def _take_idle(self) -> Iterator[SongDecoder]:
        with contextlib.suppress(queue.Empty):
            for _ in self._all:
                yield self._idle.get_nowait()

    def _give_back(self, decoder: SongDecoder) -> None:
        if decoder.is_running:
            self._idle.put(decoder)
        elif not self._closed.is_set():
            threading.Thread(target=self._start_again, args=(decoder,), daemon=True).start()

    def _start_again(self, decoder: SongDecoder) -> None:
        """Starts a process until it is ready, with longer and longer pauses."""
        pause = _FIRST_PAUSE
        while not self._closed.is_set():
            try:
                decoder.make_ready()
            except (NotStartedError, OSError) as error:  # OSError: no memory for another process
                print(f"error: {error}; trying again in {pause:g} s", file=sys.stderr, flush=True)
                self._closed.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._idle.put(decoder)
                break
        if self._closed.is_set():
            decoder.close()
