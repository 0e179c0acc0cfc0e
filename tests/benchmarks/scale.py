"""How the dataset job grows from 8 thousand to 100 million clips: a model, and what it is held to.

The model takes the job's own functions and sizes and multiplies them up. It assumes:

- rows like FMA's (an id, a path of 14 bytes, genre, date; six and a half tracks an artist), split
  80/10/10 by artist, one clip a track;
- a hash that spreads rows evenly: the sizes of shards are drawn from a multinomial. Up to 80,000
  rows the real hash splits them, beyond that they have just their shares;
- bytes through a GroupByKey: the mean of 2,000 rows of the catalogue in the coder that Beam picked
  for it, times the number of elements. Artists meet once a shard that they are in;
- memory: of a worker that writes a shard, the rows of the largest shard as Python tuples; of the
  one worker that reads the catalogue, what it keeps of each row; of the one that finishes, the
  descriptions of all shards and, at the most that --max_reject_fraction=0.05 allows, of the
  rejected tracks. Each on top of what every worker has resident with its decoder, measured below;
  what a runner holds of what it hands over is not in it: half a million rows and a million alike
  brought a worker to some 300 MB more (`million_rows` bounds that);
- time: clips are independent, each takes the processor time that clips of 30 s take here; a
  shard's time is normal with the mean and variance of so many. A free worker takes the next shard.
  Start-up, slower machines and waiting for a bucket are not in it.

Held against it: the job on 1, 2, 4 and 8 thousand rows that point at ten clips again and again,
most of them short so that the count of clips is what differs and not the hours of audio.
"""

import csv
import functools
import heapq
import io
import json
import pathlib
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import soundfile
from apache_beam.coders import WindowedValueCoder
from apache_beam.coders.coders import GlobalWindowCoder
from apache_beam.transforms.window import GlobalWindows

from beam_pipelines import clip_record, dataset_job, pipeline, splits_and_shards
from beam_pipelines.output_folder import Mode, Work
from beam_pipelines.written_shard import RejectedTrack, ShardSummary
from common import catalogue, dataset_reader, hashing, rejection
from common.catalogue import Track
from common.clips import decode_records
from common.dataset_config import SPLITS, DatasetConfig
from common.tables import aligned
from configs import dataset_artist
from tests.benchmarks import counted_job, process_memory
from tests.benchmarks.bar import Bar
from tests.support.paths import FMA_SAMPLE

SIZES = (8_000, 80_000, 800_000, 8_000_000, 100_000_000)
MEASURED = (1_000, 2_000, 4_000, 8_000)
WORKERS = (64, 1_000)

BARS = {
    "scale: memory of a worker and its decoder, MB": Bar(bar=700, better="lower"),
    "scale: memory of a worker, 8 k / 1 k clips": Bar(bar=1.10, better="lower"),
    "scale: shards, off the model": Bar(bar=0.02, better="lower"),
    "scale: shuffled bytes, off the model": Bar(bar=0.10, better="lower"),
    "scale: largest memory of a worker at 100 M clips, GB": Bar(bar=3.5, better="lower"),
}

_SAMPLED_ROWS, _LARGEST_HASHED = 2_000, 80_000
_TRACKS_OF_AN_ARTIST = 6.5
_REJECTED_AT_MOST = 0.05
_NUM_SHORT, _NUM_LONG, _LONG_EVERY = 8, 2, 100
_CONFIG = DatasetConfig.from_dict(dataset_artist.get_config().to_dict() | {"min_seconds": 1.0})
_GENRES = ("Rock", "Electronic", "Hip-Hop", "Folk", "Experimental", "International", "")


# ---------------------------------------------------------------- a catalogue of any size


def track(number: int, size: int) -> Track:
    """A row of a catalogue of `size` rows."""
    clip = number % _NUM_SHORT
    if number % _LONG_EVERY == 0:
        clip = _NUM_SHORT + number // _LONG_EVERY % _NUM_LONG
    return Track(
        track_id=3 * number // 2,
        path=f"clips/{clip:04d}.mp3",
        listens=1_000 * (number % 97) // 9,
        artist_id=number % max(1, round(size / _TRACKS_OF_AN_ARTIST)),
        genre=_GENRES[number % len(_GENRES)],
        date_created=1_200_000_000 + 86_400 * (number % 3_000),
        split="",
    )


def write_catalogue(path: pathlib.Path, size: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "path", "listens", "artist_id", "genre", "date_created"])
        for number in range(size):
            row = track(number, size)
            date = np.datetime_as_string(np.datetime64(row.date_created, "s"), unit="D")
            values = (row.track_id, row.path, row.listens, row.artist_id, row.genre, date)
            writer.writerow(values)


