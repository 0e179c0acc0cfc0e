"""Exports a SavedModel that takes a waveform, a WAV file, a picture or a tf.Example.

The signal front end is inside the graph, in stock TensorFlow ops, so that TensorFlow Serving
needs nothing else. A version is released only after `serving.verify` has verified it, in a process
of its own that knows nothing of the trainer.
"""

import dataclasses
import hashlib
import inspect
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from common import audio_features, export_folder, files, metadata, records
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.inputs import Inputs
from common.parent_death import end_with_parent
from common.signatures import BATCH_SIZES, SIGNATURES
from trainer.data import reader
from trainer.model import front_end, input_encoder, model_card, network, reference
from trainer.train_config import TrainConfig

# Records of each split whose predictions go with the export, for serving.verify to compare.
_REFERENCES = 16
# How often it is asked whether the run is to stop while an export is verified.
_SECONDS_BETWEEN_LOOKS = 0.5


Outputs = dict[str, tf.Tensor]


class ServedModel(tf.Module):
    """Wraps a network in the four signatures of the export.

    Each returns `probabilities` float32 [batch, classes] and `label` string [batch]. What the
    network takes beside the picture, they take by name (see `common.metadata`), and it may be left
    out; chroma and tempo are heard in a waveform.
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
        self._inputs = inputs
        self._params = info.config.spectrogram
        self._class_names = info.class_names
        height, width = self._params.shape
        self.waveform = self._signature("serving_default", self._waveform, [None, None], tf.float32)
        self.wav = self._signature("wav", self._wav, [None], tf.string)
        self.spectrogram = self._signature(
            "spectrogram", self._spectrogram, [None, height, width], tf.uint8
        )
        self.examples = self._signature("examples", self._examples, [None], tf.string)

    @property
    def signatures(self) -> dict[str, Any]:
        return {
            "serving_default": self.waveform,
            "wav": self.wav,
            "spectrogram": self.spectrogram,
            "examples": self.examples,
        }

    def _signature(
        self,
        name: str,
        answer: Callable[[tf.Tensor, dict[str, tf.Tensor]], Outputs],
        shape: list[int | None],
        dtype: tf.DType,
    ) -> tf.types.experimental.PolymorphicFunction:
        """A function of the signature's own input and, by name, of those that may be left out.

        Their defaults, which TensorFlow saves as the `defaults` of the SignatureDef, have one row;
        an input of one row holds for the whole batch.
        """
        unknown = metadata.unknown(self._inputs, self._params, signature=name)
        own = SIGNATURES[name]
        specs = {own: tf.TensorSpec(shape, dtype, name=own)} | {
            key: tf.TensorSpec([None, *value.shape[1:]], tf.as_dtype(value.dtype), name=key)
            for key, value in unknown.items()
        }

        def ask(*values: tf.Tensor) -> Outputs:
            given = dict(zip(specs, values, strict=True))
            value = given.pop(own)
            batch_size = tf.shape(value)[:1]
            beside = {
                key: tf.broadcast_to(each, tf.concat([batch_size, tf.shape(each)[1:]], axis=0))
                for key, each in given.items()
            }
            return answer(value, beside)

        # What tf.function reads names and defaults from.
        parameters = [
            inspect.Parameter(
                key,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=tf.constant(unknown[key]) if key in unknown else inspect.Parameter.empty,
            )
            for key in specs
        ]
        ask.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        # AutoGraph would take seconds to rewrite what has no loop or condition over tensors.
        return tf.function(ask, input_signature=list(specs.values()), autograph=False)

    # ---- what the signatures do

    def _waveform(self, waveform: tf.Tensor, beside: dict[str, tf.Tensor]) -> Outputs:
        heard = front_end.hear(waveform, self._params, self._inputs)
        return self._spectrogram(heard.pop("spectrogram"), heard | beside)

    def _wav(self, wav: tf.Tensor, beside: dict[str, tf.Tensor]) -> Outputs:
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
        return self._waveform(tf.map_fn(window_of, wav, fn_output_signature=spec), beside)

    def _spectrogram(self, spectrogram: tf.Tensor, beside: dict[str, tf.Tensor]) -> Outputs:
        columns = {"spectrogram": spectrogram}
        columns |= {name: beside[name] for name in network.arrays_of(self._inputs)}
        if self._encoder is not None:
            columns["metadata"] = self._encoder(
                {name: beside[metadata.input_name(name)] for name in self._encoder.dtypes}
            )
        return self._answer(columns)

    def _examples(self, examples: tf.Tensor, _: dict[str, tf.Tensor]) -> Outputs:
        return self._answer(self._parse(examples))

    def _answer(self, columns: dict[str, tf.Tensor]) -> Outputs:
        logits = self._model(network.arguments_of(columns, self._model), training=False)
        probabilities = tf.nn.softmax(logits)
        names = tf.constant(self._class_names)
        return {
            "probabilities": probabilities,
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
        }


def write_candidate(
    weights: list[np.ndarray],
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
    export_dir: str,
    *,
    dataset_dir: str,
    origin: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> str:
    """Writes `<export_dir>/.candidate-<id>/`, which nothing serves before `release`.

    Args:
        weights: of the network, as `keras.Model.get_weights` gives them.
        config: of the training.
        info: of the dataset that it was trained on.
        evaluation: on the test split, None where that has no examples.
        export_dir: where the versions lie.
        dataset_dir: where the dataset lies.
        origin: what else `model_info.json` is to say of where the weights come from.
        name: of the candidate; a new one unless given.

    Returns:
        Its name, `.candidate-<id>`.
    """
    # A network outside of any strategy, so that no device of the trainer is named in the graph.
    # On the CPU, since a GPU may convolve in TensorFloat-32 and its answers are references.
    with tf.device("CPU"):
        built = network.build(config.network, info)
        model = built.model
        model.set_weights(weights)
        references = reference_answers(model, info, dataset_dir, inputs=built.inputs)
        measured = reference.measure(
            model, info, dataset_dir, inputs=built.inputs, seed=config.seed
        )
    served = ServedModel(model, info, built.inputs)
    name = name or f"{export_folder.CANDIDATE}{uuid.uuid4().hex}"
    candidate = files.join(export_dir, name)
    tf.saved_model.save(served, candidate, signatures=served.signatures)
    described = model_info(model, config, info, evaluation, inputs=built.inputs)
    if measured is not None:
        described["reference"] = dataclasses.asdict(measured)
    described |= origin or {}
    for file_name, text in (
        (export_folder.INFO_FILE, json.dumps(described, indent=2) + "\n"),
        (export_folder.CARD_FILE, model_card.text(described, info)),
        (export_folder.REFERENCES_FILE, json.dumps(references, indent=1) + "\n"),
    ):
        export_folder.write_extra(candidate, file_name, text.encode())
    requests = warmup_requests(info, built.inputs)
    warm_up = b"".join(records.frame(log.SerializeToString()) for log in requests)
    export_folder.write_extra(candidate, export_folder.WARM_UP_FILE, warm_up)
    return name


class NotVerified(Exception):
    """The run was asked to stop before a candidate was verified; it stays a candidate."""


def verify_and_release(
    candidate: str,
    export_dir: str,
    dataset_dir: str,
    *,
    release: bool = True,
    stop_asked: Callable[[], bool] = lambda: False,
) -> str:
    """Has serving.verify release a candidate as the next version `<export_dir>/<version>/`.

    Without `release` one that passes stays a candidate.

    Returns:
        The path of the version, or of the candidate.

    Raises:
        UserFacingError: it did not pass; it lies beside the versions, and the message says where.
        NotVerified: `stop_asked` said so meanwhile.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "serving.verify",
            f"--candidate={candidate}",
            f"--export_dir={export_dir}",
            f"--dataset_dir={dataset_dir}",
            f"--release={release}",
        ],
        # What trains may hold all of the GPUs' memory.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Else it might release what whoever goes on after a kill releases too.
        preexec_fn=end_with_parent,
    )
    output, errors = _printed_by(process, stop_asked)
    print(output, end="", flush=True)
    if process.returncode:
        problem = (errors.strip() or f"exit code {process.returncode}").splitlines()[-1]
        path = files.join(export_dir, candidate)
        if files.has_files(path):  # it was killed, or a graph brought its process down
            problem = f"serving.verify ended with {process.returncode}: {problem}"
            export_folder.write_report(path, {"passed": False, "problem": problem})
            problem += f"; set aside: {export_folder.refuse(export_dir, candidate)}"
        raise UserFacingError(f"the export is not released: {problem}")
    return output.splitlines()[-1].removeprefix("passed: ")


