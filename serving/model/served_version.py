"""A version of the model with all that it needs to answer: decoders, batcher, model or server."""

import concurrent.futures
import contextlib
import math
from collections.abc import Mapping

import grpc
import numpy as np

from common import export_folder, files, metadata, rejection
from common.errors import UserFacingError, one_line, require
from serving.client import MODEL_NAME, Client, OtherModelError, ServerError
from serving.model import verification
from serving.model.batcher import Batcher
from serving.model.decoder_pool import DecoderPool
from serving.model.exported_model import ExportedModel
from serving.model.predictions import Predictions
from serving.model.song_statistics import SongStatistics
from serving.web.limits import Limits

# Batches on their way to TensorFlow Serving at once; it batches them further.
_REMOTE_THREADS = 4

_HEALTH_SECONDS = 0.5

# How far from 1 the sum of probabilities may lie, in whatever precision they were computed.
_TOLERANCE = 1e-2
_RECONNECT_SOON = [("grpc.max_reconnect_backoff_ms", 1000)]


class ServedVersion:
    """A version of the model, ready to answer.

    Attributes:
        number: of the version.
        info: how the model hears, and what its predictions mean.
        decoders: of its songs.
        songs: what they are like beside its training; None of an export that does not say what that
            was like.

    Raises:
        UserFacingError: it can't be loaded.
    """

    def __init__(
        self,
        export_dir: str,
        number: int,
        *,
        tf_serving: str | None,
        tf_serving_version: str | None = None,
        count: int,
        limits: Limits,
    ):
        path = files.join(export_dir, str(number))
        self.number = number
        self.info = export_folder.load_info(path)
        reference = self.info.reference
        self.songs = None if reference is None else SongStatistics(reference)
        self._health: _Health | None = None
        with contextlib.ExitStack() as parts:
            if tf_serving is None:
                model = ExportedModel(path)
                model.warm_up("spectrogram")
                self._batcher = Batcher(
                    lambda pictures, beside: Predictions(
                        model.probabilities_of_pictures(pictures, beside), model.name
                    )
                )
            else:
                client = Client(f"grpc://{tf_serving}", self.info, version=tf_serving_version)
                parts.callback(client.close)
                self._health = _Health(tf_serving)
                parts.callback(self._health.close)
                self._batcher = Batcher(client.predict, threads=_REMOTE_THREADS)
            parts.callback(self._batcher.close)
            self._check_answer(np.zeros((1, *self.info.signal.shape), np.uint8), path)
            # Last, since of all this they cost the most.
            self.decoders = DecoderPool.of_model(self.info, count=count, limits=limits)
            parts.callback(self.decoders.close)
            self.decoders.start()
            self._check_song(path, limits)
            self.close = parts.pop_all().close

    def _check_answer(self, pictures: np.ndarray, path: str) -> None:
        """Raises UserFacingError unless the model answers with a distribution of the classes.

        A server that can't answer now is no fault of the version; `has_model` says so.
        """
        try:
            probabilities = self.submit(pictures).result().probabilities
        except OtherModelError:
            raise
        except ServerError:
            return
        except Exception as error:  # whatever a graph raises
            problem = one_line(error, at_most=200)
            raise UserFacingError(f"{path}: it can't answer ({problem})") from None
        shape = (len(pictures), len(self.info.class_names))
        require(
            probabilities.shape == shape,
            f"{path}: the model answers with {probabilities.shape[-1]} classes, and "
            f"model_info.json names {shape[1]}",
        )
        require(
            bool(np.abs(probabilities.sum(axis=1) - 1).max() <= _TOLERANCE),  # nor is NaN
            f"{path}: the model's probabilities do not add up to 1",
        )

    def _check_song(self, path: str, limits: Limits) -> None:
        """Asks about a song, from its file on, so that no stranger's is the first.

        Raises:
            UserFacingError: it gets no prediction.
        """
        signal = self.info.signal
        longest = limits.max_seconds * signal.sample_rate
        samples = max(signal.num_samples, math.ceil(self.info.min_seconds * signal.sample_rate))
        require(
            samples <= longest,
            f"{path}: its shortest song has {samples / signal.sample_rate:g} s, and the longest "
            f"that is taken {limits.max_seconds:g} s",
        )
        noise = np.random.default_rng(0).integers(-9_000, 9_000, (samples, 1), np.int16)
        try:
            song = self.decoders.dispatch(verification.wav(noise, signal.sample_rate))
        except rejection.ClipError as error:
            raise UserFacingError(f"{path}: it takes no song ({error})") from None
        self._check_answer(np.stack([window.picture for window in song.windows]), path)

    def has_model(self) -> bool:
        """Whether there is a model that answers, here or in TensorFlow Serving."""
        return self._health is None or self._health.is_good()

    def submit(
        self, pictures: np.ndarray, beside: Mapping[str, np.ndarray] | None = None
    ) -> concurrent.futures.Future[Predictions]:
        """Queues pictures uint8 [batch, height, width] for the model.

        Args:
            pictures: to ask about.
            beside: further named inputs [batch, …]; unknown unless given.
        """
        all_of_them = metadata.completed(
            beside or {}, self.info.inputs, self.info.signal, size=len(pictures)
        )
        return self._batcher.submit(pictures, all_of_them)


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
