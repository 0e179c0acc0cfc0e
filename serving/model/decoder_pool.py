"""A pool of processes that decode songs."""

import contextlib
import queue

from common import audio
from common.model_info import ModelInfo
from serving.model.song import Song
from serving.model.song_process import SongDecoder
from serving.web.limits import Limits


class DecoderPool:
    """Processes that decode songs side by side.

    Args:
        info: of the model.
        count: how many processes.
        limits: of a song.
    """

    def __init__(self, info: ModelInfo, *, count: int, limits: Limits):
        self._all = [
            SongDecoder(info, timeout_seconds=limits.decode_seconds, max_seconds=limits.max_seconds)
            for _ in range(count)
        ]
        self._idle: queue.SimpleQueue[SongDecoder] = queue.SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    def start(self) -> None:
        """Starts all processes side by side; returns when they have loaded what they need."""
        for decoder in self._all:
            decoder.start()
        for _ in self._all:
            with contextlib.suppress(audio.ClipError):
                self.dispatch(b"")

    def dispatch(self, data: bytes | bytearray) -> Song:
        """Decodes a song on the next idle process; raises as `song.load_song` does."""
        decoder = self._idle.get()
        try:
            return decoder.decode(data)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        for decoder in self._all:
            decoder.close()