def _printed_by(
    process: "subprocess.Popen[str]", stop_asked: Callable[[], bool]
) -> tuple[str, str]:
    """Returns stdout and stderr of a process when it ends; NotVerified if it was killed before."""
    with process:
        try:
            while True:
                try:
                    return process.communicate(timeout=_SECONDS_BETWEEN_LOOKS)
                except subprocess.TimeoutExpired:
                    if stop_asked():
                        raise NotVerified from None
        finally:
            process.kill()


def reference_answers(
    model: keras.Model, info: DatasetInfo, dataset_dir: str, *, inputs: Inputs
) -> dict[str, list[float]]:
    """Predicts the first records of each split.

    Returns:
        probabilities by the SHA-256 of a picture, of the picture alone; and where the network takes
        more, by the SHA-256 of the serialized record, of all that is in it.
    """
    answers: dict[str, list[float]] = {}

    def add(keys: list[bytes], columns: dict[str, tf.Tensor]) -> None:
        logits = model(network.arguments_of(columns, model), training=False)
        for key, values in zip(keys, tf.nn.softmax(logits).numpy(), strict=True):
            answers[hashlib.sha256(key).hexdigest()] = [float(value) for value in values]

    beside = reader.Beside(
        encoder=input_encoder.encoder_of(inputs, info), arrays=network.arrays_of(inputs)
    )
    parse = reader.parser(info, names=(), beside=beside)
    for split in info.splits.values():
        if not split.num_examples:
            continue
        paths = [files.join(dataset_dir, shard.file) for shard in split.shards]
        serialized = list(tf.data.TFRecordDataset(paths).take(_REFERENCES))
        columns = parse(serialized)
        pictures = {"spectrogram": columns["spectrogram"]}
        add(
            [picture.tobytes() for picture in pictures["spectrogram"].numpy()],
            network.with_unknown(pictures, model),
        )
        if inputs != Inputs():
            add([record.numpy() for record in serialized], columns)
    return answers


