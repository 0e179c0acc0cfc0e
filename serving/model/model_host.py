"""The model that answers now, and how a newer one takes its place without a dropped request.

A generation is a version with all that it needs. A request keeps the one that it began with; an old
one ends when the last request is done with it.
"""

import contextlib
import gc
import queue
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np

from common import audio, export_folder, files
from common.errors import UserFacingError
from common.model_info import ModelInfo
from serving.client import MODEL_NAME, Answers, Client
from serving.model.batcher import Batcher
from serving.model.exported_model import ExportedModel
from serving.model.song import Song
from serving.model.song_process import SongDecoder
from serving.web.limits import Limits

# Batches on their way to TensorFlow Serving at once; it batches them further.
_REMOTE_THREADS = 4

_HEALTH_SECONDS = 0.5
_RECONNECT_SOON = [("grpc.max_reconnect_backoff_ms", 1000)]

# A version that could not be loaded is tried again when its folder has changed, or after this
# time, in case it was not the version's fault.
_TRY_AGAIN_SECONDS = 600.0


class Decoders:
    """Processes that decode songs, one for each core."""

    def __init__(self, info: ModelInfo, *, count: int, limits: Limits):
        self._all = [
            SongDecoder(info, timeout_seconds=limits.decode_seconds, max_seconds=limits.max_seconds)
            for _ in range(count)
        ]
        self._idle: queue.SimpleQueue[SongDecoder] = queue.SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    def start(self) -> None:
        """Returns when all of them have loaded what they need, which they do side by side."""
        for decoder in self._all:
            decoder.start()
        for _ in self._all:
            with contextlib.suppress(audio.ClipError):
                self.listen(b"")

    def listen(self, data: bytes) -> Song:
        """As `song.listen`, by the next idle process."""
        decoder = self._idle.get()
        try:
            return decoder.listen(data)
        finally:
            self._idle.put(decoder)

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
        self,
        export_dir: str,
        version: int,
        *,
        tf_serving: str | None,
        tf_serving_version: str | None = None,
        count: int,
        limits: Limits,
    ):
        path = files.join(export_dir, str(version))
        self.version = version
        self.info = export_folder.load_info(path)
        with contextlib.ExitStack() as parts:
            if tf_serving is None:
                model = ExportedModel(path)
                model.warm_up("spectrogram")
                self._health = None
                self._batcher = Batcher(
                    lambda pictures: Answers(model.probabilities_of_pictures(pictures), model.name)
                )
            else:
                client = Client(f"grpc://{tf_serving}", self.info, version=tf_serving_version)
                parts.callback(client.close)
                self._health = _Health(tf_serving)
                parts.callback(self._health.close)
                self._batcher = Batcher(client.predict, threads=_REMOTE_THREADS)
            parts.callback(self._batcher.close)
            # Last, since of all this they cost the most.
            self._decoders = Decoders(self.info, count=count, limits=limits)
            parts.callback(self._decoders.close)
            self._decoders.start()
            self.close = parts.pop_all().close

    def is_ready(self) -> bool:
        """Whether there is a model that answers."""
        return self._health is None or self._health.is_good()

    def listen(self, data: bytes) -> Song:
        return self._decoders.listen(data)

    def submit(self, pictures: np.ndarray):
        """The future Answers about pictures uint8 [batch, height, width]."""
        return self._batcher.submit(pictures)


class _Health:
    """Asks TensorFlow Serving whether it has loaded the model, which takes it no time."""

    def __init__(self, target: str):
        from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

        self._request = get_model_metadata_pb2.GetModelMetadataRequest()
        self._request.model_spec.name = MODEL_NAME
        self._request.metadata_field.append("signature_def")
        self._channel = grpc.insecure_channel(target, options=_RECONNECT_SOON)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def is_good(self) -> bool:
        try:
            self._stub.GetModelMetadata(self._request, timeout=_HEALTH_SECONDS)
        except grpc.RpcError:
            return False
        return True

    def close(self) -> None:
        self._channel.close()


class ModelHost:
    """The newest version in an export folder.

    Args:
        export_dir: with the versions.
        tf_serving: host:port of a server that answers in place of this process.
        tf_serving_version: number or label of the version that is asked there; without it the
            server's own config decides.
        count: songs that are decoded at once.
        limits: of a song.

    Raises:
        UserFacingError: there is no version, or it can't be loaded.
    """

    def __init__(
        self,
        export_dir: str,
        *,
        tf_serving: str | None,
        tf_serving_version: str | None = None,
        count: int,
        limits: Limits,
    ):
        self._export_dir = export_dir
        self._options = {
            "tf_serving": tf_serving,
            "tf_serving_version": tf_serving_version,
            "count": count,
            "limits": limits,
        }
        self._lock = threading.Lock()
        self._users: dict[Generation, int] = {}
        # The state of the version that could not be loaded, and when that was.
        self._failed: tuple[list, float] | None = None
        self._current = self._generation(export_folder.newest_version(export_dir))

    def _generation(self, version: int) -> Generation:
        try:
            generation = Generation(self._export_dir, version, **self._options)
        except UserFacingError:
            raise
        except Exception as error:  # a folder may hold anything
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            path = files.join(self._export_dir, str(version))
            raise UserFacingError(f"{path}: can't be served ({problem})") from error
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

        One that could not be loaded is left alone as long as its folder stays as it is.

        Raises:
            UserFacingError: it can't be loaded; the one before goes on.
        """
        version = export_folder.newest_version(self._export_dir)
        if version == self._current.version:
            return None
        state = files.states_below(files.join(self._export_dir, str(version)))
        if self._failed is not None:
            before, when = self._failed
            if before == state and time.monotonic() < when + _TRY_AGAIN_SECONDS:
                return None
        try:
            newer = self._generation(version)
        except UserFacingError:
            self._failed = state, time.monotonic()
            raise
        self._failed = None
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
