"""The checks before an export is released: its answers against each other and the job's.

Each check asks the same in two ways and gives the largest difference of the probabilities.
"""

import hashlib
import io
import math
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from common import audio_features, clips, metadata
from common.errors import one_line
from common.records import decode_example
from common.signatures import SIGNATURES
from serving.model.exported_model import ExportedModel

LIMIT = 1e-3

_BATCH = 16


class Record(NamedTuple):
    """A record of the dataset: its track, its picture uint8 [height, width], its bytes."""

    track_id: int
    picture: np.ndarray
    serialized: bytes


class Check(NamedTuple):
    """A line of the table: `difference` is inf where a request failed, and `note` says how."""

    name: str
    compared: int
    difference: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= LIMIT  # NaN is no pass


class Verifier:
    """Asks a model, and counts the answers that are no distribution or have the wrong label."""

    def __init__(self, model: ExportedModel):
        self._model = model
        self._params = model.info.signal
        self._inputs = model.info.inputs
        self._num_answers = 0
        self._worst_sum = 0.0
        self._wrong_labels = 0

    def ask(
        self,
        signature: str,
        values: Sequence[Any] | np.ndarray,
        beside: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Probabilities float32 [batch, classes] by a signature, in batches.

        Args:
            signature: its name.
            values: [batch, …] of its own input.
            beside: the same of its others, unknown unless given; what it does not take is left out.
        """
        inputs = {SIGNATURES[signature]: values}
        for name in metadata.unknown(self._inputs, self._params, signature=signature):
            if beside and name in beside:
                inputs[name] = beside[name]
        parts = [
            self._ask(
                signature,
                {name: value[start : start + _BATCH] for name, value in inputs.items()},
            )
            for start in range(0, len(values), _BATCH)
        ]
        return np.concatenate(parts)

    def _ask(self, signature: str, inputs: dict[str, Any]) -> np.ndarray:
        answer = self._model.ask(signature, inputs)
        probabilities: np.ndarray = answer["probabilities"].numpy()
        off = np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1)
        off[(probabilities < 0).any(axis=1)] = np.inf
        names = np.array(self._model.info.class_names)[probabilities.argmax(axis=1)]
        labels = [label.decode() for label in answer["label"].numpy()]
        self._num_answers += len(probabilities)
        self._worst_sum = float(np.maximum(self._worst_sum, off.max()))
        self._wrong_labels += int(np.sum(names != np.array(labels)))
        return probabilities

    def _of_records(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """{named input: array [records, …]} of what they carry beside their pictures."""
        rows = [
            metadata.of_record(decode_example(record.serialized), self._inputs, self._params)
            for record in records
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _heard(self, windows: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """{`spectrogram`, and `chroma` and `tempo` where it takes them: array [windows, …]}."""
        heard = [audio_features.of_window(window, self._params, self._inputs) for window in windows]
        return {name: np.stack([each[name] for each in heard]) for name in heard[0]}

    def _ask_heard(
        self, heard: dict[str, np.ndarray], beside: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return self.ask("spectrogram", heard["spectrogram"], {**(beside or {}), **heard})

    # ---- what is compared

    def references(self, records: list[Record], references: dict[str, list[float]]) -> Check:
        """The answers about records with those that the network gave when it was exported.

        Args:
            records: of the dataset.
            references: probabilities by the SHA-256 of a picture, of this alone; and, where the
                model takes more, by the SHA-256 of a record, of all that is in it.
        """
        answers, expected = [], []
        of_signature: dict[str, list[Any]] = {
            "spectrogram": [record.picture for record in records],
            "examples": [record.serialized for record in records],
        }
        for signature, values in of_signature.items():
            keys = [
                hashlib.sha256(v if isinstance(v, bytes) else v.tobytes()).hexdigest()
                for v in values
            ]
            known = [value for value, key in zip(values, keys, strict=True) if key in references]
            if known:
                batch = known if signature == "examples" else np.stack(known)
                answers += list(self.ask(signature, batch))
                expected += [references[key] for key in keys if key in references]
        return check("records: as the network before its export", answers, expected)

    def examples(self, records: list[Record]) -> Check:
        """tf.Examples with the pictures and all else that they hold."""
        answers = self.ask("examples", [record.serialized for record in records])
        pictures = np.stack([record.picture for record in records])
        expected = self.ask("spectrogram", pictures, self._of_records(records))
        return check("records: tf.Example and spectrogram", answers, expected)

    def songs(self, pairs: list[tuple[np.ndarray, Record]], *, made_by: str) -> Check:
        """Compares windows of songs with the records that the job made of them.

        Args:
            pairs: float32 [num_samples] and its record.
            made_by: `graph`, the front end in the export; or `job`, the one of the dataset job.
        """
        records = [record for _, record in pairs]
        beside = self._of_records(records)
        if made_by == "graph":
            windows = np.stack([window for window, _ in pairs])
            answers = self.ask("serving_default", windows, beside)
        else:
            answers = self._ask_heard(self._heard(window for window, _ in pairs), beside)
        expected = self.ask("spectrogram", np.stack([r.picture for r in records]), beside)
        names = {"graph": "songs: waveform and record", "job": "songs: picture of now and record"}
        return check(names[made_by], answers, expected)

    def wavs(self, windows: list[np.ndarray], *, stereo: bool) -> Check:
        """Compares WAV files with the same 16-bit samples as waveforms."""
        rounded = [np.rint(np.clip(window, -1, 1) * 32_767) for window in windows]
        channels = [
            np.stack([left, right] if stereo else [left], axis=1).astype(np.int16)
            for left, right in zip(rounded, rounded[1:] + rounded[:1], strict=True)
        ]
        answers = self.ask("wav", [wav(c, self._params.sample_rate) for c in channels])
        waveforms = np.stack([c.mean(axis=1, dtype=np.float32) / 32_768 for c in channels])
        expected = self.ask("serving_default", waveforms)
        return check(f"WAV {'stereo' if stereo else 'mono'} and waveform", answers, expected)

    def batches(self, windows: list[np.ndarray], records: list[Record]) -> Check:
        """Compares a batch with its single items, by every signature; WAVs of several lengths."""
        files = [
            wav(np.rint(np.clip(w[: len(w) - 999 * i], -1, 1) * 32_767).astype(np.int16)[:, None],
                self._params.sample_rate)
            for i, w in enumerate(windows)
        ]  # fmt: skip
        values: dict[str, Sequence[Any] | np.ndarray] = {
            "serving_default": np.stack(windows),
            "wav": files,
            "spectrogram": np.stack([record.picture for record in records[:_BATCH]]),
            "examples": [record.serialized for record in records[:_BATCH]],
        }
        together = [self.ask(signature, batch) for signature, batch in values.items()]
        single = [
            self.ask(signature, batch[place : place + 1])
            for signature, batch in values.items()
            for place in range(len(batch))
        ]
        return check("batch and single", np.concatenate(together), np.concatenate(single))

    def lengths(self) -> Check:
        """Compares noise of odd lengths with the pictures that the job would make of it."""
        full, hop = self._params.num_samples, self._params.hop
        random = np.random.default_rng(0)
        lengths = [1, 2, hop - 1, hop + 1, 99_991, full - 1, full, full + 1, 2 * full + 17]
        noise = [random.normal(0, 0.1, length).astype(np.float32) for length in lengths]
        return self._waveforms_as_the_job("odd lengths: waveform and the job's picture", noise)

    def silence(self) -> Check:
        """Compares silence with the picture that the job would make of it."""
        zeros = [np.zeros(length, np.float32) for length in (1, self._params.num_samples)]
        return self._waveforms_as_the_job("silence: waveform and the job's picture", zeros)

    def _waveforms_as_the_job(self, name: str, waveforms: list[np.ndarray]) -> Check:
        answers = [self.ask("serving_default", waveform[np.newaxis]) for waveform in waveforms]
        windows = (
            window
            for waveform in waveforms
            for window in clips.even_windows(waveform, num_samples=self._params.num_samples)
        )
        return check(name, np.concatenate(answers), self._ask_heard(self._heard(windows)))

    def warm_up_file(self) -> Check:
        """Sends the warm-up requests; every signature has one, and its items are all the same."""
        asked, count, difference = set(), 0, 0.0
        for signature, inputs in self._model.warm_up_requests():
            answers = self._ask(signature, inputs)
            asked.add(signature)
            count += 1
            # np.maximum, since max() of a number and NaN may be the number.
            difference = float(np.maximum(difference, np.ptp(answers, axis=0).max()))
        missing = SIGNATURES.keys() - asked
        if missing:
            return Check("warm-up requests", count, math.inf, f"none for {', '.join(missing)}")
        return Check("warm-up requests", count, difference)

    def stock_ops(self) -> Check:
        """Compares the ops of the graph with those of stock TensorFlow."""
        foreign, count = foreign_ops(self._model.path)
        difference, note = (math.inf, ", ".join(sorted(foreign))) if foreign else (0.0, "")
        return Check("ops: all of stock TensorFlow", count, difference, note)

    def distributions(self) -> Check:
        """Checks of all answers so far that probabilities add up to 1."""
        return Check("every answer adds up to 1", self._num_answers, self._worst_sum)

    def labels(self) -> Check:
        """Checks of all answers so far that the label is the likeliest class."""
        wrong = self._wrong_labels
        difference, note = (math.inf, f"{wrong} are not") if wrong else (0.0, "")
        return Check("every label is the likeliest class", self._num_answers, difference, note)


def check(name: str, answers: npt.ArrayLike, expected: npt.ArrayLike) -> Check:
    """Compares answers [batch, classes] with what they should be."""
    answers, expected = np.asarray(answers, np.float64), np.asarray(expected, np.float64)
    return Check(name, len(answers), float(np.abs(answers - expected).max()))


def guarded(name: str, ask: Callable[[], Check]) -> Check:
    """Makes a check; one that raises becomes a failed line of the table."""
    try:
        return ask()
    except Exception as error:  # whatever a damaged graph raises is what is wrong with it
        message = one_line(error, at_most=200)
        return Check(name, 0, math.inf, f"{type(error).__name__}: {message}")


def foreign_ops(version_dir: str) -> tuple[set[str], int]:
    """Finds the ops of a SavedModel that TensorFlow Serving lacks, and counts all ops."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    from common import files

    data = files.read_bytes(files.join(version_dir, "saved_model.pb"))
    (graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    ops = {node.op for node in nodes} - {function.signature.name for function in functions}
    foreign = {
        op
        for op in ops
        if op_def_registry.get(op) is None or op.startswith(("IO>", "PyFunc", "EagerPyFunc"))
    }
    return foreign, len(ops)


def wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encodes int16 [samples, channels] as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