def make_clips(folder: pathlib.Path) -> list[pathlib.Path]:
    """Eight mp3s of 1.5 s and two of 30 s, of noise that fades in, different in each."""
    folder.mkdir()
    paths = []
    for number in range(_NUM_SHORT + _NUM_LONG):
        rng = np.random.default_rng(number)
        frames = int(44_100 * (1.5 if number < _NUM_SHORT else 30))
        samples = rng.normal(0, 0.1, (frames, 2)) * np.linspace(0.1, 1, frames)[:, None]
        paths.append(folder / f"{number:04d}.mp3")
        soundfile.write(paths[-1], samples, 44_100, format="MP3")
    return paths


# ---------------------------------------------------------------- the model


@functools.cache
def rows_in_split(size: int) -> dict[str, int]:
    """{split: rows}: as the real hash splits up to 80,000 rows, and just the shares beyond."""
    if size > _LARGEST_HASHED:
        shares = zip(SPLITS, _CONFIG.split_sizes, strict=True)
        return {split: round(size * share) for split, share in shares}
    return Counter(split_of(track(number, size)) for number in range(size))


def split_of(row: Track) -> str:
    group = splits_and_shards.group_of(row.track_id, row.artist_id, by=_CONFIG.split_by)
    return splits_and_shards.split_of(group, _CONFIG.split_sizes, salt=_CONFIG.salt)


def shards_of(size: int) -> dict[str, int]:
    """{split: how many shards}."""
    rows = rows_in_split(size)
    return {split: splits_and_shards.shard_count(rows[split]) for split in SPLITS}


def shard_sizes(size: int, rng: np.random.Generator) -> np.ndarray:
    """How many rows each shard of all splits has."""
    return np.concatenate(
        [
            rng.multinomial(rows_in_split(size)[split], np.full(shards, 1 / shards))
            for split, shards in shards_of(size).items()
        ]
    )


def shuffle_bytes(size: int) -> dict[str, float]:
    """Bytes of the `rows` that are grouped by shard and of the `groups`, the artists in each."""
    unused = beam.Pipeline("FnApiRunner")
    pipeline.build_dataset(
        unused,
        dataset_job.Job(
            config=_CONFIG,
            tracks_csv="catalogue.csv",
            catalog_sha256="",
            audio_dir="audio",
            output_dir="dataset",
            work=Work(Mode.NEW),
            run_id="",
            max_reject_fraction=_REJECTED_AT_MOST,
        ),
    )
    coders = {name: coder for name, (_, coder) in counted_job.shuffled(unused).items()}
    numbers = np.linspace(0, size - 1, min(size, _SAMPLED_ROWS)).astype(int).tolist()
    rows, groups = [], []
    for row in (track(number, size) for number in numbers):
        order = hashing.stable_hash(str(row.track_id), salt=f"{_CONFIG.salt}/order")
        split = split_of(row)
        rows.append(
            dataset_job.assign_to_shard(
                (split, order, row.packed()), rows_in_split(size), config=_CONFIG
            )
        )
        groups.append((("artist", row.artist_id), split))
    # An artist of k tracks, all in one of S shards, is in S (1 − (1 − 1/S)^k) different ones.
    k = _TRACKS_OF_AN_ARTIST
    pairs = sum(
        rows_in_split(size)[split] / k * shards * (1 - (1 - 1 / shards) ** k)
        for split, shards in shards_of(size).items()
    )
    return {
        "rows": size * _mean_size(coders["rows"], rows),
        "groups": pairs * _mean_size(coders["groups"], groups),
    }


def _mean_size(coder: beam.coders.Coder, elements: list) -> float:
    """Bytes of an element as it travels, with its window."""
    windowed = WindowedValueCoder(coder, GlobalWindowCoder())
    return statistics.mean(
        len(windowed.encode(GlobalWindows.windowed_value(element))) for element in elements
    )


class Costs(NamedTuple):
    """What one of each takes, measured here: bytes in Python's memory, seconds of a processor."""

    row_bytes: float  # of a row while its shard is written
    catalogue_bytes: float  # of a row that was read
    shard_bytes: float  # of a shard's description
    rejected_bytes: float  # of a rejected track
    row_seconds: float  # to read a row
    clip_seconds: float
    clip_seconds_sd: float


