"""What the live demo of the stream announces, shows, starts and ends."""

import json
import math
import os
import re
import socket
import sys
import urllib.request

import pytest

from common.errors import UserFacingError
from examples import demo_stream, demo_stream_view
from tests.support import checkout as checkout_maker
from tests.support import drifting, processes
from tests.support.checkout import run
from tests.support.paths import ROOT


@pytest.mark.parametrize("begin", [0.0, 1.0, 18.9, 19.1, 26.0, 29.99, 1_764_000_007.3])
def test_the_same_songs_go_into_each_generation_whenever_it_begins(begin):
    times = demo_stream.due_times(150, begin=begin)
    assert times == sorted(times)
    assert begin <= times[0] <= begin + 15
    first = math.floor(times[0] / 30)
    assert [math.floor(at / 30) - first for at in times] == [place // 38 for place in range(150)]


@pytest.fixture
def live(tmp_path):
    """A dataset of two generations; one update done, one under way."""
    drifting.write(tmp_path / "dataset", seed=0, sizes=(3, 0, 0))
    drifting.grow(tmp_path / "dataset", 1, sizes=(4, 1, 2))
    drifting.grow(tmp_path / "dataset", 2, sizes=(2, 0, 1))
    write(tmp_path, 1, "plan", update=1, generations=[0, 1], new=[], starts_from=None)
    write(tmp_path, 1, "before", prequential=[], drift=[])
    write(tmp_path, 1, "update", outcome="released", export="1", reasons=[])
    write(tmp_path, 1, "evaluation", accuracy=0.625)
    write(tmp_path, 2, "plan", update=2, generations=[0, 1, 2], new=[2], starts_from="1")
    return tmp_path


def write(live, number, name, **values):
    folder = live / f"following/updates/{number:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(values))


def answers(accuracy):
    models = {"follow": {"accuracy": accuracy}}
    return {"prequential": [{"num_examples": 3, "models": models}], "drift": []}


def test_what_the_files_say_is_told_once(live, capsys):
    view = demo_stream_view.View(live, app="http://127.0.0.1:1/", songs=9)
    view.look("1")
    write(live, 2, "before", **answers(2 / 3))
    view.look("1")
    answer = {"label": "low", "version": "1", "probabilities": {"low": 0.75, "high": 0.25}}
    view.announced(4, newest="“A” by B (Rock)", listens=5_000, answer=answer)
    view.announced(5, newest="“C” by D (Folk)", listens=5, answer=None)
    write(live, 2, "update", outcome="set aside", reasons=["worse", "too few"])
    view.look("1")
    view.look("2")
    lines = [re.sub(r"^ +\d+ s +", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "serving  version 1 answers",
        "follow   update 2: right about 66.7 % of 3 clips that it never heard; now it trains on "
        "them",
        "music    4 of 9 songs announced, now “A” by B (Rock); version 1 says low (75 %), in "
        "truth high",
        "music    5 of 9 songs announced, now “C” by D (Folk)",
        "follow   update 2: set aside: worse; too few",
        "serving  version 2 answers",
    ]
    state = json.loads((live / demo_stream_view.STATE_FILE).read_text())
    assert (state["generations"], state["clips"], state["version"]) == (2, 10, "2")
    assert [each["kind"] for each in state["updates"]] == ["released", "set aside"]
    assert [line["text"] for line in state["lines"]][-1] == "version 2 answers"


def test_it_is_over_when_all_that_was_announced_has_been_followed(live):
    # Each of the generations says that it accounts for as many as it has clips.
    assert not demo_stream_view.has_followed(live, announced=10)
    write(live, 2, "before", **answers(0.5))
    assert not demo_stream_view.has_followed(live, announced=10)
    write(live, 2, "update", outcome="released", export="2", reasons=[])
    assert demo_stream_view.has_followed(live, announced=10)
    assert not demo_stream_view.has_followed(live, announced=11)
    header, *rows = demo_stream_view.table(live).splitlines()
    assert header.split()[0] == "update"
    assert [row.split()[:2] for row in rows] == [["1", "1"], ["2", "2"]]
    assert "62.5 %  released as version 1" in rows[0]
    assert re.search(r"50.0 % +–  released as version 2", rows[1])


def test_none_of_the_processes_is_left(tmp_path, monkeypatch):
    """Neither one that takes no notice of SIGTERM, nor what it has started."""
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print('ready at http://127.0.0.1:1/ (of', child.pid, ')', flush=True)\n"
        "time.sleep(600)\n"
    )
    starter = (
        "import pathlib, sys; from examples import demo_stream\n"
        "demo_stream._SECONDS_TO_STOP = 0.2\n"
        "process = demo_stream.Process('stubborn', log=pathlib.Path('log'))\n"
        "assert process.url() == 'http://127.0.0.1:1/'\n"
        "demo_stream.stop([process])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run([sys.executable, "-c", starter], tmp_path)
    child = int((tmp_path / "log").read_text().split("(of ")[1].split()[0])
    processes.wait_until_ended({child})


def test_the_page_is_served_and_a_port_that_is_taken_is_named(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    server = demo_stream.serve_folder(tmp_path, 0)
    try:
        port = server.server_address[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/state.json") as response:
            assert response.headers["Cache-Control"] == "no-store"
            assert response.read() == b"{}"
        with pytest.raises(UserFacingError, match=f"--port={port}: can't listen there"):
            demo_stream.serve_folder(tmp_path, port)
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_does_not_answer_ends_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    app = demo_stream.App(url, tmp_path)
    (tmp_path / "song.mp3").write_bytes(b"song")
    songs = [
        demo_stream.Song(1, path, 5, 1, "artist", "Rock", "title") for path in ("song.mp3", "none")
    ]
    assert app.version() == ""
    assert [app.answer(song) for song in songs] == [None, None]


@pytest.mark.integration
@pytest.mark.skipif("SOAK_DEMO_STREAM" not in os.environ, reason="takes minutes: make soak")
def test_make_demo_stream(tmp_path):
    checkout = checkout_maker.make(tmp_path / "checkout")
    command = ["python", "-m", "examples.demo_stream", "--port=0", "--nostay"]
    output = run(command, checkout)
    table = output[output.index("=== 4 generations") :]
    assert table.count("released as version") >= 2
    live = checkout / "demo/stream/live"
    assert [each.generation for each in demo_stream_view.manifests(live)] == [1, 2, 3, 4, 5]
    again = run(command, checkout)
    assert "finished before, and nothing of it has changed" in again
    assert [each.generation for each in demo_stream_view.manifests(live)] == [1, 2, 3, 4, 5]
