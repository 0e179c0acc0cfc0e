"""The stream as one pipeline on Prism: latency, throughput, memory.

Latency: songs are announced as a window of 5 s begins, so that the first waits for all of it, over
a dozen windows. From an announcement to the manifest that has it, less the window: the longest.

Throughput: a stream that runs is given 100 songs, then 400, and the batch job on Prism is run over
100 and 400; what the 300 between them take is compared, so that no start counts. They take turns.

Memory: of the command, its decoder and Prism, resident, over 10,000 announcements after the first
2,000. Of 250 announcements a second 200 repeat another, 40 are malformed and 10 are new songs, tiny
ones that a made-up decoder makes pictures of; each second is a generation.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import pytest

from common import generations
from tests.benchmarks import dataset_job
from tests.benchmarks.bar import Bar
from tests.support import engines
from tests.support.processes import descendants, resident
from tests.support.streaming import Streaming, streaming

_LATENCY = "stream on Prism, announcement to record less the window, s"
_SPEED = "stream / job, clips a second on Prism"
_MEMORY = "stream on Prism, memory after 10,000 announcements / 2,000"
BARS = {
    _LATENCY: Bar(bar=3.0, better="lower"),
    _SPEED: Bar(bar=0.90, better="higher"),
    _MEMORY: Bar(bar=1.05, better="lower"),
}
_WINDOW, _WINDOWS, _SONGS_A_WINDOW = 5, 12, 3
_ROUNDS = 5
_STEPS, _WARM_STEPS, _REPEATED, _MALFORMED, _NEW = 40, 8, 200, 40, 10


def measure() -> dict[str, float]:
    """The values of `BARS`; none where Prism can't be had."""
    try:
        flags = engines.prism()
    except pytest.skip.Exception as reason:
        print(reason)
        return {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        songs = dataset_job.clips(folder)
        return {
            _LATENCY: latency(folder / "latency", songs, flags),
            _SPEED: speed(folder / "speed", songs, flags),
            _MEMORY: memory(folder / "memory", flags),
        }


class Topic:
    """A folder of announcements."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder / "announced"
        self.folder.mkdir(parents=True)
        self._count = 0

    def announce(self, *lines: str) -> None:
        """Announces all at once."""
        self._count += 1
        path = self.folder / f"{self._count:06d}"
        path.write_text("".join(f"{line}\n" for line in lines))
        path.rename(path.with_suffix(".jsonl"))


def announcement(track: int, song: pathlib.Path, at: float) -> str:
    """Returns the line of a song in one of the folders of an audio_dir."""
    path = f"{song.parent.name}/{song.name}"
    values = {"track_id": track, "path": path, "listens": 37 * track % 9_000}
    return json.dumps(values | {"announced_at": generations.text_of(int(at))})


def flags_of(topic: Topic, songs: list[pathlib.Path], *, window: int) -> list[str]:
    where = [f"--source={topic.folder}", f"--audio_dir={songs[0].parents[1]}"]
    return [*where, f"--window={window}s", "--poll=1s"]


def seconds_until(running: Streaming, tracks: int) -> float:
    """How long it takes until so many tracks are in the dataset."""
    started = time.monotonic()
    running.wait_for(lambda made: sum(m.counts["tracks"] for m in made) >= tracks)
    return time.monotonic() - started


def latency(folder: pathlib.Path, songs: list[pathlib.Path], flags: list[str]) -> float:
    topic = Topic(folder)
    flags = [*flags_of(topic, songs, window=_WINDOW), *flags]
    found = []
    with streaming(folder / "dataset", *flags) as running:
        topic.announce(announcement(0, songs[0], time.time() - 3_600))
        seconds_until(running, 1)  # it is up
        begin = (time.time() // _WINDOW + 1) * _WINDOW
        for number in range(_WINDOWS):
            time.sleep(max(0.0, begin + number * _WINDOW - time.time()))
            now = time.time()
            tracks = range(1 + _SONGS_A_WINDOW * number, 1 + _SONGS_A_WINDOW * (number + 1))
            topic.announce(*(announcement(t, songs[t % len(songs)], now) for t in tracks))
            found.append(now)
        made = running.wait_for(lambda made: len(made) > _WINDOWS)
    times = []
    for announced, manifest in zip(found, made[1:], strict=True):
        path = pathlib.Path(generations.folder_of(str(folder / "dataset"), manifest.generation))
        times.append((path / generations.MANIFEST_FILE).stat().st_mtime - announced - _WINDOW)
    listed = ", ".join(f"{seconds:.1f}" for seconds in times)
    print(f"announcement to record less the window: {listed} s", flush=True)
    return max(times)


def speed(folder: pathlib.Path, songs: list[pathlib.Path], flags: list[str]) -> float:
    small, large = dataset_job.SMALL, 4 * dataset_job.SMALL
    topic = Topic(folder)
    for count in (small, large):
        dataset_job.write_catalogue(folder / f"{count}.csv", songs, count)
    ratios = []
    with streaming(folder / "dataset", *flags_of(topic, songs, window=300), *flags) as running:
        topic.announce(announcement(0, songs[0], time.time() - 3_600))
        seconds_until(running, 1)
        tracks = 1
        for number in range(_ROUNDS):
            stream_seconds, job_seconds = [], []
            for count in (small, large):
                lines = [
                    announcement(t, songs[t % len(songs)], time.time() - 3_600)
                    for t in range(tracks, tracks + count)
                ]
                tracks += count
                topic.announce(*lines)
                stream_seconds.append(seconds_until(running, tracks))
                started = time.monotonic()
                subprocess.run(
                    [
                        *(sys.executable, "-m", "beam_pipelines.build_dataset"),
                        "--config=configs/dataset_artist.py",
                        f"--tracks_csv={folder / f'{count}.csv'}",
                        f"--audio_dir={songs[0].parent}",
                        f"--output_dir={folder / f'{number}-{count}'}",
                        *flags,
                    ],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                job_seconds.append(time.monotonic() - started)
            of_stream, of_job = (b - a for a, b in (stream_seconds, job_seconds))
            more = large - small
            ratios.append(of_job / of_stream)
            print(
                f"round {number + 1}: stream {more / of_stream:.1f}, job {more / of_job:.1f} "
                "clips/s",
                flush=True,
            )
    return statistics.median(ratios)


def memory(folder: pathlib.Path, flags: list[str]) -> float:
    topic = Topic(folder)
    music = folder / "music/tiny"
    music.mkdir(parents=True)
    songs = [music / f"{track}.mp3" for track in range(_STEPS * _NEW)]
    for track, song in enumerate(songs):
        song.write_bytes(b"song %d" % track)
    flags = [*flags_of(topic, songs, window=1), *flags]
    sizes: list[float] = []
    begin = time.time() - 86_400
    with streaming(folder / "dataset", *flags, made_up=True) as running:
        for step in range(_STEPS):
            at = begin + step
            first = step * _NEW
            lines = [announcement(t, songs[t], at) for t in range(first, first + _NEW)]
            lines += [lines[t % _NEW] for t in range(_REPEATED)] + ["no json"] * _MALFORMED
            topic.announce(*lines)
            seconds_until(running, first + _NEW)
            processes = {running.process.pid, *descendants(running.process.pid)}
            sizes.append(sum(map(resident, processes)) / 2**20)
    print("resident, MB: " + ", ".join(f"{size:.0f}" for size in sizes), flush=True)
    # Averaged, since collections of garbage move it.
    after = slice(_WARM_STEPS, _WARM_STEPS + 5)
    return statistics.mean(sizes[-5:]) / statistics.mean(sizes[after])


if __name__ == "__main__":
    print(measure())