def measure_costs(clips: list[pathlib.Path], folder: pathlib.Path) -> Costs:
    """The costs of rows of `track` and of clips of 30 s; `folder` is for files in between."""
    num_rows = 40_000
    path = folder / "read.csv"
    write_catalogue(path, num_rows)
    data = io.BytesIO(path.read_bytes())
    started = time.process_time()
    num_read = sum(1 for _ in catalogue.read_tracks(data, name=path.name, subset="full"))
    row_seconds = (time.process_time() - started) / num_read
    data = io.BytesIO(path.read_bytes())

    def read():
        tracks = catalogue.read_tracks(data, name=path.name, subset="full")
        for _ in range(num_rows):
            next(tracks)
        return tracks  # suspended before its end, it holds what it keeps of each row

    seconds = clip_seconds(clips)
    return Costs(
        row_bytes=_bytes_of(lambda: _rows_of_a_shard(4_096)) / 4_096,
        catalogue_bytes=_bytes_of(read) / num_rows,
        shard_bytes=_bytes_of(lambda: _summaries(1_000)) / 1_000,
        rejected_bytes=_bytes_of(lambda: _rejected_tracks(10_000)) / 10_000,
        row_seconds=row_seconds,
        clip_seconds=statistics.mean(seconds),
        clip_seconds_sd=statistics.stdev(seconds),
    )


def clip_seconds(clips: list[pathlib.Path]) -> list[float]:
    """The processor time from the bytes of a clip to its record, four times each."""
    seconds = []
    for clip in clips * 5:
        data = clip.read_bytes()
        started = time.process_time()
        (window,) = decode_records(data, _CONFIG).windows
        clip_record.record_of(track(1, 1_000), window, _CONFIG, thresholds=_CONFIG.thresholds)
        seconds.append(time.process_time() - started)
    return seconds[len(clips) :]  # the first round warms up


def _bytes_of(make: Callable[[], Any]) -> int:
    """What a value takes of Python's memory as long as it is there."""
    tracemalloc.start()
    value = make()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del value
    return used


def _rows_of_a_shard(count: int) -> tuple[list, list]:
    """As `WriteShard` has them: as they come, and unpacked."""
    rows = [(1 << 62, track(number, count).packed()) for number in range(count)]
    return rows, [Track.unpacked(values) for _, values in rows]


def _summaries(count: int) -> list[ShardSummary]:
    """As `Finish` has them of so many shards, each decoded by itself."""
    summary = ShardSummary(
        split="train",
        file=splits_and_shards.shard_name("train", 1, 20_000),
        num_examples=4_096,
        bytes=67_000_000,
        sha256="0" * 64,
        label_counts=(700, 1_900, 1_500),
        num_tracks=4_096,
        missing_audio=0,
        rejected={"undecodable": 1},
    )
    encoded = json.dumps(summary.packed())
    return [ShardSummary.unpacked(json.loads(encoded)) for _ in range(count)]


def _rejected_tracks(count: int) -> list[tuple[int, str]]:
    """As `Finish` has them, with a message of 60 letters."""
    error = rejection.ClipError("undecodable", "x" * 60)
    line = RejectedTrack.of(track(1, count), error).to_json().encode()
    return [(10**9 + number, line.decode()) for number in range(count)]


def makespan(seconds: np.ndarray, workers: int) -> float:
    """When the last shard is done, if a free worker takes the next."""
    free = [0.0] * workers
    for duration in seconds.tolist():
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def model(size: int, costs: Costs, worker_bytes: float) -> dict[str, float]:
    """What the model says of a catalogue of `size` rows, in bytes and seconds."""
    rng = np.random.default_rng(size)
    sizes = shard_sizes(size, rng)
    seconds = sizes * costs.clip_seconds
    seconds = seconds + np.sqrt(sizes) * costs.clip_seconds_sd * rng.standard_normal(len(sizes))
    shuffled = shuffle_bytes(size)
    finishes = worker_bytes + len(sizes) * costs.shard_bytes
    rejected = _REJECTED_AT_MOST * size * costs.rejected_bytes
    found = {
        "shards": len(sizes),
        "clips in the largest shard": int(sizes.max()),
        "shuffled rows, MB": shuffled["rows"] / 1e6,
        "shuffled groups, MB": shuffled["groups"] / 1e6,
        "memory: writes a shard, MB": (worker_bytes + sizes.max() * costs.row_bytes) / 1e6,
        "memory: reads the catalogue, MB": (worker_bytes + size * costs.catalogue_bytes) / 1e6,
        "memory: finishes, nothing rejected, MB": finishes / 1e6,
        "memory: finishes, 5 % rejected, MB": (finishes + rejected) / 1e6,
        "reading the catalogue, minutes": size * costs.row_seconds / 60,
        "clips, core hours": seconds.sum() / 3_600,
    }
    for workers in WORKERS:
        even = seconds.sum() / workers
        last = makespan(seconds, workers)
        found[f"{workers:,} workers, hours"] = last / 3_600
        found[f"{workers:,} workers, straggler minutes"] = (last - even) / 60
    return found


