"""Exports a SavedModel that takes a waveform, a WAV file, a picture or a tf.Example.

The signal front end is inside the graph, in stock TensorFlow ops, so that TensorFlow Serving
needs nothing else. A version is released only after `serving.verify` has verified it, in a process
of its own that knows nothing of the trainer.
"""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from common import export_folder, files, records, spectrogram
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.inputs import Inputs
from common.signatures import BATCH_SIZES, SIGNATURES
from trainer.data import reader
from trainer.model import front_end, input_encoder, model_card, network
from trainer.train_config import TrainConfig

# Records of each split whose predictions go with the export, for serving.verify to compare.
_REFERENCES = 16


Outputs = dict[str, tf.Tensor]


class ServedModel(tf.Module):
    """Wraps a network in the four signatures of the export.

    Each returns `probabilities` float32 [batch, classes] and `label` string [batch].
    """

    def __init__(self, model: keras.Model, info: DatasetInfo, inputs: Inputs):
        super().__init__()
        self._model = model
        # Kept, so that its tables are saved.
        self._encoder = input_encoder.encoder_of(inputs, info)
        self._parse = reader.parser(
            info,
            names=(),
            beside=reader.Beside(encoder=self._encoder, arrays=network.arrays_of(inputs)),
            may_lack=True,
        )
        # Keras 3 hides its variables from tf.Module.
        self._variables = model.variables
        self._params = info.config.spectrogram
        self._class_names = info.class_names
        height, width = self._params.shape

        def signature(
            function: Callable[[tf.Tensor], Outputs],
            name: str,
            shape: list[int | None],
            dtype: tf.DType,
        ) -> tf.types.experimental.PolymorphicFunction:
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

    def _spectrogram(self, spectrogram: tf.Tensor) -> Outputs:
        return self._answer({"spectrogram": spectrogram})

    def _answer(self, columns: dict[str, tf.Tensor]) -> Outputs:
        columns = network.with_unknown(columns, self._model)
        logits = self._model(network.arguments_of(columns, self._model), training=False)
        probabilities = tf.nn.softmax(logits)
        names = tf.constant(self._class_names)
        return {
            "probabilities": probabilities,
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        }

    def _waveform(self, waveform: tf.Tensor) -> Outputs:
        return self._spectrogram(front_end.pictures(waveform, self._params))

    def _wav(self, wav: tf.Tensor) -> Outputs:
        def window_of(contents: tf.Tensor) -> tf.Tensor:
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

    def _examples(self, examples: tf.Tensor) -> Outputs:
        return self._answer(self._parse(examples))


def export_model(
    weights: list[np.ndarray],
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
    export_dir: str,
    *,
    dataset_dir: str,
) -> str:
    """Writes the next version `<export_dir>/<version>/`, whole and verified when it has that name.

    Args:
        weights: of the network, as `keras.Model.get_weights` gives them.
        config: of the training.
        info: of the dataset that it was trained on.
        evaluation: on the test split, None where that has no examples.
        export_dir: where the versions lie.
        dataset_dir: where the dataset lies.

    Returns:
        The path of the version.

    Raises:
        UserFacingError: it did not pass; it lies beside the versions, and the message says where.
    """
    candidate = write_candidate(
        weights, config, info, evaluation, export_dir, dataset_dir=dataset_dir
    )
    return release(candidate, export_dir, dataset_dir)


