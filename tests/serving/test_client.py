"""The client over real sockets, against a server that runs the exported model.

Where `tensorflow_model_server` is on the PATH, what does not need a planted fault runs against it
too.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import http.server
import itertools
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import grpc
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from common import clips, export_folder
from common.errors import UserFacingError
from serving import predict
from serving.client import Client, ServerError
from serving.model import song, verification
from tests.support import model_server
from tests.support.commands import assert_refused, run_module
from tests.support.paths import ROOT
from tests.support.running_app import running_app

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def model(model_dir):
    return model_server.Model(model_dir / "export", {"stable": 1, "canary": 1})


@pytest.fixture(scope="module")
def ours(model):
    with model_server.serve_in_process(model) as server:
        yield server


@pytest.fixture(scope="module", params=["ours", "tensorflow_model_server"])
def server(request, model_dir, tmp_path_factory):
    if request.param == "ours":
        return request.getfixturevalue("ours")
    if model_server.BINARY is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    folder = tmp_path_factory.mktemp("tf_serving")
    with contextlib.ExitStack() as stack:
        binary = stack.enter_context(model_server.serve_binary(model_dir / "export", folder))
        request.addfinalizer(stack.pop_all().close)
        return binary


@pytest.fixture(params=["grpc", "rest"])
def client(request, server, exported):
    with Client(getattr(server, request.param), exported.info) as client:
        yield client


def songs(library, count):
    paths = [path for path in library.audio_dir.rglob("*.mp3") if path.stat().st_size > 150_000]
    return sorted(paths)[:count]


def test_many_files_are_answered_as_in_process(client, exported, library, tmp_path):
    mp3s = songs(library, 5)
    samples, rate = soundfile.read(mp3s[0], dtype="float32")
    for kind in ("wav", "flac", "ogg"):
        soundfile.write(tmp_path / f"song.{kind}", samples, rate)
    (tmp_path / "text.mp3").write_text("no music")
    paths = [*mp3s, tmp_path / "text.mp3", tmp_path / "none.mp3", "nul\0.mp3",
             *(tmp_path / f"song.{kind}" for kind in ("wav", "flac", "ogg"))]  # fmt: skip
    answers = list(client.predict_files(paths, batch_size=4))
    assert [answer.path for answer in answers] == [str(path) for path in paths]
    for answer in answers:
        if answer.path.endswith("text.mp3"):
            assert answer.error.startswith("undecodable") and answer.label is None
        elif answer.path.endswith("none.mp3"):
            assert answer.error == "No such file or directory"
        elif answer.path == "nul\0.mp3":
            assert answer.error == "embedded null byte"
        else:
            data = pathlib.Path(answer.path).read_bytes()
            waveform = song.middle_waveform(data, exported.info)
            (expected,) = exported.probabilities_of_waveforms(waveform[np.newaxis])
            given = list(answer.probabilities.values())
            np.testing.assert_allclose(given, expected, atol=TOLERANCE)
            assert list(answer.probabilities) == ["low", "medium", "high"]
            assert answer.label == exported.info.class_names[expected.argmax()]


def test_batches_of_files_as_large_as_one_likes(client, exported, tmp_path):
    """Of short songs, each of which is decoded by itself all the same."""
    rate = exported.info.signal.sample_rate
    noise = np.random.default_rng(0).integers(-9_000, 9_000, (4 * rate, 1), np.int16)
    (tmp_path / "song.wav").write_bytes(verification.wav(noise, rate))
    paths = [tmp_path / "song.wav"] * 33
    assert len({answer.label for answer in client.predict_files(paths, batch_size=64)}) == 1
    with pytest.raises(UserFacingError, match="batch_size is 0"):
        next(client.predict_files(paths, batch_size=0))


def test_more_pictures_than_a_request_holds(client, exported):
    """TensorFlow Serving refuses more than 32 at once."""
    pictures = np.random.default_rng(0).integers(0, 256, (75, 102, 159), np.uint8)
    answers = client.predict(pictures)
    expected = exported.probabilities_of_pictures(pictures)
    np.testing.assert_allclose(answers.probabilities, expected, atol=TOLERANCE)
    with pytest.raises(UserFacingError, match="no pictures"):
        client.predict(pictures[:0])


def test_versions_and_labels(server, exported):
    picture = np.zeros((1, 102, 159), np.uint8)
    for target in server:
        for version in (1, "stable", "canary"):
            with Client(target, exported.info, version=version) as client:
                assert client.predict(picture).probabilities.shape == (1, 3)
        for wrong in (77, "beta"):
            with (
                Client(target, exported.info, version=wrong) as client,
                pytest.raises(ServerError, match="its config names the models"),
            ):
                client.predict(picture)
        with (
            Client(target, exported.info, model_name="other") as client,
            pytest.raises(ServerError) as error,
        ):
            client.predict(picture)
        assert not error.value.is_busy


def test_rest_by_rows_and_wav_as_the_readme_shows(server, exported, library):
    """The REST API itself, without the client."""
    rate = exported.info.signal.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * rate).astype(np.float32)
    data = verification.wav(np.rint(noise[:, None] * 32_768).astype(np.int16), rate)
    file = base64.b64encode(data).decode()
    body = {"signature_name": "wav", "instances": [{"wav": {"b64": file}}] * 2}
    request = urllib.request.Request(
        f"{server.rest}/v1/models/popularity:predict", json.dumps(body).encode()
    )
    predictions = json.loads(urllib.request.urlopen(request).read())["predictions"]
    (expected,) = exported.probabilities_of_waveforms(noise[np.newaxis])
    for prediction in predictions:
        np.testing.assert_allclose(prediction["probabilities"], expected, atol=TOLERANCE)
        assert prediction["label"] == exported.info.class_names[expected.argmax()]


def test_waveforms_share_a_batch_if_they_are_cut_or_padded_as_the_readme_says(
    ours, model, exported
):
    random, params = np.random.default_rng(0), exported.info.signal
    lengths = (params.num_samples // 3, 2 * params.num_samples + 17)
    waveforms = [random.normal(0, 0.1, length).astype(np.float32) for length in lengths]
    windows = [clips.even_windows(w, num_samples=params.num_samples)[0] for w in waveforms]
    channel = grpc.insecure_channel(ours.grpc[7:])
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def ask(waveform):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "popularity"
        request.inputs["waveform"].CopyFrom(tf.make_tensor_proto(waveform[np.newaxis]))
        try:
            return tf.make_ndarray(stub.Predict(request).outputs["probabilities"])[0]
        except grpc.RpcError as error:
            return error.code()

    model.delay_seconds = 0.5
    try:
        with channel, concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert set(pool.map(ask, waveforms)) == {grpc.StatusCode.FAILED_PRECONDITION}
            together = list(pool.map(ask, windows))
    finally:
        model.delay_seconds = 0.0
    alone = [exported.probabilities_of_waveforms(w[np.newaxis])[0] for w in waveforms]
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_server_that_is_unavailable_for_a_while(ours, model, exported, protocol):
    picture = np.zeros((1, 102, 159), np.uint8)
    with Client(getattr(ours, protocol), exported.info, attempts=4) as client:
        client.predict(picture)
        before, model.unavailable = model.num_requests, 3
        assert client.predict(picture).probabilities.shape == (1, 3)
        assert model.num_requests == before + 4
        model.unavailable = 10
        with pytest.raises(
            ServerError, match=r"is tensorflow_model_server.*tried 4 times"
        ) as error:
            client.predict(picture)
        assert error.value.is_busy
        model.unavailable = 0


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_deadline(ours, model, exported, protocol):
    model.delay_seconds = 4.0
    try:
        with (
            Client(getattr(ours, protocol), exported.info, deadline_seconds=0.3) as client,
            pytest.raises(ServerError, match="deadline") as error,
        ):
            started = time.monotonic()
            client.predict(np.zeros((1, 102, 159), np.uint8))
        assert time.monotonic() - started < 3.5
        assert error.value.is_busy
    finally:
        model.delay_seconds = 0.0


@contextlib.contextmanager
def answering(parts):
    """The address of a server that answers with these bytes, whatever it is asked."""

    def answer():
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            # Closed with something unread, it is reset, and the client may not see the answer.
            while connection.recv(1 << 16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def slowly(start: bytes, drop: bytes):
    yield start
    for _ in range(100):
        time.sleep(0.1)
        yield drop


@pytest.mark.parametrize(
    "start, drop",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
    ],
)
def test_the_deadline_of_an_answer_that_trickles(exported, start, drop):
    with (
        answering(slowly(start, drop)) as target,
        Client(target, exported.info, deadline_seconds=0.5) as client,
        pytest.raises(ServerError, match="deadline"),
    ):
        started = time.monotonic()
        client.predict(np.zeros((1, 102, 159), np.uint8))
    assert time.monotonic() - started < 1.5


def test_an_answer_without_an_end_or_cut_short(exported):
    picture = np.zeros((1, 102, 159), np.uint8)
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b" " * 65_536))
    with (
        answering(endless) as target,
        Client(target, exported.info) as client,
        pytest.raises(ServerError, match="is this its REST port"),
    ):
        client.predict(picture)
    with (
        answering([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"]) as target,
        Client(target, exported.info, attempts=1) as client,
        pytest.raises(ServerError, match="IncompleteRead"),
    ):
        client.predict(picture)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_an_answer_that_is_not_one_of_this_model(ours, exported, protocol):
    classes = ("low", "medium", "high", "highest")
    info = dataclasses.replace(exported.info, class_names=classes)
    with (
        Client(getattr(ours, protocol), info) as client,
        pytest.raises(ServerError, match="no probabilities of 4 classes"),
    ):
        client.predict(np.zeros((1, 102, 159), np.uint8))


def test_an_answer_without_probabilities(exported):
    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            return predict_pb2.PredictResponse()

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with (
        Client(f"grpc://127.0.0.1:{port}", exported.info) as client,
        pytest.raises(ServerError, match="no probabilities of 3 classes"),
    ):
        client.predict(np.zeros((1, 102, 159), np.uint8))
    server.stop(None)


def test_all_addresses_of_a_server_share_the_requests(model_dir, exported):
    """As of the pods of a Kubernetes service without an address of its own."""
    models = [model_server.Model(model_dir / "export") for _ in range(2)]
    picture = np.zeros((1, 102, 159), np.uint8)
    with (
        model_server.serve_in_process(models[0]) as one,
        model_server.serve_in_process(models[1]) as other,
        Client(f"grpc://ipv4:{one.grpc[7:]},{other.grpc[7:]}", exported.info) as client,
    ):
        for _ in range(40):
            client.predict(picture)
    assert min(model.num_requests for model in models) >= 10


def test_a_server_that_starts_late(model, exported):
    port = model_server.free_port()
    picture = np.zeros((1, 102, 159), np.uint8)

    def serve_soon():
        time.sleep(0.5)
        with model_server.serve_in_process(model, grpc_port=port):
            done.wait(20)

    done = threading.Event()
    thread = threading.Thread(target=serve_soon)
    with Client(f"grpc://127.0.0.1:{port}", exported.info, attempts=10) as client:
        thread.start()
        try:
            assert client.predict(picture).version == "1"
        finally:
            done.set()
            thread.join()


def test_what_is_no_tensorflow_serving_is_said_so(exported):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def refused(target, problem):
        with (
            Client(target, exported.info, attempts=2, deadline_seconds=3) as client,
            pytest.raises(ServerError, match=problem),
        ):
            client.predict(np.zeros((1, 102, 159), np.uint8))

    refused(f"http://127.0.0.1:{server.server_address[1]}", "is this its REST port")
    server.shutdown()
    server.server_close()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for scheme in ("grpc", "http"):
            target = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}"
            refused(target, "is tensorflow_model_server running there")
    for target in ("localhost:8500", "http://localhost:x", "http://[::1"):
        with pytest.raises(UserFacingError, match="no server's address"):
            Client(target, exported.info)


def test_serving_predict_asks_a_server(ours, model_dir, library):
    paths = songs(library, 2)
    export_dir = f"--export_dir={model_dir / 'export'}"
    asked = run_module("serving.predict", export_dir, f"--tf_serving={ours.grpc[7:]}", *paths)
    assert asked.returncode == 0, asked.stderr
    alone = run_module("serving.predict", export_dir, *paths)
    for one, other in zip(asked.stdout.splitlines(), alone.stdout.splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one["file"] == other["file"] and one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=TOLERANCE)


@pytest.fixture
def rolling(model_dir, tmp_path):
    """A server within a roll: 2 is loaded for the canary, and stable is 1 yet."""
    for number in ("1", "2"):
        shutil.copytree(model_dir / "export" / "1", tmp_path / number)
    model = model_server.Model(tmp_path, {"stable": 1, "canary": 2})
    with model_server.serve_in_process(model) as server:
        yield tmp_path, model, server.grpc[7:]


def test_a_label_stays_with_its_version_while_a_newer_one_is_loaded(rolling, library):
    export_dir, model, address = rolling
    paths = [str(path) for path in songs(library, 1)]
    for version, expected in (("stable", 1), ("1", 1), ("canary", 2), (None, 2)):
        info = export_folder.load_info(str(export_dir / "1"))
        (answer,) = predict.predict_there(address, version, info, paths, {})
        assert answer.error is None
        assert model.answered.pop() == expected


@pytest.mark.integration
def test_the_flag_of_a_version(rolling, library):
    export_dir, model, address = rolling
    (path,) = songs(library, 1)
    flags = (f"--export_dir={export_dir}", "--tf_serving_version=stable")
    asked = run_module("serving.predict", *flags, f"--tf_serving={address}", path)
    assert asked.returncode == 0, asked.stderr
    assert model.answered == [1]
    with running_app(export_dir, f"--tf_serving={address}", flags[1]) as app:
        assert app.predict(path.read_bytes()).json["version"] == "1"
    for refused in (run_module("serving.predict", *flags, path), run_module("serving.app", *flags)):
        assert_refused(refused, "--tf_serving names it")


@pytest.mark.parametrize("modules", ["serving.verify", "serving.app, serving.web.application"])
def test_serving_imports_neither_beam_nor_the_trainer(modules):
    code = (
        f"import sys, serving.client, serving.model.song_process, {modules}\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'apache_beam', 'trainer'})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