# ---------------------------------------------------------------- the measurement


class Run(NamedTuple):
    """What the job did with a catalogue of so many rows."""

    seconds: float
    worker_bytes: int
    decoder_bytes: int
    shards: int
    largest_shard: int
    shuffled: dict[str, float]


def run_job(folder: pathlib.Path, size: int) -> Run:
    catalog, output = folder / f"{size}.csv", folder / f"dataset-{size}"
    write_catalogue(catalog, size)
    usage = process_memory.run(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.counted_job",
            "--config=configs/dataset_artist.py",
            f"--config.min_seconds={_CONFIG.min_seconds}",
            f"--tracks_csv={catalog}",
            f"--audio_dir={folder}",
            f"--output_dir={output}",
        ]
    )
    info = dataset_reader.load_dataset_info(str(output))
    assert info.num_examples == size, info.rejected
    return Run(
        seconds=usage.seconds,
        worker_bytes=usage.peaks["worker"],
        decoder_bytes=usage.peaks["decoder"],
        shards=sum(len(split.shards) for split in info.splits.values()),
        largest_shard=max(shard.num_examples for s in info.splits.values() for shard in s.shards),
        shuffled=json.loads(usage.stdout.splitlines()[-1]),
    )


def measure() -> dict[str, float]:
    """The values of `BARS`; prints the assumptions, the model and the measurement."""
    print(__doc__, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        clips = make_clips(folder / "clips")
        real = sorted((FMA_SAMPLE / "fma_small").rglob("*.mp3"))
        costs = measure_costs(real or clips[_NUM_SHORT:], folder)
        runs, predicted = {}, {}
        for size in MEASURED:
            runs[size] = run = run_job(folder, size)
            predicted[size] = shuffle_bytes(size)
            print(f"{size:,} clips: {run.seconds:.0f} s", flush=True)
    print("\n" + "\n".join(aligned(_measured_rows(runs, predicted))))
    worker_bytes = max(run.worker_bytes + run.decoder_bytes for run in runs.values())
    columns = {size: model(size, costs, worker_bytes) for size in SIZES}
    print("\nthe model; one of each takes here:")
    print("\n".join(f"  {name}: {value:.4g}" for name, value in costs._asdict().items()))
    print("\n".join(aligned(_model_rows(columns))), flush=True)
    off = [
        abs(run.shuffled[name] / predicted[size][name] - 1)
        for size, run in runs.items()
        for name in run.shuffled
    ]
    at_most = max(value for name, value in columns[SIZES[-1]].items() if "memory" in name)
    return {
        "scale: memory of a worker and its decoder, MB": worker_bytes / 1e6,
        "scale: memory of a worker, 8 k / 1 k clips": runs[MEASURED[-1]].worker_bytes
        / runs[MEASURED[0]].worker_bytes,
        "scale: shards, off the model": max(
            abs(run.shards / sum(shards_of(size).values()) - 1) for size, run in runs.items()
        ),
        "scale: shuffled bytes, off the model": max(off),
        "scale: largest memory of a worker at 100 M clips, GB": at_most / 1e3,
    }


def _measured_rows(runs: dict[int, Run], predicted: dict[int, dict[str, float]]) -> list[tuple]:
    header = ("measured", *(f"{size:,} clips" for size in runs))
    rows = {
        "shards (model)": [
            f"{run.shards} ({sum(shards_of(size).values())})" for size, run in runs.items()
        ],
        "clips in the largest (model)": [
            f"{run.largest_shard} ({shard_sizes(size, np.random.default_rng(size)).max()})"
            for size, run in runs.items()
        ],
        "worker, MB": [f"{run.worker_bytes / 1e6:.0f}" for run in runs.values()],
        "its decoder, MB": [f"{run.decoder_bytes / 1e6:.0f}" for run in runs.values()],
    }
    for name in next(iter(predicted.values())):
        rows[f"shuffled {name}, kB (model)"] = [
            f"{run.shuffled[name] / 1e3:.1f} ({predicted[size][name] / 1e3:.1f})"
            for size, run in runs.items()
        ]
    return [header, *((name, *cells) for name, cells in rows.items())]


def _model_rows(columns: dict[int, dict[str, float]]) -> list[tuple]:
    def shown(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"

    return [
        ("clips", *(f"{size:,}" for size in columns)),
        *(
            (name, *(shown(column[name]) for column in columns.values()))
            for name in columns[SIZES[0]]
        ),
    ]