def write_candidate(
    weights: list[np.ndarray],
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
    export_dir: str,
    *,
    dataset_dir: str,
) -> str:
    """Writes `<export_dir>/.candidate-<id>/`, which nothing serves yet, and returns its name."""
    # A network outside of any strategy, so that no device of the trainer is named in the graph.
    # On the CPU, since a GPU may convolve in TensorFloat-32 and its answers are references.
    with tf.device("CPU"):
        built = network.build(config.network, info)
        model = built.model
        model.set_weights(weights)
        references = reference_answers(model, info, dataset_dir)
    served = ServedModel(model, info, built.inputs)
    name = f"{export_folder.CANDIDATE}{uuid.uuid4().hex}"
    candidate = files.join(export_dir, name)
    tf.saved_model.save(served, candidate, signatures=served.signatures)
    described = model_info(model, config, info, evaluation)
    for file_name, text in (
        (export_folder.INFO_FILE, json.dumps(described, indent=2) + "\n"),
        (export_folder.CARD_FILE, model_card.text(described, info)),
        (export_folder.REFERENCES_FILE, json.dumps(references, indent=1) + "\n"),
    ):
        export_folder.write_extra(candidate, file_name, text.encode())
    warm_up = b"".join(records.frame(log.SerializeToString()) for log in warmup_requests(info))
    export_folder.write_extra(candidate, export_folder.WARM_UP_FILE, warm_up)
    return name


def release(candidate: str, export_dir: str, dataset_dir: str) -> str:
    """Has serving.verify release a candidate under a number; returns the path of the version.

    Raises:
        UserFacingError: it did not pass.
    """
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "serving.verify",
            f"--candidate={candidate}",
            f"--export_dir={export_dir}",
            f"--dataset_dir={dataset_dir}",
        ],
        # What trains may hold all of the GPUs' memory.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout, end="", flush=True)
    if result.returncode:
        problem = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
        path = files.join(export_dir, candidate)
        if files.has_files(path):  # it was killed, or a graph brought its process down
            problem = f"serving.verify ended with {result.returncode}: {problem}"
            export_folder.write_report(path, {"passed": False, "problem": problem})
            problem += f"; set aside: {export_folder.refuse(export_dir, candidate)}"
        raise UserFacingError(f"the export is not released: {problem}")
    return result.stdout.splitlines()[-1].removeprefix("passed: ")


def reference_answers(
    model: keras.Model, info: DatasetInfo, dataset_dir: str
) -> dict[str, list[float]]:
    """Predicts the first pictures of each split: probabilities by SHA-256 of the picture alone."""
    answers = {}
    for split in info.splits.values():
        if not split.num_examples:
            continue
        paths = [files.join(dataset_dir, shard.file) for shard in split.shards]
        serialized = list(tf.data.TFRecordDataset(paths).take(_REFERENCES))
        feature = {"spectrogram": tf.io.FixedLenFeature([], tf.string)}
        data = tf.io.parse_example(serialized, feature)["spectrogram"]
        pictures = reader.decode_pictures(data, info.config.spectrogram.shape)
        columns = network.with_unknown({"spectrogram": pictures}, model)
        logits = model(network.arguments_of(columns, model), training=False)
        probabilities = tf.nn.softmax(logits).numpy()
        for picture, values in zip(data.numpy(), probabilities, strict=True):
            answers[hashlib.sha256(picture).hexdigest()] = [float(value) for value in values]
    return answers


def warmup_requests(info: DatasetInfo) -> list[prediction_log_pb2.PredictionLog]:
    """Makes the warm-up requests of TensorFlow Serving: every signature, every batch size.

    All hold the same faint noise. In the larger batches its waveform is cut short, since the graph
    pads it and runs through the same shapes.
    """
    params = info.config.spectrogram
    noise = np.random.default_rng(0).normal(0, 0.1, params.num_samples).astype(np.float32)
    picture = spectrogram.picture(noise, params)
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture.tobytes()]))
    example = tf.train.Example(features=tf.train.Features(feature={"spectrogram": feature}))
    logs = []
    for size in BATCH_SIZES:
        waveform = noise if size == 1 else noise[: params.fft_size]
        wav = tf.audio.encode_wav(waveform[:, np.newaxis], params.sample_rate).numpy()
        for signature, value in (
            ("serving_default", waveform),
            ("wav", wav),
            ("spectrogram", picture),
            ("examples", example.SerializeToString()),
        ):
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            batch = [value] * size if isinstance(value, bytes) else np.stack([value] * size)
            request.inputs[SIGNATURES[signature]].CopyFrom(tf.make_tensor_proto(batch))
            logs.append(log)
    return logs


def model_info(
    model: keras.Model,
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns the contents of model_info.json: what serving the model needs."""
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
