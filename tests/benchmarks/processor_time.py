"""Where the processor time of job, reader, training step and server goes; draws build/profile.png.

All are CPU-seconds, of all processes together, so they hardly depend on what else the machine does.
What a part costs by itself is measured apart, on the same songs or records, and taken from the
whole; of the job, the cost of its start is left out, as the difference between two sizes.
"""

import concurrent.futures
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable

from matplotlib.figure import Figure

from tests.benchmarks import dataset_job
from tests.benchmarks import serving as server
from tests.benchmarks.bar import Bar
from tests.support import processes

PICTURE = pathlib.Path("build/profile.png")
REST = "the rest"
BARS = {
    "the rest of the job": Bar(bar=0.10, better="lower"),
    "the rest of a training step": Bar(bar=0.05, better="lower"),
    "the rest of the server": Bar(bar=0.15, better="lower"),
}
_SMALL, _LARGE, _SONGS, _ROUNDS = 40, 240, 48, 5
_STEPS = 32
_SAMPLE_SECONDS = 0.1
# {what: {part: CPU-milliseconds}}
Parts = dict[str, dict[str, float]]


def measure() -> dict[str, float]:
    """The figures of BARS; draws the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        songs = dataset_job.clips(folder)
        decode, features = cost_of_songs([str(song) for song in songs])
        parts = {
            "job, a clip": rest_of(
                job_cost(songs, folder), {"decode": decode, "features": features}
            ),
            **of_training(folder),
            "server, a song": of_server(songs, folder, decode + features),
        }
    for what, costs in parts.items():
        shares = ", ".join(f"{part} {cost:.1f} ms" for part, cost in costs.items())
        print(f"{what}: {shares}", flush=True)
    draw(parts, PICTURE)
    print(f"written: {PICTURE}")

    def rest(what: str) -> float:
        return parts[what][REST] / sum(parts[what].values())

    return {
        "the rest of the job": rest("job, a clip"),
        "the rest of a training step": rest("training, a step"),
        "the rest of the server": rest("server, a song"),
    }


def rest_of(whole: float, parts: dict[str, float]) -> dict[str, float]:
    """The parts, and what is left of the whole."""
    return {**parts, REST: max(0.0, whole - sum(parts.values()))}


def milliseconds(work: Callable[[], object], count: int) -> float:
    """CPU-milliseconds of this process for each of `count` things that are done."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started) / count


# ---- songs


def cost_of_songs(paths: list[str]) -> tuple[float, float]:
    """CPU-milliseconds to decode a song and to make its record, in a process as the job's."""
    os.environ |= dataset_job.AS_A_DECODER
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        costs = pool.submit(_songs, paths).result()
    return costs


def _songs(paths: list[str]) -> tuple[float, float]:
    from beam_pipelines import clip_record
    from common import clips
    from common.catalogue import Track
    from common.dataset_config import DatasetConfig
    from configs import dataset_artist

    config = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
    track = Track(1, "", 1_000, -1, "", -1, "")
    decode, features = [], []
    for path in paths * (_ROUNDS + 1):
        data = pathlib.Path(path).read_bytes()
        started = time.process_time()
        (window,) = clips.decode_records(data, config).windows
        decoded = time.process_time()
        clip_record.record_of(track, window, config, thresholds=(1_000, 3_500))
        decode.append(decoded - started)
        features.append(time.process_time() - decoded)
    first = len(paths)  # which also load what they need
    return 1000 * statistics.mean(decode[first:]), 1000 * statistics.mean(features[first:])


def job_cost(songs: list[pathlib.Path], folder: pathlib.Path) -> float:
    """CPU-milliseconds of a clip in the dataset job, its start left out."""
    costs = []
    for number in range(_ROUNDS):
        seconds = {}
        for count in (_SMALL, _LARGE):
            catalogue = folder / f"{count}.csv"
            dataset_job.write_catalogue(catalogue, songs, count)
            output = folder / f"{number}-{count}"
            seconds[count] = of_command(dataset_job.job_command(catalogue, songs, output))
        costs.append(1000 * (seconds[_LARGE] - seconds[_SMALL]) / (_LARGE - _SMALL))
    return statistics.median(costs)


