r"""Asks TensorFlow Serving about songs, by gRPC or REST.

    info = export_folder.load_info("export/1")
    with Client("grpc://localhost:8500", info) as client:
        for answer in client.predict_files(["song.mp3", "other.flac"]):
            print(answer.path, answer.label, answer.probabilities, answer.error)

A song is decoded and turned into its picture here, as the dataset job does it: 16 KB for the
server instead of 2.6 MB of waveform.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np

from common import command, metadata, rejection, tensorflow_environment
from common.errors import UserFacingError, require
from common.model_info import ModelInfo
from common.signatures import MAX_BATCH
from serving.model import song
from serving.model.predictions import Predictions

MODEL_NAME = "popularity"

Decoded = TypeVar("Decoded")

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 2.0
_SIGNATURE = "spectrogram"
# Bytes; an answer about MAX_BATCH pictures is a few KB.
_LONGEST_ANSWER = 1 << 20


class ServerError(UserFacingError):
    """The server did not answer; the message says what to do.

    `is_busy` if it may answer the same question later.
    """

    def __init__(self, message: str, *, is_busy: bool = False):
        super().__init__(message)
        self.is_busy = is_busy


class OtherModelError(ServerError):
    """The server answers for another model than `model_info.json` describes."""


class FilePrediction(NamedTuple):
    """The prediction for a file: its label and each class's probability, or else what is wrong."""

    path: str
    label: str | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None


class Client:
    """A connection to a TensorFlow Serving server.

    Args:
        target: `grpc://host:port` or `http://host:port` (REST; https too). By gRPC, all addresses
            that DNS has for the host share the requests.
        info: of the model; the `model_info.json` of any version that hears alike.
        model_name: as the server's config has it.
        version: a number (digits too) or a label (`stable`, `canary`) of the server's config;
            without it the server takes the newest.
        deadline_seconds: of a `predict`, all its requests and attempts included.
        attempts: how often a request is sent to a server that is unavailable, with pauses of
            0.1 s, 0.2 s, 0.4 s and so on between.
    """

    def __init__(
        self,
        target: str,
        info: ModelInfo,
        *,
        model_name: str = MODEL_NAME,
        version: int | str | None = None,
        deadline_seconds: float = 10.0,
        attempts: int = 5,
    ):
        scheme, _, address = target.partition("://")
        require(
            scheme in ("grpc", "http", "https") and bool(address),
            f"{target}: no server's address; it is grpc://host:8500 or http://host:8501",
        )
        if isinstance(version, str) and version.isdecimal():
            version = int(version)
        self.info = info
        self._target = target
        self._deadline_seconds = deadline_seconds
        self._attempts = attempts
        transport = _Grpc if scheme == "grpc" else _Rest
        self._transport = transport(target, model_name=model_name, version=version)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def predict(
        self, pictures: np.ndarray, beside: Mapping[str, np.ndarray] | None = None
    ) -> Predictions:
        """Predicts for pictures uint8 [batch, height, width], MAX_BATCH in a request.

        Args:
            pictures: to ask about.
            beside: further named inputs [batch, …] of the model, see `common.metadata.columns`;
                what is not given is unknown.

        Raises:
            UserFacingError: there are no pictures.
            ServerError: there is no answer before the deadline, or it is an error.
        """
        require(len(pictures) > 0, "no pictures to ask about")
        end = time.monotonic() + self._deadline_seconds
        inputs = {_SIGNATURE: pictures} | metadata.completed(
            beside or {}, self.info.inputs, self.info.signal, size=len(pictures)
        )
        parts = [
            self._ask({name: rows[start : start + MAX_BATCH] for name, rows in inputs.items()}, end)
            for start in range(0, len(pictures), MAX_BATCH)
        ]
        return Predictions(
            np.concatenate([part.probabilities for part in parts]), parts[-1].version
        )

    def _ask(self, inputs: dict[str, np.ndarray], end: float) -> Predictions:
        """Sends one request, again while there is no server, until the clock shows `end`."""
        for attempt in itertools.count(1):
            try:
                predictions = self._transport.predict(inputs, timeout=end - time.monotonic())
                break
            except _Unavailable as error:
                pause = min(_FIRST_BACKOFF * 2 ** (attempt - 1), _LONGEST_BACKOFF)
                if attempt == self._attempts or time.monotonic() + pause >= end:
                    raise ServerError(f"{error} (tried {attempt} times)", is_busy=True) from None
                time.sleep(pause)
        shape = (len(inputs[_SIGNATURE]), len(self.info.class_names))
        if predictions.probabilities.shape != shape:
            raise OtherModelError(
                f"{self._target}: no probabilities of {shape[1]} classes about each picture; is "
                "model_info.json that of the model it serves?"
            )
        return predictions

    def predict_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        told: Mapping[str, metadata.Metadata] | None = None,
        batch_size: int = 16,
    ) -> Iterator[FilePrediction]:
        """Predicts for each file (mp3, wav, flac or ogg), in order; a bad file stops no other.

        Files are decoded on all cores and sent `batch_size` at a time.

        Args:
            paths: of the files.
            told: {path: what is known of the track} where something is.
            batch_size: files in a request.

        Raises:
            UserFacingError: `batch_size` is less than 1.
            ServerError: as `predict` does.
        """
        require(batch_size >= 1, f"batch_size is {batch_size}; it is at least 1")
        remaining: Iterator[str] = (os.fspath(path) for path in paths)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(itertools.islice(remaining, batch_size)):
                decoded = list(pool.map(self._hear, batch))
                good = {
                    place: heard
                    for place, heard in enumerate(decoded)
                    if not isinstance(heard, str)
                }
                rows: Iterator[np.ndarray] = iter(())
                if good:
                    heard = song.stacked(list(good.values()))
                    known = [(told or {}).get(batch[place], {}) for place in good]
                    beside = heard | metadata.columns(known, self.info.inputs)
                    rows = iter(self.predict(beside.pop(_SIGNATURE), beside).probabilities)
                for path, result in zip(batch, decoded, strict=True):
                    if isinstance(result, str):
                        yield FilePrediction(path, error=result)
                    else:
                        yield file_prediction(path, next(rows), self.info)

    def _hear(self, path: str) -> dict[str, np.ndarray] | str:
        return decode_file(path, lambda data: song.hear_middle(data, self.info))


