"""The model that answers now, and how a newer one takes its place without a dropped request.

A generation is a version with all that it needs. A request keeps the one that it began with; an old
one ends when the last request is done with it.
"""

import contextlib
import gc
import queue
import threading
from collections.abc import Iterator

import numpy as np

from beam_pipelines import audio
from serving import export_folder
from serving.batcher import Batcher
from serving.client import Answers, Client
from serving.exported_model import ExportedModel
from serving.limits import Limits
from serving.model_info import ModelInfo
from serving.song import Song
from serving.song_process import SongDecoder

# Batches on their way to TensorFlow Serving at once; it batches them further.
_REMOTE_THREADS = 4


class Decoders:
    """Processes that decode songs, one for each core."""

    def __init__(self, info: ModelInfo, *, count: int, limits: Limits):
        self._all = [
            SongDecoder(info, timeout_seconds=limits.decode_seconds, max_seconds=limits.max_seconds)
            for _ in range(count)
        ]
        self._idle: queue.SimpleQueue[SongDecoder] = queue.SimpleQueue()
        for decoder in self._all:
            decoder.start()
            self._idle.put(decoder)

    def listen(self, data: bytes) -> Song:
        """As `song.listen`, by the next idle process."""
        decoder = self._idle.get()
        try:
            return decoder.listen(data)
        finally:
            self._idle.put(decoder)

    def wait_until_ready(self) -> None:
        """Returns when all of them have loaded what they need."""
        for _ in self._all:
            with contextlib.suppress(audio.ClipError):
                self.listen(b"")

    def close(self) -> None:
        for decoder in self._all:
            decoder.close()


class Generation:
    """A version of the model, ready to answer.

    Attributes:
        version: its number.
        info: how it hears, and what its answers mean.
    """

    def __init__(
        self, export_dir: str, version: int, *, tf_serving: str | None, count: int, limits: Limits
    ):
        path = export_folder.join(export_dir, str(version))
        self.version = version
        self.info = export_folder.load_info(path)
        self._decoders = Decoders(self.info, count=count, limits=limits)
        try:
            if tf_serving is None:
                model = ExportedModel(path)
                model.warm_up("spectrogram")
                self._client = None
                self._batcher = Batcher(
                    lambda pictures: Answers(model.probabilities_of_pictures(pictures), model.name)
                )
            else:
                self._client = Client(f"grpc://{tf_serving}", self.info)
                self._batcher = Batcher(self._client.predict, threads=_REMOTE_THREADS)
            self._decoders.wait_until_ready()
        except BaseException:
            self._decoders.close()
            raise

    def listen(self, data: bytes) -> Song:
        return self._decoders.listen(data)

    def submit(self, pictures: np.ndarray):
        """The future Answers about pictures uint8 [batch, height, width]."""
        return self._batcher.submit(pictures)

    def close(self) -> None:
        self._batcher.close()
        self._decoders.close()
        if self._client is not None:
            self._client.close()


class ModelHost:
    """The newest version in an export folder.

    Args:
        export_dir: with the versions.
        tf_serving: host:port of a server that answers in place of this process, whose own config
            decides on the version then.
        count: songs that are decoded at once.
        limits: of a song.

    Raises:
        InputError: there is no version, or it can't be loaded.
    """

    def __init__(self, export_dir: str, *, tf_serving: str | None, count: int, limits: Limits):
        self._export_dir = export_dir
        self._options = {"tf_serving": tf_serving, "count": count, "limits": limits}
        self._lock = threading.Lock()
        self._users: dict[Generation, int] = {}
        self._current = self._generation(export_folder.newest_version(export_dir))

    def _generation(self, version: int) -> Generation:
        generation = Generation(self._export_dir, version, **self._options)
        self._users[generation] = 1  # being the current one is a use
        return generation

    @property
    def version(self) -> int:
        return self._current.version

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Generation]:
        """The current generation, which stays whole inside the block."""
        with self._lock:
            generation = self._current
            self._users[generation] += 1
        try:
            yield generation
        finally:
            self._release(generation)

    def refresh(self) -> int | None:
        """Takes the newest version up if it is another; its number then.

        Raises:
            InputError: it can't be loaded; the one before goes on.
        """
        version = export_folder.newest_version(self._export_dir)
        if version == self._current.version:
            return None
        newer = self._generation(version)
        with self._lock:
            older, self._current = self._current, newer
        self._release(older)
        return version

    def close(self) -> None:
        self._release(self._current)

    def _release(self, generation: Generation) -> None:
        with self._lock:
            self._users[generation] -= 1
            if self._users[generation]:
                return
            del self._users[generation]

        def end():
            generation.close()
            gc.collect()  # a SavedModel's functions refer to each other

        # In a thread, since whoever used it last may be the event loop.
        threading.Thread(target=end).start()
