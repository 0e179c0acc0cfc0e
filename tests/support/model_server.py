"""A server that speaks TensorFlow Serving's gRPC and REST and runs an exported model.

Where `tensorflow_model_server` is on the PATH, `serve` starts that instead, so that the same tests
run against it.
"""

import base64
import collections
import concurrent.futures
import contextlib
import functools
import http.server
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from common import export_folder
from tests.support.paths import ROOT

BINARY = shutil.which("tensorflow_model_server")
BATCHING = (ROOT / "serving" / "tf_serving" / "batching.config").read_text()
MAX_BATCH = int(re.search(r"max_batch_size { value: (\d+) }", BATCHING)[1])


class Server(NamedTuple):
    """The addresses of a server."""

    grpc: str
    rest: str


class ShapesDifferError(Exception):
    """Requests that came at once do not fit into one batch."""


class Model:
    """What is served: the versions of an export folder, and a fault to play.

    Attributes:
        unavailable: so many of the next requests are answered with UNAVAILABLE.
        delay_seconds: before each answer.
        num_requests: that came, refused ones included.
        answered: the version behind each answer.
    """

    def __init__(self, export_dir: pathlib.Path, labels: dict[str, int] | None = None):
        self._export_dir = export_dir
        self._labels = labels or {}
        self._loaded = {}
        self.unavailable = 0
        self.delay_seconds = 0.0
        self.num_requests = 0
        self.answered = []
        self._shapes = collections.Counter()  # of the requests that are here now

    def predict(self, version: str | None, signature: str, inputs: dict) -> tuple[dict, int]:
        """Outputs by name, and the version.

        Raises:
            LookupError: there is no such version or signature.
            ConnectionError: as `unavailable` demands.
            ValueError: the inputs do not fit.
            ShapesDifferError: they do not fit into a batch with another request's.
        """
        self.num_requests += 1
        with self._beside_others(signature, inputs):
            time.sleep(self.delay_seconds)
        if self.unavailable:
            self.unavailable -= 1
            raise ConnectionError("Servable not ready")
        number = self.version(version)
        if number not in self._loaded:
            path = self._export_dir / str(number)
            self._loaded[number] = tf.saved_model.load(str(path))
        signatures = self._loaded[number].signatures
        if signature not in signatures:
            raise LookupError(f"Serving signature name: {signature!r} not found")
        function = signatures[signature]
        specs = function.structured_input_signature[1]
        try:
            # As TensorFlow Serving: a default goes in as it is, whatever the batch's size.
            inputs = {**self._defaults(number, signature), **inputs}
            tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
            (size,) = {len(tensor) for tensor in tensors.values()}
            if size > MAX_BATCH:
                raise ValueError(
                    f"Task size {size} is larger than maximum input batch size {MAX_BATCH}"
                )
            outputs = function(**tensors)
        except (KeyError, TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(str(error)[:500]) from None
        self.answered.append(number)
        return {name: value.numpy() for name, value in outputs.items()}, number

    @functools.lru_cache(maxsize=64)  # noqa: B019 (a server lives as long as its test)
    def _defaults(self, number: int, signature: str) -> dict:
        """{input: value} of the SignatureDef."""
        data = (self._export_dir / str(number) / "saved_model.pb").read_bytes()
        (graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
        defaults = graph.signature_def[signature].defaults
        return {name: tf.make_ndarray(value) for name, value in defaults.items()}

    @contextlib.contextmanager
    def _beside_others(self, signature: str, inputs: dict) -> Iterator[None]:
        """Holds a place in a batch, which TensorFlow Serving fills with one shape alone."""
        shape = (signature, *(np.shape(value)[1:] for value in inputs.values()))
        self._shapes[shape] += 1
        try:
            there = {other for other, count in self._shapes.items() if count}
            yield
            there |= {other for other, count in self._shapes.items() if count}
        finally:
            self._shapes[shape] -= 1
        if any(other[0] == signature for other in there - {shape}):
            raise ShapesDifferError(
                f"Tensors with name '{signature}' from different tasks have different shapes and "
                "padding is turned off. Set pad_variable_length_inputs to true"
            )

    def version(self, asked: str | None) -> int:
        there = export_folder.versions(str(self._export_dir))
        if asked and not asked.isdecimal():
            if asked not in self._labels:
                raise LookupError(f"Unrecognized servable version label: {asked}")
            return self._labels[asked]
        number = int(asked) if asked else there[-1]
        if number not in there:
            raise LookupError(f"Servable not found for request: Specific(popularity, {number})")
        return number


class _Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: Model):
        self._model = model

    def Predict(self, request, context):
        spec = request.model_spec
        if spec.name != "popularity":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name}")
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        version = str(spec.version.value) if spec.HasField("version") else spec.version_label
        try:
            outputs, number = self._model.predict(
                version, spec.signature_name or "serving_default", inputs
            )
        except ConnectionError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except ShapesDifferError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = number
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelMetadata(self, request, context):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = self._model.version(None)
        return response