def decode_file(path: str, decode: Callable[[bytes], Decoded]) -> Decoded | str:
    """Returns what `decode` makes of the bytes of a file, or what is wrong with the file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a path that can't be one
        return getattr(error, "strerror", None) or str(error)
    try:
        return decode(data)
    except rejection.ClipError as error:
        return f"{error.reason}: {error}"


def file_prediction(path: str, probabilities: np.ndarray, info: ModelInfo) -> FilePrediction:
    """Names the probabilities [classes] of a file."""
    named = {
        name: float(value) for name, value in zip(info.class_names, probabilities, strict=True)
    }
    return FilePrediction(path, info.class_names[int(probabilities.argmax())], named)


class _Unavailable(Exception):
    """No server, or one that can't answer now."""


def _no_server(target: str, problem: str) -> str:
    return (
        f"{target}: no answer ({problem}); is tensorflow_model_server running there? "
        "Its --port is gRPC's, its --rest_api_port REST's"
    )


class _Grpc:
    """TensorFlow Serving's PredictionService."""

    def __init__(self, target: str, *, model_name: str, version: int | str | None):
        # The protos import TensorFlow.
        with command.kept_back_stderr(), tensorflow_environment.without_scikit_learn():
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        self._tf, self._predict_pb2 = tf, predict_pb2
        self._target, self._model_name, self._version = target, model_name, version
        options = [
            # Of the addresses that a name has each takes its turn; by default the first takes all.
            ("grpc.lb_policy_name", "round_robin"),
            # Not longer than this client's own pauses.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(target.removeprefix("grpc://"), options=options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, inputs: dict[str, np.ndarray], *, timeout: float) -> Predictions:
        request = self._predict_pb2.PredictRequest()
        spec = request.model_spec
        spec.name, spec.signature_name = self._model_name, _SIGNATURE
        if isinstance(self._version, int):
            spec.version.value = self._version
        elif self._version:
            spec.version_label = self._version
        for name, rows in inputs.items():
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(rows))
        try:
            response = self._stub.Predict(request, timeout=max(timeout, 1e-3))
        except grpc.RpcError as error:
            raise self._as_ours(error) from None
        try:
            probabilities = self._tf.make_ndarray(response.outputs["probabilities"])
            probabilities = probabilities.astype(np.float32)
        except (TypeError, ValueError):  # there are none, or they are no numbers
            probabilities = np.empty(0)
        return Predictions(probabilities, str(response.model_spec.version.value))

    def _as_ours(self, error: grpc.RpcError) -> Exception:
        code, details = error.code(), " ".join((error.details() or "").split())[:300]
        if code is grpc.StatusCode.UNAVAILABLE:
            return _Unavailable(_no_server(self._target, details))
        advice = {
            grpc.StatusCode.DEADLINE_EXCEEDED: "it is too slow or too busy; ask for less at once "
            "or give it more deadline_seconds",
            grpc.StatusCode.RESOURCE_EXHAUSTED: "it is too busy; ask again later",
            grpc.StatusCode.NOT_FOUND: "its config names the models, versions and labels there are",
            grpc.StatusCode.UNIMPLEMENTED: "is this TensorFlow Serving's gRPC port?",
            grpc.StatusCode.INVALID_ARGUMENT: "is model_info.json that of the model it serves?",
        }.get(code, "see the server's log")
        busy = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        message = f"{self._target}: {code.name} ({details}); {advice}"
        return ServerError(message, is_busy=code in busy)

    def close(self) -> None:
        self._channel.close()


