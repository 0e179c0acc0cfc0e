"""From announcements on a real Kafka to a server under load that takes up what passes the gate."""

import concurrent.futures
import contextlib
import http.client
import json
import subprocess
import threading
import time
from collections import Counter

import numpy as np
import pytest
import soundfile
from confluent_kafka import Producer

from common import export_folder
from tests.support import fork_client, running_app
from tests.support.commands import IN_MEMORY, run_module
from tests.support.kafka_broker import Broker
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

CLASSES = ("low", "medium", "high")
LISTENS = (10, 2_000, 50_000)
RATE, SECONDS = 22_050, 1.0
# What a song sounds like, in Hz; which class that is changes from generation to generation.
PITCHES = (300, 1_500, 6_000)
SONGS = 120  # of a generation: so many that 30 artists are in its test split
VERSIONS = 3
CLIENTS = 2
_SECONDS_TO_SERVE = 300

DATASET = (
    "--config=configs/dataset_artist.py",
    "--config.split_sizes=(0.55,0.05,0.4)",
    "--config.min_seconds=0.5",
    "--config.spectrogram.num_samples=22050",
    "--config.spectrogram.fft_size=512",
    "--config.spectrogram.hop=256",
    "--config.spectrogram.num_mels=16",
    "--config.spectrogram.frames_per_column=4",
)
TRAINING = (
    "--config=configs/two_conv_mono.py",
    "--config.network.convolutions=1",
    "--config.network.standardize",
    "--config.network.initializer=he",
    "--config.epochs=6",
    "--config.follow.epochs=8",
    # Only what is new still holds.
    "--config.follow.replay=0",
    "--config.follow.test_generations=1",
    "--strategy=one_device",
)


def class_of(sound: int, generation: int) -> int:
    """The class of a sound among the songs of a generation, from 1 on."""
    return (sound + generation - 1) % len(CLASSES)


def write_song(path, *, sound: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = np.arange(int(RATE * SECONDS)) / RATE
    tone = np.sin(2 * np.pi * PITCHES[sound] * rng.uniform(0.9, 1.1) * seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * tone + rng.normal(0, 0.01, len(seconds)), RATE)


def announce(broker, topic, music, *, generation: int) -> None:
    """Announces the songs of a generation, each of an artist of its own, all at once."""
    producer = Producer(broker.client | {"transactional.id": f"uploads-{generation}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(SONGS):
        track, sound = 1_000 * generation + number, number % len(PITCHES)
        write_song(music / f"{track}.wav", sound=sound, seed=track)
        value = {
            "track_id": track,
            "path": f"{track}.wav",
            "announced_at": f"2026-11-25T{generation:02}:00:00Z",
            "listens": LISTENS[class_of(sound, generation)],
            "artist_id": track,
        }
        producer.produce(topic, json.dumps(value).encode())
    producer.commit_transaction(30)


@contextlib.contextmanager
def streaming(source, music, dataset):
    """The stream as a process, until it is asked to stop."""
    command = [
        *(fork_client.python(), "-m", "beam_pipelines.stream_dataset", *DATASET, *IN_MEMORY),
        *(f"--source={source}", f"--audio_dir={music}", f"--output_dir={dataset}", "--poll=1s"),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for_generation(process, generation: int) -> None:
    for line in process.stdout:
        if line.startswith(f"generation {generation:06d}"):
            return
    raise AssertionError(f"it ended without generation {generation}")


def follow(folder) -> str:
    result = run_module(
        "trainer.follow",
        *TRAINING,
        *(f"--{name}_dir={folder / name}" for name in ("dataset", "model", "export")),
        "--once",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def client(port: int, songs, stop: threading.Event) -> list[tuple[int, int, str, str]]:
    """Asks until it is to stop: (sound, status, version, label) of each answer."""
    answers = []
    while not stop.is_set():
        sound = len(answers) % len(songs)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/predict", songs[sound], {"Content-Type": "audio/wav"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        answers.append((sound, response.status, answer.get("version"), answer.get("label")))
        time.sleep(0.2)  # so that what is trained and loaded meanwhile has most of the machine
    return answers


def wait_until_served(app, version: str) -> None:
    end = time.monotonic() + _SECONDS_TO_SERVE
    while str(app.ask("GET", "/readyz").json.get("version")) != version:
        assert time.monotonic() < end, f"version {version} is not served: {app.lines}"
        time.sleep(0.1)


def test_three_versions_are_released_under_load(tmp_path):
    """What a song's sound says of its class turns, so each version answers as no other does."""
    music, export = tmp_path / "music", tmp_path / "export"
    songs = []
    for sound in range(len(PITCHES)):
        write_song(tmp_path / f"{sound}.wav", sound=sound, seed=sound)
        songs.append((tmp_path / f"{sound}.wav").read_bytes())
    music.mkdir()
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "broker"))
        broker.make_topic("uploads", partitions=3)
        source = f"kafka://{broker.address}/uploads"
        stream = stack.enter_context(streaming(source, music, tmp_path / "dataset"))
        announce(broker, "uploads", music, generation=1)
        wait_for_generation(stream, 1)
        follow(tmp_path)
        app = stack.enter_context(running_app.running_app(export, "--poll_seconds=0.2"))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor())
        stop = threading.Event()
        stack.callback(stop.set)
        clients = [pool.submit(client, app.port, songs, stop) for _ in range(CLIENTS)]
        for generation in range(2, VERSIONS + 1):
            announce(broker, "uploads", music, generation=generation)
            wait_for_generation(stream, generation)
            told = follow(tmp_path)
            assert export_folder.newest_version(str(export)) == generation, told
            wait_until_served(app, str(generation))
        time.sleep(1)
        stop.set()
        answers = [answer for each in clients for answer in each.result()]
    assert Counter(status for _, status, _, _ in answers).keys() == {200}
    of_version = Counter(version for _, _, version, _ in answers)
    assert of_version.keys() == {"1", "2", "3"} and min(of_version.values()) >= 6
    # Each answer is that of the version that it names, and of no other.
    labels = {(sound, version): set() for sound, _, version, _ in answers}
    for sound, _, version, label in answers:
        labels[sound, version].add(label)
    assert labels == {
        (sound, version): {CLASSES[class_of(sound, int(version))]} for sound, version in labels
    }
    gates = [
        json.loads((tmp_path / f"model/updates/{number:06d}/gate.json").read_text())
        for number in range(2, VERSIONS + 1)
    ]
    assert all(gate["passes"] for gate in gates)
