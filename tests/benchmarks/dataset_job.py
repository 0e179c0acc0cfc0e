"""The dataset job against a plain pool of processes that does the same work.

Two sizes of catalogue are timed, so that what a clip costs and what the start costs come apart:
marginal = (large − small) / clips between them, start-up = small − marginal × clips. The three
contestants take turns, and medians over the rounds are compared.
"""

import concurrent.futures
import csv
import io
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from common import contained_process
from examples import miniature_library as library_maker
from tests.benchmarks.bar import Bar
from tests.support.paths import FMA_SAMPLE

SMALL, LARGE, ROUNDS = 100, 500, 3
# The environment of what is compared with the job: a worker for each core is all its parallelism,
# and each keeps the memory of one clip for the next, as the job's decoders do by themselves.
AS_A_DECODER = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    **contained_process.KEEPS_MEMORY,
}

BARS = {
    "job / own pool": Bar(bar=1.03, better="lower"),
    "job / librosa pool": Bar(bar=0.65, better="lower"),
    "job start-up seconds": Bar(bar=12.0, better="lower"),
}


def clips(folder: pathlib.Path) -> list[pathlib.Path]:
    """Real clips of FMA where they lie beside the project, else clips that are made."""
    if FMA_SAMPLE.is_dir():
        return sorted((FMA_SAMPLE / "fma_small").rglob("*.mp3"))
    library = library_maker.make_library(folder / "library", num_clips=24)
    return [path for path in library.audio_dir.rglob("*.mp3") if path.stat().st_size > 150_000]


def write_catalogue(path: pathlib.Path, songs: list[pathlib.Path], count: int) -> None:
    """A plain catalogue of `count` tracks that repeat the same few songs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "path", "listens"])
        writer.writerows([i, songs[i % len(songs)], 37 * i % 9_000] for i in range(count))


def job_command(
    catalog: pathlib.Path, songs: list[pathlib.Path], output: pathlib.Path
) -> list[str]:
    return [
        sys.executable,
        "-m",
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        f"--tracks_csv={catalog}",
        f"--audio_dir={songs[0].parent}",
        f"--output_dir={output}",
    ]


def job_seconds(catalog: pathlib.Path, songs: list[pathlib.Path], output: pathlib.Path) -> float:
    started = time.perf_counter()
    subprocess.run(job_command(catalog, songs, output), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def by_own_functions(path: str) -> int:
    """The same functions that the job calls, in a plain process."""
    from beam_pipelines import clip_record
    from common.catalogue import Track
    from common.clips import decode_records
    from common.dataset_config import DatasetConfig
    from configs import dataset_artist

    config = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
    (window,) = decode_records(pathlib.Path(path).read_bytes(), config).windows
    track = Track(1, path, 1_000, -1, "", -1, "")
    return len(clip_record.record_of(track, window, config, thresholds=(1_000, 3_500)))


def by_librosa(path: str) -> int:
    """What a user of librosa would write."""
    import librosa

    waveform, rate = librosa.load(io.BytesIO(pathlib.Path(path).read_bytes()), sr=22_050)
    mel = librosa.feature.melspectrogram(y=waveform, sr=rate, n_mels=102, hop_length=520)
    return librosa.power_to_db(mel).size


def pool_seconds(function, songs: list[pathlib.Path], count: int) -> float:
    paths = [str(songs[i % len(songs)]) for i in range(count)]
    started = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(
        os.cpu_count(), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        assert all(pool.map(function, paths, chunksize=4))
    return time.perf_counter() - started


def measure() -> dict[str, float]:
    """The figures of all rounds; prints each as it comes."""
    seconds = {(name, n): [] for name in ("job", "own", "librosa") for n in (SMALL, LARGE)}
    os.environ |= AS_A_DECODER
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        songs = clips(folder)
        for count in (SMALL, LARGE):
            write_catalogue(folder / f"{count}.csv", songs, count)
        for number in range(ROUNDS):
            for count in (SMALL, LARGE):
                output = folder / f"{number}-{count}"
                catalog = folder / f"{count}.csv"
                seconds["job", count].append(job_seconds(catalog, songs, output))
                seconds["own", count].append(pool_seconds(by_own_functions, songs, count))
                seconds["librosa", count].append(pool_seconds(by_librosa, songs, count))
                figures = "  ".join(
                    f"{who} {seconds[who, count][-1]:.1f} s" for who in ("job", "own", "librosa")
                )
                print(f"round {number + 1}, {count} clips: {figures}", flush=True)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    marginal = {
        who: (median[who, LARGE] - median[who, SMALL]) / (LARGE - SMALL)
        for who in ("job", "own", "librosa")
    }
    start_up = median["job", SMALL] - marginal["job"] * SMALL
    for who, value in marginal.items():
        print(f"{who}: {1000 * value:.1f} ms a clip on {os.cpu_count()} cores")
    return {
        "job / own pool": marginal["job"] / marginal["own"],
        "job / librosa pool": marginal["job"] / marginal["librosa"],
        "job start-up seconds": start_up,
    }
