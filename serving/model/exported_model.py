"""A version of an exported model in this process."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from common import command, export_folder, files, metadata, tensorflow_environment
from common.errors import UserFacingError, one_line


class ExportedModel:
    """A version, loaded.

    Attributes:
        path: of its folder.
        name: its number, or a candidate's name.
        info: how it hears, and what its answers mean.

    Raises:
        UserFacingError: it can't be loaded.
    """

    def __init__(self, path: str):
        self.path = path
        self.name = path.rstrip("/").rpartition("/")[2]
        self.info = export_folder.load_info(path)
        with command.kept_back_stderr(), tensorflow_environment.without_scikit_learn():
            import tensorflow as tf  # here, since a mistake in a flag should not wait for it
        try:
            with command.kept_back_stderr():
                self._loaded = tf.saved_model.load(path)
            self.signatures = dict(self._loaded.signatures)
            self.signatures["serving_default"], self.signatures["spectrogram"]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            message = one_line(error, at_most=200)
            raise UserFacingError(f"{path}: not a whole export ({message})") from None

    @classmethod
    def newest(cls, export_dir: str) -> "ExportedModel":
        """Loads the highest version in an export folder, which TensorFlow Serving serves."""
        version = export_folder.newest_version(export_dir)
        return cls(files.join(export_dir, str(version)))

    def ask(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a signature, as tensors.

        Args:
            signature: its name.
            inputs: {name: array [batch, …]}; what is left out is unknown. TensorFlow Serving puts
                the defaults of the SignatureDef in, and TensorFlow in Python does not.
        """
        import tensorflow as tf

        unknown = metadata.unknown(self.info.inputs, self.info.signal, signature=signature)
        tensors = {name: tf.constant(value) for name, value in {**unknown, **inputs}.items()}
        function = self.signatures[signature]
        # A network that pools may well compute something from another shape.
        for name, spec in function.structured_input_signature[1].items():
            if name in tensors and not spec.shape.is_compatible_with(tensors[name].shape):
                raise ValueError(
                    f"{name}: shape {tensors[name].shape}, the model takes {spec.shape}"
                )
        outputs: dict[str, Any] = function(**tensors)
        return outputs

    def probabilities_of_waveforms(
        self, waveforms: np.ndarray, told: Sequence[metadata.Metadata] | None = None
    ) -> np.ndarray:
        """Probabilities float32 [batch, classes] of waveforms float32 [batch, samples].

        Args:
            waveforms: what is heard.
            told: of each, what is known of it; nothing unless given.
        """
        beside = {} if told is None else metadata.columns(told, self.info.inputs)
        answer = self.ask("serving_default", {"waveform": waveforms, **beside})
        probabilities: np.ndarray = answer["probabilities"].numpy()
        return probabilities

    def probabilities_of_pictures(
        self, pictures: np.ndarray, beside: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Probabilities float32 [batch, classes] of pictures uint8 [batch, height, width].

        Args:
            pictures: what is seen.
            beside: further named inputs [batch, …] of the signature; unknown unless given.
        """
        answer = self.ask("spectrogram", {"spectrogram": pictures, **(beside or {})})
        probabilities: np.ndarray = answer["probabilities"].numpy()
        return probabilities

    def warm_up_requests(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yields (signature, inputs) of each warm-up request; UserFacingError if it is damaged."""
        import tensorflow as tf
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis import prediction_log_pb2

        path = files.join(self.path, export_folder.WARM_UP_FILE)
        if not files.exists(path):
            raise UserFacingError(f"{path}: there is no warm-up file")
        try:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
                inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
                yield request.model_spec.signature_name, inputs
        except (tf.errors.OpError, DecodeError, TypeError, ValueError) as error:
            raise _damaged(path, error) from None

    def warm_up(self, asked: str) -> None:
        """Sends itself the warm-up requests to a signature, so that no first answer is slow.

        Raises:
            UserFacingError: the warm-up file is damaged, or the model can't answer it.
        """
        import tensorflow as tf

        for signature, inputs in self.warm_up_requests():
            if signature == asked:
                try:
                    self.ask(signature, inputs)
                except (tf.errors.OpError, TypeError, ValueError) as error:
                    path = files.join(self.path, export_folder.WARM_UP_FILE)
                    raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> UserFacingError:
    return UserFacingError(f"{path}: damaged ({one_line(error, at_most=200)})")