def _rest_handler(model: Model):
    route = re.compile(r"/v1/models/popularity(?:/(?:versions|labels)/([\w-]+))?(:predict)?")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _send(self, status, values):
            data = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            if not route.fullmatch(self.path):
                return self._send(404, {"error": "Not Found"})
            status = {"version": str(model.version(None)), "state": "AVAILABLE"}
            self._send(200, {"model_version_status": [status]})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = route.fullmatch(self.path)
            if not found or not found[2]:
                return self._send(404, {"error": f"Malformed request: POST {self.path}"})
            values = json.loads(body, object_hook=_bytes_of_base64)
            by_row = "instances" in values
            inputs = _columns(values["instances"]) if by_row else values["inputs"]
            try:
                outputs, _ = model.predict(
                    found[1], values.get("signature_name", "serving_default"), inputs
                )
            except ConnectionError as error:
                return self._send(503, {"error": str(error)})
            except ShapesDifferError as error:
                return self._send(412, {"error": str(error)})
            except LookupError as error:
                return self._send(404, {"error": str(error)})
            except ValueError as error:
                return self._send(400, {"error": str(error)})
            outputs = {name: _plain(value) for name, value in outputs.items()}
            if not by_row:
                return self._send(200, {"outputs": outputs})
            rows = zip(*outputs.values(), strict=True)
            self._send(200, {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]})

    return Handler


def _bytes_of_base64(value: dict):
    return base64.b64decode(value["b64"]) if value.keys() == {"b64"} else value


def _columns(instances: list[dict]) -> dict[str, list]:
    return {name: [instance[name] for instance in instances] for name in instances[0]}


def _plain(value: np.ndarray) -> list:
    return [label.decode() for label in value] if value.dtype == object else value.tolist()


@contextlib.contextmanager
def serve_in_process(model: Model, *, grpc_port: int = 0) -> Iterator[Server]:
    """Serves a model from threads of this process, on free ports."""
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Servicer(model), server)
    port = server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _rest_handler(model))
    thread = threading.Thread(target=rest.serve_forever, daemon=True)
    thread.start()
    try:
        yield Server(f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{rest.server_address[1]}")
    finally:
        rest.shutdown()
        rest.server_close()
        server.stop(None).wait()


@contextlib.contextmanager
def serve_binary(export_dir: pathlib.Path, folder: pathlib.Path) -> Iterator[Server]:
    """Runs `tensorflow_model_server` on an export folder, with both labels on version 1."""
    config = folder / "models.config"
    config.write_text(
        'model_config_list { config { name: "popularity" model_platform: "tensorflow" '
        f'base_path: "{export_dir.resolve()}" '
        'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 1 } } }'
    )
    ports = [free_port(), free_port()]
    process = subprocess.Popen(
        [
            BINARY,
            f"--model_config_file={config}",
            f"--port={ports[0]}",
            f"--rest_api_port={ports[1]}",
            "--enable_batching=true",
            f"--batching_parameters_file={ROOT}/serving/tf_serving/batching.config",
            "--allow_version_labels_for_unavailable_models=true",
        ]
    )
    server = Server(f"grpc://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                status = urllib.request.urlopen(f"{server.rest}/v1/models/popularity").read()
                if b"AVAILABLE" in status:
                    break
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