class _Rest:
    """TensorFlow Serving's REST API."""

    def __init__(self, target: str, *, model_name: str, version: int | str | None):
        self._target = target.rstrip("/")
        which = ""
        if version:
            which = f"/{'versions' if isinstance(version, int) else 'labels'}/{version}"
        try:
            url = urllib.parse.urlsplit(self._target)
            self._host, self._port = url.hostname or "", url.port
        except ValueError as error:
            raise UserFacingError(f"{target}: no server's address ({error})") from None
        self._path = f"{url.path}/v1/models/{model_name}{which}:predict"
        secure = url.scheme == "https"
        self._connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._version = version if isinstance(version, int) else None

    def predict(self, inputs: dict[str, np.ndarray], *, timeout: float) -> Predictions:
        values: dict[str, Any] = {"signature_name": _SIGNATURE, "inputs": {}}
        for name, rows in inputs.items():
            rows = np.char.decode(rows.astype(bytes)) if rows.dtype == object else rows
            values["inputs"][name] = rows.tolist()
        end = time.monotonic() + max(timeout, 1e-3)
        try:
            status, data = self._post(json.dumps(values).encode(), end)
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            if time.monotonic() < end:
                raise _Unavailable(_no_server(self._target, type(error).__name__)) from None
            raise ServerError(
                f"{self._target}: no answer before the deadline; it is too slow or too busy; ask "
                "for less at once or give it more deadline_seconds",
                is_busy=True,
            ) from None
        if status == 503:
            raise _Unavailable(_no_server(self._target, "HTTP 503"))
        try:
            values = json.loads(data)
            if status == 200:
                probabilities = np.array(values["outputs"]["probabilities"], np.float32)
                return Predictions(probabilities, str(self._version) if self._version else None)
            problem = values["error"]
        except (ValueError, KeyError, TypeError):
            problem = "not what TensorFlow Serving says; is this its REST port?"
        advice = ""
        if status == 404:
            advice = "; its config names the models, versions and labels there are"
        message = f"{self._target}: HTTP {status} ({' '.join(str(problem).split())[:300]})"
        raise ServerError(message + advice, is_busy=status in (429, 504))

    def _post(self, body: bytes, end: float) -> tuple[int, bytes]:
        """Status and body of the answer; OSError and the like where there is none by `end`.

        A timeout of sockets holds for each read, and a server that sends a byte now and then would
        never meet it. So the connection is cut at the end, whatever it is at.
        """
        timeout = max(end - time.monotonic(), 1e-3)
        connection = self._connection(self._host, self._port, timeout=timeout)
        with contextlib.closing(connection):
            connection.connect()
            cut = threading.Timer(end - time.monotonic(), _cut, [connection.sock])
            cut.start()
            try:
                connection.request("POST", self._path, body, {"Content-Type": "application/json"})
                with connection.getresponse() as response:
                    data = response.read(_LONGEST_ANSWER)
                    if response.length and len(data) < _LONGEST_ANSWER:
                        raise http.client.IncompleteRead(data)
            finally:
                cut.cancel()
        if time.monotonic() >= end:
            raise TimeoutError
        return response.status, data

    def close(self) -> None:
        """Nothing is open between two requests."""


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has just been closed
        sock.shutdown(socket.SHUT_RDWR)
