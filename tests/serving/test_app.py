"""The page's API over real sockets: what it answers, what it refuses, and that it stays up."""

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import threading
import time

import numpy as np
import pytest
import soundfile
import uvicorn
from prometheus_client import parser

from common import spectrogram
from serving.model import model_host, song, song_statistics
from serving.web import connections
from serving.web.application import application
from serving.web.limits import Limits
from serving.web.service import PredictionService
from tests.serving import test_monitoring_files as monitoring
from tests.support import model_server, processes, promql
from tests.support.commands import assert_refused, run_module
from tests.support.running_app import RunningApp, multipart, running_app

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def app(model_dir):
    limits = ("--max_upload_mb=2", "--max_seconds=200", "--upload_seconds=2", "--queue_length=6")
    with running_app(model_dir / "export", *limits) as app:
        yield app


@pytest.fixture(scope="module")
def mp3(library):
    return max(library.audio_dir.rglob("*.mp3"), key=os.path.getsize).read_bytes()


def given(answer) -> np.ndarray:
    assert answer.status == 200, answer.body
    return np.array(list(answer.json["probabilities"].values()))


def expected(exported, data) -> np.ndarray:
    """By the front end in the graph, which the app does not use."""
    window = song.middle_waveform(data, exported.info)
    return exported.probabilities_of_waveforms(window[np.newaxis])[0]


def refused(answer, status, code, *fragments):
    assert answer.status == status, answer.body
    assert answer.json["error"]["code"] == code
    for fragment in fragments:
        assert fragment in answer.json["error"]["message"]


def test_a_song_in_each_form(app, exported, mp3):
    wanted = expected(exported, mp3)
    body, kind = multipart(mp3)
    as_json = json.dumps({"audio": base64.b64encode(mp3).decode()}).encode()
    for answer in (
        app.predict(body, kind=kind),
        app.predict(mp3),
        app.predict(mp3, kind="application/octet-stream"),
        app.predict(as_json, kind="application/json"),
    ):
        np.testing.assert_allclose(given(answer), wanted, atol=TOLERANCE)
        assert list(answer.json["probabilities"]) == ["low", "medium", "high"]
        assert answer.json["label"] == exported.info.class_names[wanted.argmax()]
        assert answer.json["version"] == "1"
        assert "spectrogram" not in answer.json
    samples, rate = soundfile.read(io.BytesIO(mp3), dtype="float32")
    for kind in ("wav", "flac", "ogg"):
        file = io.BytesIO()
        soundfile.write(file, samples[: 5 * rate], rate, format=kind)
        wanted = expected(exported, file.getvalue())
        np.testing.assert_allclose(given(app.predict(file.getvalue())), wanted, atol=TOLERANCE)


def test_the_picture_and_what_speaks_for_the_answer(app, exported, mp3):
    """The picture is the job's; each weight is what covering that second changes."""
    answer = app.predict(mp3, query="?explain=true").json
    window, params = song.middle_waveform(mp3, exported.info), exported.info.signal
    picture = spectrogram.picture(window, params)
    levels = base64.b64decode(answer["spectrogram"]["levels"])
    assert levels == picture.tobytes()
    assert len(answer["explanation"]) == 30
    place = 11
    part = answer["explanation"][place]
    start = answer["windows"][answer["middle"]]["start"]
    first, last = (round((part[edge] - start + by) * 22_050 / 4_160)
                   for edge, by in (("start", -1), ("end", 1)))  # fmt: skip
    covered = picture.copy()
    covered[:, first:last] = np.rint(picture.mean(axis=1))[:, np.newaxis]
    before, after = exported.probabilities_of_pictures(np.stack([picture, covered]))
    fall = before[before.argmax()] - after[before.argmax()]
    assert part["weight"] == pytest.approx(float(fall), abs=1e-5)


def test_a_long_song_is_answered_along_time(app, exported, mp3):
    samples, rate = soundfile.read(io.BytesIO(mp3), dtype="float32", always_2d=True)
    long = np.concatenate([samples.mean(axis=1)] * 5)
    long[: 31 * rate] = 0
    file = io.BytesIO()
    soundfile.write(file, long, rate, format="mp3", bitrate_mode="CONSTANT", compression_level=0.9)
    data = file.getvalue()
    answer = app.predict(data)
    np.testing.assert_allclose(given(answer), expected(exported, data), atol=TOLERANCE)
    windows = answer.json["windows"]
    starts = [window["start"] for window in windows]
    assert len(starts) >= 3 and starts == sorted(starts) and starts[0] > 25
    middle = windows[answer.json["middle"]]
    assert middle["probabilities"] == answer.json["probabilities"]
    assert (middle["start"] + middle["end"]) / 2 == pytest.approx(
        answer.json["seconds"] / 2, abs=0.1
    )


