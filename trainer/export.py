"""The export: a SavedModel that takes a waveform, a WAV file, a picture or a tf.Example.

The signal front end is inside the graph, in stock TensorFlow ops, so that TensorFlow Serving
needs nothing else.
"""

import dataclasses
import json
import uuid
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from beam_pipelines import spectrogram
from beam_pipelines.dataset_info import DatasetInfo
from trainer import dataset, front_end
from trainer.network import build_network
from trainer.train_config import TrainConfig


class ServedModel(tf.Module):
    """A network with the four signatures of the export.

    Each returns `probabilities` float32 [batch, classes] and `label` string [batch].
    """

    def __init__(self, model: keras.Model, info: DatasetInfo):
        super().__init__()
        self._model = model
        # Keras 3 hides its variables from tf.Module.
        self._variables = model.variables
        self._params = info.config.spectrogram
        self._class_names = info.class_names
        height, width = self._params.shape

        def signature(function, name, shape, dtype):
            spec = tf.TensorSpec(shape, dtype, name=name)
            return tf.function(function, input_signature=[spec])

        self.waveform = signature(self._waveform, "waveform", [None, None], tf.float32)
        self.wav = signature(self._wav, "wav", [None], tf.string)
        self.spectrogram = signature(
            self._spectrogram, "spectrogram", [None, height, width], tf.uint8
        )
        self.examples = signature(self._examples, "examples", [None], tf.string)

    @property
    def signatures(self) -> dict[str, Any]:
        return {
            "serving_default": self.waveform,
            "wav": self.wav,
            "spectrogram": self.spectrogram,
            "examples": self.examples,
        }

    def _spectrogram(self, spectrogram):
        probabilities = tf.nn.softmax(self._model(spectrogram, training=False))
        names = tf.constant(self._class_names)
        return {
            "probabilities": probabilities,
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        }

    def _waveform(self, waveform):
        return self._spectrogram(front_end.pictures(waveform, self._params))

    def _wav(self, wav):
        def window_of(contents):
            samples, rate = tf.audio.decode_wav(contents)
            tf.debugging.assert_equal(
                rate,
                self._params.sample_rate,
                f"the sample rate of a wav must be {self._params.sample_rate} Hz",
            )
            mono = tf.reduce_mean(samples, axis=1)[tf.newaxis]
            return front_end.central_window(mono, self._params.num_samples)[0]

        spec = tf.TensorSpec([self._params.num_samples], tf.float32)
        return self._waveform(tf.map_fn(window_of, wav, fn_output_signature=spec))

    def _examples(self, examples):
        feature = {"spectrogram": tf.io.FixedLenFeature([], tf.string)}
        data = tf.io.parse_example(examples, feature)["spectrogram"]
        return self._spectrogram(dataset.decode_pictures(data, self._params.shape))


def export_model(
    weights: list[np.ndarray],
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
    export_dir: str,
) -> str:
    """Writes the next version `<export_dir>/<version>/`, whole from the moment it has that name.

    Args:
        weights: of the network, as `keras.Model.get_weights` gives them.
        config: of the training.
        info: of the dataset that it was trained on.
        evaluation: on the test split, None where that has no examples.
        export_dir: where the versions lie.

    Returns:
        The path of the version.
    """
    # A network outside of any strategy, so that no device of the trainer is named in the graph.
    model = build_network(
        config.network, shape=info.config.spectrogram.shape, num_classes=len(info.class_names)
    )
    model.set_weights(weights)
    served = ServedModel(model, info)
    temporary = tf.io.gfile.join(export_dir, f".tmp-{uuid.uuid4().hex}")
    tf.saved_model.save(served, temporary, signatures=served.signatures)
    extra = tf.io.gfile.join(temporary, "assets.extra")
    tf.io.gfile.makedirs(extra)
    with tf.io.gfile.GFile(tf.io.gfile.join(extra, "model_info.json"), "w") as file:
        file.write(json.dumps(model_info(model, config, info, evaluation), indent=2) + "\n")
    with tf.io.TFRecordWriter(tf.io.gfile.join(extra, "tf_serving_warmup_requests")) as writer:
        for log in warmup_requests(info):
            writer.write(log.SerializeToString())
    version = tf.io.gfile.join(export_dir, str(1 + max(versions(export_dir), default=0)))
    tf.io.gfile.rename(temporary, version)
    return version


def versions(export_dir: str) -> list[int]:
    """The numbers that are taken in an export folder, rising."""
    names = tf.io.gfile.listdir(export_dir) if tf.io.gfile.isdir(export_dir) else []
    return sorted(int(name.rstrip("/")) for name in names if name.rstrip("/").isdecimal())


def newest_version(export_dir: str) -> str | None:
    """The path of the highest version, None where there is none."""
    taken = versions(export_dir)
    return tf.io.gfile.join(export_dir, str(taken[-1])) if taken else None


def warmup_requests(info: DatasetInfo) -> list[prediction_log_pb2.PredictionLog]:
    """A request for each signature, which TensorFlow Serving sends itself before it answers others.

    All ask about the same faint noise, as long as the window.
    """
    params = info.config.spectrogram
    waveform = np.random.default_rng(0).normal(0, 0.1, params.num_samples).astype(np.float32)
    wav = tf.audio.encode_wav(waveform[:, np.newaxis], params.sample_rate).numpy()
    picture = spectrogram.picture(waveform, params)
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture.tobytes()]))
    example = tf.train.Example(features=tf.train.Features(feature={"spectrogram": feature}))
    inputs = {
        "serving_default": ("waveform", waveform[np.newaxis]),
        "wav": ("wav", [wav]),
        "spectrogram": ("spectrogram", picture[np.newaxis]),
        "examples": ("examples", [example.SerializeToString()]),
    }
    logs = []
    for signature, (name, value) in inputs.items():
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.signature_name = signature
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        logs.append(log)
    return logs


def model_info(
    model: keras.Model,
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
) -> dict[str, Any]:
    """What whoever serves the model needs to know of it."""
    return {
        "class_names": list(info.class_names),
        "thresholds": list(info.thresholds),
        "signal": dataclasses.asdict(info.config.spectrogram),
        "min_seconds": info.config.min_seconds,
        "silence_dbfs": info.config.silence_dbfs,
        "dataset_fingerprint": info.fingerprint,
        "training": config.to_dict(),
        "num_parameters": model.count_params(),
        "evaluation": evaluation,
    }