def warmup_requests(info: DatasetInfo, inputs: Inputs) -> list[prediction_log_pb2.PredictionLog]:
    """Makes the warm-up requests of TensorFlow Serving: every signature, every batch size.

    All hold the same faint noise. In the larger batches its waveform is cut short, since the graph
    pads it and runs through the same shapes. What else the network takes is said to be unknown for
    each row, except where a single row leaves it out: TensorFlow Serving puts the default in as it
    is, and does not batch inputs of different lengths.
    """
    params = info.config.spectrogram
    noise = np.random.default_rng(0).normal(0, 0.1, params.num_samples).astype(np.float32)
    picture = audio_features.of_window(noise, params, Inputs())["spectrogram"]
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
            if size > 1:
                unknown = metadata.unknown(inputs, params, signature=signature)
                for name, row in unknown.items():
                    rows = np.repeat(row, size, axis=0)
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(rows))
            logs.append(log)
    return logs


def model_info(
    model: keras.Model,
    config: TrainConfig,
    info: DatasetInfo,
    evaluation: dict[str, Any] | None,
    *,
    inputs: Inputs,
) -> dict[str, Any]:
    """Returns the contents of model_info.json: what serving the model needs."""
    known = {} if info.statistics is None else info.statistics.categories
    return {
        "class_names": list(info.class_names),
        "thresholds": list(info.thresholds),
        "signal": dataclasses.asdict(info.config.spectrogram),
        "min_seconds": info.config.min_seconds,
        "silence_dbfs": info.config.silence_dbfs,
        "dataset_fingerprint": info.fingerprint,
        **({"dataset_generations": list(info.generations)} if info.generations else {}),
        "inputs": inputs.to_dict(),
        "vocabularies": {
            name: list(known[name][: input_encoder.MAX_VALUES]) for name in inputs.categories
        },
        "training": config.to_dict(),
        # What a warm start reads, beside the SavedModel's variables, which have numbers for names.
        "variables": [variable.path for variable in model.variables],
        "encoding": network.encoding_of(config.network, info),
        "num_parameters": model.count_params(),
        "evaluation": evaluation,
    }