def test_a_model_that_takes_sound_alone(app, mp3):
    """What such a model is told is refused in one line."""
    body = json.dumps({"audio": base64.b64encode(mp3).decode(), "inputs": {"genre": "Rock"}})
    assert app.ask("GET", "/v1/model").json["inputs"] == []
    answer = app.predict(body.encode(), kind="application/json")
    refused(answer, 422, "bad_input", "it takes sound alone")
    assert app.predict(mp3).status == 200


def test_what_is_refused(app, mp3, library):
    refused(app.predict(b"no music"), 422, "undecodable", "mp3, wav, flac or ogg")
    refused(app.predict(b""), 422, "empty_file")
    refused(app.predict(mp3[:20_000]), 422, "too_short")
    silence = next(path for path, reason in rejected_files(library) if reason == "silent")
    refused(app.predict(silence.read_bytes()), 422, "silent")
    refused(app.predict(bytes(2_100_000)), 413, "too_large", "2 MB")
    refused(app.predict(bytes(3_000_000)), 413, "too_large")
    as_json = json.dumps({"audio": base64.b64encode(bytes(2_100_000)).decode()}).encode()
    refused(app.predict(as_json, kind="application/json"), 413, "too_large")
    refused(app.predict(mp3, kind="text/html"), 415, "unsupported", "multipart/form-data")
    for body in (b"{", b"[]", b'{"audio": 3}', b'{"audio": "#"}', b"[" * 100_000, b"\xff"):
        refused(app.predict(body, kind="application/json"), 400, "unreadable")
    body, kind = multipart(mp3, name="song")
    refused(app.predict(body, kind=kind), 400, "unreadable", "`file`")
    refused(app.predict(body[:99], kind=kind), 400, "unreadable")
    refused(app.predict(b"x", kind="multipart/form-data"), 400, "unreadable")
    refused(app.predict(mp3, query="?explain=perhaps"), 400, "unreadable", "explain")
    long = io.BytesIO()
    soundfile.write(long, np.ones(8_000 * 201, np.float32) / 2, 8_000, format="ogg")
    refused(app.predict(long.getvalue()), 422, "too_long", "is too long", "longer than 200 s")
    assert app.ask("GET", "/v1/predict").status == 405
    assert app.ask("GET", "/nothing").status == 404


def test_a_finite_number_beyond_any_sound_is_refused(app):
    file = io.BytesIO()
    soundfile.write(file, np.full(5 * 22_050, 3e38, np.float32), 22_050, "FLOAT", format="WAV")
    refused(app.predict(file.getvalue()), 422, "not_finite", "beyond")