def of_command(command: list[str]) -> float:
    """CPU-seconds of a command and all below it, of which not all wait for one another."""
    used: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in (process.pid, *processes.descendants(process.pid)):
                used[pid] = max(used.get(pid, 0.0), _processor_seconds(pid))
            time.sleep(_SAMPLE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return sum(used.values())


# ---- records and steps


def of_training(folder: pathlib.Path) -> Parts:
    """The reader and the training step, six convolutions in batches of 16."""
    import tensorflow as tf

    from configs import six_conv_rgb
    from tests.benchmarks import training
    from tests.benchmarks.made_dataset import make_dataset
    from trainer.run import devices, loop
    from trainer.train_config import TrainConfig

    info = make_dataset(folder / "dataset", num_shards=4, examples_a_shard=2_500)
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    directory, size = str(folder / "dataset"), config.batch_size
    files = [f"{directory}/{shard.file}" for shard in info.splits["train"].shards]
    count = info.splits["train"].num_examples

    def whole_pass(batches: tf.data.Dataset) -> object:
        return batches.reduce(tf.constant(0, tf.int64), lambda number, _: number + 1).numpy()

    def steps(batches) -> float:
        call = config.steps_per_call
        arguments = (batches, tf.constant(call), tf.constant(0))
        trainer.run_steps(*arguments)

        def some() -> None:
            for _ in range(_STEPS // call):
                trainer.run_steps(*arguments)

        return milliseconds(some, _STEPS)

    bare = statistics.median(
        milliseconds(lambda: whole_pass(tf.data.TFRecordDataset(files).batch(size)), count)
        for _ in range(_ROUNDS)
    )
    read = statistics.median(
        milliseconds(lambda: whole_pass(training.shuffled(info, directory, size)), count)
        for _ in range(_ROUNDS)
    )
    in_memory, streamed = [], []
    for _ in range(_ROUNDS):
        in_memory.append(steps(training.in_memory(trainer, folder / "dataset")))
        streamed.append(steps(training.streamed(trainer, folder / "dataset")))
    network = statistics.median(in_memory)
    return {
        "reader, 1,000 clips": {
            "records": 1000 * bare,
            "parse, shuffle, batch": 1000 * max(0.0, read - bare),
        },
        "training, a step": rest_of(
            statistics.median(streamed), {"network": network, "reader": size * read}
        ),
    }


# ---- the server


def of_server(songs: list[pathlib.Path], folder: pathlib.Path, hearing: float) -> dict[str, float]:
    """The processes of the server for one client that asks one song after another."""
    (folder / "export").mkdir()
    export_dir, _ = server.make_export(folder / "export")
    data = [songs[place % len(songs)].read_bytes() for place in range(_SONGS)]
    with server.running_app(export_dir) as app:

        def ask() -> None:
            for song in data:
                assert app.predict(song).status == 200

        def used() -> float:
            pids = [app.process.pid, *processes.descendants(app.process.pid)]
            return sum(map(_processor_seconds, pids))

        ask()
        costs = []
        for _ in range(_ROUNDS):
            before = used()
            ask()
            costs.append(1000 * (used() - before) / len(data))
    parts = {"decode and features": hearing, "network": answer_cost(export_dir)}
    return rest_of(statistics.median(costs), parts)


def answer_cost(export_dir: str) -> float:
    """CPU-milliseconds of the model for a picture, asked by itself."""
    import numpy as np

    from serving.model.exported_model import ExportedModel

    signature = ExportedModel.newest(export_dir).signatures["spectrogram"]
    picture = np.random.default_rng(0).integers(0, 256, (1, 102, 159)).astype(np.uint8)

    def ask() -> None:
        for _ in range(_SONGS):
            signature(spectrogram=picture)["probabilities"].numpy()

    ask()
    return statistics.median(milliseconds(ask, _SONGS) for _ in range(_ROUNDS))


def _processor_seconds(pid: int) -> float:
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the picture


def draw(parts: Parts, path: pathlib.Path) -> None:
    """A bar for each, its parts as shares of it, as a PNG."""
    colors = ["#3d85c6", "#76a5d8", "#b4cfe8"]
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    for row, costs in enumerate(reversed(parts.values())):
        left, whole = 0.0, sum(costs.values())
        for place, (part, cost) in enumerate(costs.items()):
            share = cost / whole
            color = "#d9730d" if part == REST else colors[place % len(colors)]
            axes.barh(row, share, left=left, color=color, edgecolor="white")
            if share > 0.04:
                label = f"{part}\n{cost:.1f} ms" if share > 0.09 else f"{cost:.1f}"
                axes.text(left + share / 2, row, label, ha="center", va="center", fontsize=8)
            left += share
    axes.set_yticks(range(len(parts)), list(reversed(parts)))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
