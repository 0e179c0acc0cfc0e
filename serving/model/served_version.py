"""A version of the model with all that it needs to answer: decoders, batcher, model or server."""

import concurrent.futures
import contextlib

import grpc
import numpy as np

from common import export_folder, files
from serving.client import MODEL_NAME, Client
from serving.model.batcher import Batcher
from serving.model.decoder_pool import DecoderPool
from serving.model.exported_model import ExportedModel
from serving.model.predictions import Predictions
from serving.web.limits import Limits

# Batches on their way to TensorFlow Serving at once; it batches them further.
_REMOTE_THREADS = 4

_HEALTH_SECONDS = 0.5
_RECONNECT_SOON = [("grpc.max_reconnect_backoff_ms", 1000)]


class ServedVersion:
    """A version of the model, ready to answer.

    Attributes:
        number: of the version.
        info: how the model hears, and what its predictions mean.
        decoders: of its songs.

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
        self._health: _Health | None = None
        with contextlib.ExitStack() as parts:
            if tf_serving is None:
                model = ExportedModel(path)
                model.warm_up("spectrogram")
                self._batcher = Batcher(
                    lambda pictures: Predictions(
                        model.probabilities_of_pictures(pictures), model.name
                    )
                )
            else:
                client = Client(f"grpc://{tf_serving}", self.info, version=tf_serving_version)
                parts.callback(client.close)
                self._health = _Health(tf_serving)
                parts.callback(self._health.close)
                self._batcher = Batcher(client.predict, threads=_REMOTE_THREADS)
            parts.callback(self._batcher.close)
            # Last, since of all this they cost the most.
            self.decoders = DecoderPool(self.info, count=count, limits=limits)
            parts.callback(self.decoders.close)
            self.decoders.start()
            self.close = parts.pop_all().close

    def is_ready(self) -> bool:
        """Whether there is a model that answers."""
        return self._health is None or self._health.is_good()

    def submit(self, pictures: np.ndarray) -> concurrent.futures.Future[Predictions]:
        """Queues pictures uint8 [batch, height, width] for the model."""
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