def test_a_small_file_of_very_many_samples_is_refused(app):
    """Silence in FLAC: 131 s of 8 channels at 192 kHz are 0.2 MB, and seconds of a processor."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 192_000, 8, format="FLAC") as flac:
        for _ in range(131):
            flac.write(np.zeros((192_000, 8), np.int16))
    assert len(file.getvalue()) < 300_000
    refused(app.predict(file.getvalue()), 422, "too_long", "more than 200,000,000 samples")


def test_a_field_in_a_charset_that_is_slow_to_decode(app, mp3):
    body, kind = multipart(mp3)
    head, _, rest = body.partition(b"\r\n")
    field = b'Content-Disposition: form-data; name="text-"\r\n\r\n' + b"b" * 1_000_000
    body = b"\r\n".join((head, field, head, rest))
    answer = app.predict(body, kind=f"{kind}; charset=punycode")
    refused(answer, 422, "bad_input", "'text-': the model takes no such input")


def test_only_its_own_name_and_no_page_of_another_site(app, mp3):
    form = {"content_type": "audio/mpeg", "sec_fetch_site": "cross-site"}
    for path in ("/", "/v1/model", "/metrics", "/page/page.js", "/openapi.json", "/nothing"):
        answer = app.ask("GET", path, host="evil.example")
        refused(answer, 403, "foreign_host", "evil.example", "--allowed_hosts")
        assert answer.headers["x-content-type-options"] == "nosniff"
    refused(app.ask("POST", "/v1/predict", mp3, **form), 403, "cross_site")
    origin = {"content_type": "audio/mpeg", "origin": "https://evil.example"}
    refused(app.ask("POST", "/v1/predict", mp3, **origin), 403, "cross_site")
    origin["origin"] = f"http://127.0.0.1:{app.port}"
    assert app.ask("POST", "/v1/predict", mp3, **origin).status == 200
    assert app.ask("GET", "/healthz", host="localhost").status == 200
    assert app.metric('fma_refused_total{code="foreign_host"}') >= 6


def test_a_head_is_answered_as_a_get_without_its_body(app):
    for path in ("/", "/v1/model", "/healthz", "/readyz", "/metrics", "/page/page.js"):
        get, head = app.ask("GET", path), app.ask("HEAD", path)
        assert (get.status, head.status, head.body) == (200, 200, b"")
        assert get.body and head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(get.body))
    assert app.ask("HEAD", "/v1/predict").status == 405


def test_decoders_that_are_killed_are_replaced(app, mp3):
    before = app.predict(mp3).json

    def decoders():
        there = processes.descendants(app.pid)
        return {pid for pid in there if "song_process" in processes.command_line(pid)}

    killed = decoders()
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    answer = app.predict(mp3)
    if answer.status != 200:  # a busy machine takes long to start another
        refused(answer, 503, "no_decoder")
        assert int(answer.headers["retry-after"]) > 0
    end = time.monotonic() + 120
    while app.metric("fma_decoders_ready") < len(killed) and time.monotonic() < end:
        time.sleep(0.2)
    # What was said of readiness is said again for a second, also once the decoders are back.
    while (ready := app.ask("GET", "/readyz")).status != 200 and time.monotonic() < end:
        refused(ready, 503, "no_decoder")
        time.sleep(0.2)
    assert ready.status == 200
    for _ in range(4):
        assert app.predict(mp3).json == before
    assert len(decoders()) == len(killed) and not decoders() & killed


def rejected_files(library):
    for track_id, reason in library.rejected.items():
        name = f"{track_id:06d}"
        yield library.audio_dir / name[:3] / f"{name}.mp3", reason


def test_chunks_without_end_are_cut_off(app):
    """No Content-Length says how much will come; the answer comes before all of it."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as sock:
        sock.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: audio/mpeg\r\n\r\n"
        )
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                sock.sendall(chunk)
        assert b"413" in sock.recv(100)


def test_a_file_name_is_only_a_name(app, mp3, tmp_path):
    for name in ("../../etc/passwd", "/etc/passwd", "a\x00b.mp3", "💿" * 500, str(tmp_path / "x")):
        body, kind = multipart(mp3, filename=name)
        assert app.predict(body, kind=kind).status == 200
    assert not any(tmp_path.iterdir())


def test_nothing_of_an_upload_stays(app, mp3):
    """No file in the temporary folder, or open in the server, but those from before."""

    def files():
        folder, there = f"/proc/{app.pid}/fd", []
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # a connection that has just ended
                there.append(os.readlink(f"{folder}/{fd}"))
        return {path for path in there if path.startswith("/") and not path.startswith("/dev")}

    body, kind = multipart(mp3)
    app.predict(body, kind=kind)
    before = files()
    for _ in range(3):
        app.predict(body, kind=kind)
    assert files() == before


def test_slow_clients_end_and_hold_up_nobody(app, mp3):
    """Heads and bodies that trickle; each is ended after its time, and others are served."""
    heads = [b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/mpeg\r\n"
             b"Content-Length: 100000\r\n\r\n", b"GET / HTTP/1.1\r\nHo"]  # fmt: skip
    slow = [socket.create_connection(("127.0.0.1", app.port)) for _ in range(40)]
    try:
        for place, sock in enumerate(slow):
            sock.sendall(heads[place % 2])
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            for sock in slow:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"x")
            assert app.predict(mp3).status == 200
        slow[0].settimeout(5)
        assert b"408" in slow[0].recv(100)
        slow[1].settimeout(12)  # no head after 10 s: the connection just ends
        with contextlib.suppress(ConnectionError):
            assert slow[1].recv(100) == b""
    finally:
        for sock in slow:
            sock.close()


def test_songs_of_clients_that_went_away_are_not_decoded(app, mp3):
    """Their places in the queue are free at once."""
    name = 'fma_stage_seconds_count{stage="decode"}'
    before = app.metric(name)
    head = (
        "POST /v1/predict?explain=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/mpeg\r\n"
        f"Content-Length: {len(mp3)}\r\n\r\n"
    )
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", app.port)) as sock:
            sock.sendall(head.encode() + mp3)
    end = time.monotonic() + 2
    while app.metric("fma_upload_bytes") and time.monotonic() < end:
        time.sleep(0.05)
    assert app.predict(mp3).status == 200
    assert app.metric(name) - before <= 8


def test_health_metrics_and_documentation(app, mp3):
    assert app.ask("GET", "/healthz").json == {"status": "ok"}
    assert app.ask("GET", "/readyz").json == {"status": "ready", "version": 1}
    name = 'fma_requests_total{route="/v1/predict",status="200"}'
    before = app.metric(name)
    app.predict(mp3)
    assert app.metric(name) == before + 1
    assert app.metric("fma_model_version") == 1
    assert app.metric('fma_stage_seconds_count{stage="decode"}') >= 1
    assert app.metric("fma_upload_bytes") == 0
    described = app.ask("GET", "/openapi.json").json
    assert described["paths"]["/v1/predict"]["post"]["requestBody"]["content"].keys() == {
        "multipart/form-data",
        "application/octet-stream",
        "application/json",
    }
    for path in ("/", "/docs"):
        page = app.ask("GET", path)
        assert page.status == 200
        for kind in ("src=", "href="):
            for found in page.body.decode().split(kind)[1:]:
                assert "//" not in found.split(">")[0]  # no asset from another host
        policy = page.headers["content-security-policy"]
        for part in ("default-src 'self'", "base-uri 'none'", "form-action", "object-src 'none'"):
            assert part in policy
    model = app.ask("GET", "/v1/model").json
    assert model["max_upload_mb"] == 2 and model["class_names"] == ["low", "medium", "high"]


def test_songs_are_counted_beside_the_training_and_no_single_one(app, exported, mp3):
    """By twenty; and all that alerts and dashboard ask for is there."""

    def count(name="level"):
        return app.metric(f'fma_song_statistic_count{{statistic="{name}",version="1"}}')

    before = count()
    answers = [app.predict(mp3) for _ in range(song_statistics.STEP)]
    assert {answer.status for answer in answers} == {200}
    assert count() == before + song_statistics.STEP
    assert app.predict(mp3).status == 200
    assert count() == before + song_statistics.STEP
    families = {
        family.name: family
        for family in parser.text_string_to_metric_families(
            app.ask("GET", "/metrics").body.decode()
        )
    }
    shares = exported.info.reference.labels
    assert [sample.value for sample in families["fma_training_label_share"].samples] == [
        pytest.approx(share / sum(shares)) for share in shares
    ]
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    printed = {
        f"{family.name}{suffix}": {label for sample in family.samples for label in sample.labels}
        for family in families.values()
        for suffix in suffixes[family.type]
    }
    printed |= {"up": {"job", "instance"}}  # Prometheus' own
    for expression in monitoring.expressions():
        for selector in promql.selectors(expression):
            assert selector.metric in printed, expression
            of_metric = printed[selector.metric] or selector.labels.keys()  # not before 200 songs
            assert selector.labels.keys() <= of_metric, expression


def test_a_queue_that_is_full(app, mp3):
    """What does not fit is told when to come again; what does is answered.

    All come from one address, whatever their headers say, so they fill its half of the queue only.
    """
    answers = []

    def ask(number):
        headers = {"content_type": "audio/mpeg", "x_forwarded_for": f"10.0.0.{number}"}
        answers.append(app.ask("POST", "/v1/predict?explain=1", mp3, **headers))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert {answer.status for answer in answers} == {200, 429}
    assert sum(answer.status == 200 for answer in answers) >= 4
    busy = [answer for answer in answers if answer.status != 200]
    assert busy
    assert all(int(answer.headers["retry-after"]) > 0 for answer in busy)
    assert app.predict(mp3).status == 200


@pytest.mark.integration
def test_a_newer_version_takes_over_without_a_failed_request(model_dir, mp3, tmp_path):
    export_dir = tmp_path / "export"
    shutil.copytree(model_dir / "export", export_dir)
    with running_app(export_dir, "--poll_seconds=0.3") as app:
        versions, failed, done = [], [], threading.Event()

        def ask():
            while not done.is_set():
                answer = app.predict(mp3)
                if answer.status == 200:
                    versions.append(answer.json["version"])
                else:
                    failed.append(answer)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()

        def wait_for(version):
            end = time.monotonic() + 120
            while (not versions or versions[-1] != version) and time.monotonic() < end:
                time.sleep(0.1)

        wait_for("1")
        (export_dir / "2").mkdir()  # one that is broken
        (export_dir / "2" / "saved_model.pb").write_bytes(b"x")
        time.sleep(1)
        shutil.rmtree(export_dir / "2")
        shutil.copytree(export_dir / "1", export_dir / ".tmp")  # and one whose warm-up file is
        extra = export_dir / ".tmp" / "assets.extra"
        (extra / "tf_serving_warmup_requests").write_bytes(b"garbage " * 9)
        (export_dir / ".tmp").rename(export_dir / "2")
        while app.metric('fma_model_swaps_total{outcome="failed"}') < 2:
            time.sleep(0.2)
        shutil.rmtree(export_dir / "2")
        shutil.copytree(export_dir / "1", export_dir / ".tmp")
        (export_dir / ".tmp").rename(export_dir / "2")
        wait_for("2")
        shutil.rmtree(export_dir / "2")  # back
        wait_for("1")
        done.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert versions[0] == "1" and versions[-1] == "1" and "2" in versions
        assert any(line.startswith("still version 1: ") for line in app.lines)
        assert "serving version 2 (before: 1)" in app.lines


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_songs_in_flight_end(model_dir, mp3, number):
    """Those of a terminal, Ctrl-C or its end, go to the decoders too."""
    with running_app(model_dir / "export") as app:
        started, answers = processes.descendants(app.pid), []
        threads = [
            threading.Thread(target=lambda: answers.append(app.predict(mp3))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        while not app.metric('fma_stage_seconds_count{stage="decode"}'):
            pass
        os.killpg(app.pid, number)
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers] == [200] * 8
        assert app.process.wait(20) in (128 + number, -number)
        processes.wait_until_ended(started)
    assert not any("Traceback" in line for line in app.lines)


@pytest.mark.integration
def test_on_tf_serving(model_dir, exported, mp3):
    """Answered by a server; while that is away, 503 and when to come again."""
    port = model_server.free_port()
    model = model_server.Model(model_dir / "export")
    arguments = (f"--tf_serving=127.0.0.1:{port}",)
    with running_app(model_dir / "export", *arguments) as app:

        def wait_until_ready_says(status):
            end = time.monotonic() + 10
            while app.ask("GET", "/readyz").status != status and time.monotonic() < end:
                time.sleep(0.2)
            assert app.ask("GET", "/readyz").status == status

        refused(app.ask("GET", "/readyz"), 503, "no_model")
        with model_server.serve_in_process(model, grpc_port=port):
            wait_until_ready_says(200)
            answer = app.predict(mp3, query="?explain=true")
            np.testing.assert_allclose(given(answer), expected(exported, mp3), atol=TOLERANCE)
            assert len(answer.json["explanation"]) == 30
        wait_until_ready_says(503)
        answer = app.predict(mp3)
        refused(answer, 503, "no_model")
        assert int(answer.headers["retry-after"]) > 0
        assert any("is tensorflow_model_server running" in line for line in app.lines)
        with model_server.serve_in_process(model, grpc_port=port):
            assert app.predict(mp3).status == 200
            wait_until_ready_says(200)


def test_a_bug_is_counted_and_has_the_headers(model_dir):
    """Here: whatever comes of asking a host that was closed."""
    limits = Limits()
    host = model_host.ModelHost(str(model_dir / "export"), tf_serving=None, count=1, limits=limits)
    host.close()
    app = application(PredictionService(host, limits, decoders=1), poll_seconds=60)
    server = uvicorn.Server(
        uvicorn.Config(app, http=connections.protocol(limits), lifespan="off", log_level="critical")
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            there = RunningApp(None, f"http://127.0.0.1:{sock.getsockname()[1]}/", [])
            answer = there.ask("GET", "/v1/model")
            refused(answer, 500, "bug", "log")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert there.metric('fma_requests_total{route="/v1/model",status="500"}') == 1
        finally:
            server.should_exit = True
            thread.join()


def test_what_can_not_start(model_dir, tmp_path):
    assert_refused(run_module("serving.app", f"--export_dir={tmp_path}"), "no exported model")
    export_dir = f"--export_dir={model_dir / 'export'}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_refused(run_module("serving.app", export_dir, f"--port={port}"), port, "--port")
    assert_refused(run_module("serving.app", export_dir, "--queue_length=0"), "--queue_length: 0")
    for wrong in ("music.example:8080", "http://music.example", ""):
        hosts = f"--allowed_hosts=localhost,{wrong}"
        assert_refused(run_module("serving.app", export_dir, hosts), "--allowed_hosts", wrong)
    assert_refused(run_module("serving.app", export_dir, "--host="), "--host: no address")
