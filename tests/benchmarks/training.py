"""The trainer: its input, its steps, its workers and its memory, each beside what it is held to."""

import contextlib
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from common import dataset_reader
from configs import six_conv_rgb
from tests.benchmarks.bar import Bar
from tests.benchmarks.made_dataset import make_dataset
from trainer.data import reader
from trainer.launch import free_ports
from trainer.model.poster import BLOCKS, DENSE_UNITS
from trainer.run import devices, loop
from trainer.train_config import TrainConfig

BARS = {
    "input / records alone": Bar(bar=0.75, better="higher"),
    "input / reader of float_list": Bar(bar=2.0, better="higher"),
    "training / a batch in memory": Bar(bar=0.95, better="higher"),
    "mixed_bfloat16 / float32": Bar(bar=1.5, better="higher"),
    "two workers / one": Bar(bar=1.6, better="higher"),
    "step time / PyTorch": Bar(bar=0.90, better="lower"),
    "trainer's memory, 8 × the shards / 1 ×": Bar(bar=1.05, better="lower"),
}

_SECONDS = 4.0
_SHUFFLE_BUFFER = 1_000


def measure() -> dict[str, float]:
    """The values of `BARS`; without those that this machine has not what is needed for."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        info = make_dataset(folder / "dataset", num_shards=8, examples_a_shard=2_500)
        values = input_ratios(info, folder)
        values |= step_ratios(info, folder / "dataset")
        if len(os.sched_getaffinity(0)) > 1:
            values["two workers / one"] = worker_ratio(folder / "dataset")
        values["trainer's memory, 8 × the shards / 1 ×"] = memory_ratio(folder)
    return values


def in_turns(measured: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Several measurements, made in turns; prints and returns the values of each."""
    found = {name: [] for name in measured}
    for _ in range(rounds):
        for name, once in measured.items():
            found[name].append(once())
    for name, values in found.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name}: {middle:,.1f} examples/s ({low:,.1f} to {high:,.1f})", flush=True)
    return found


def ratio(values: list[float], others: list[float]) -> float:
    """The median of the rounds' ratios, since a machine's speed changes from round to round."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


# ---- input


def examples_a_second(batches: tf.data.Dataset, batch_size: int) -> float:
    """Of a whole pass, whose batches are taken where the trainer takes them: inside the graph."""
    started = time.monotonic()
    count = batches.reduce(np.int64(0), lambda count, _: count + 1)
    return batch_size * int(count) / (time.monotonic() - started)


def shuffled(info, directory: str, size: int) -> tf.data.Dataset:
    """The training split by this project's reader, its labels beside the pictures."""
    return reader.batches(
        info,
        directory,
        "train",
        batch_size=size,
        names=("label",),
        shuffle_buffer=_SHUFFLE_BUFFER,
        seed=1,
    )


def input_ratios(info, folder: pathlib.Path) -> dict[str, float]:
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    directory, size = str(folder / "dataset"), config.batch_size
    files = [f"{directory}/{shard.file}" for shard in info.splits["train"].shards]
    floats = float_list_files(info, directory, folder / "floats")
    shape = info.config.spectrogram.shape
    columns = {
        "spectrogram": tf.io.FixedLenFeature(shape, tf.float32),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def of_floats():
        records = tf.data.Dataset.from_tensor_slices(floats).interleave(
            tf.data.TFRecordDataset, cycle_length=len(floats), num_parallel_calls=tf.data.AUTOTUNE
        )
        return (
            records.shuffle(_SHUFFLE_BUFFER, seed=1)
            .batch(size)
            .map(lambda r: tf.io.parse_example(r, columns), num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    found = in_turns(
        {
            "records": lambda: examples_a_second(tf.data.TFRecordDataset(files).batch(size), size),
            "ours": lambda: examples_a_second(shuffled(info, directory, size), size),
            "floats": lambda: examples_a_second(of_floats(), size),
        },
        rounds=15,
    )
    return {
        "input / records alone": ratio(found["ours"], found["records"]),
        "input / reader of float_list": ratio(found["ours"], found["floats"]),
    }


def float_list_files(info, directory: str, folder: pathlib.Path) -> list[str]:
    """The training split again, its pictures as float_list."""
    folder.mkdir()
    files = []
    for shard in info.splits["train"].shards:
        files.append(str(folder / shard.file))
        with tf.io.TFRecordWriter(files[-1]) as writer:
            for record in tf.data.TFRecordDataset(f"{directory}/{shard.file}"):
                example = tf.train.Example.FromString(record.numpy())
                feature = example.features.feature["spectrogram"]
                levels = np.frombuffer(feature.bytes_list.value[0], np.uint8)
                feature.float_list.value.extend(levels / np.float32(255))
                writer.write(example.SerializeToString())
    return files


# ---- steps


def step_ratios(info, dataset_dir: pathlib.Path) -> dict[str, float]:
    values = six_conv_rgb.get_config().to_dict()
    trainers = {
        precision: loop.Trainer(
            TrainConfig.from_dict(values | {"precision": precision}),
            info,
            devices.strategy_for("one_device"),
        )
        for precision in ("float32", "mixed_bfloat16")
    }
    plain, half = trainers["float32"], trainers["mixed_bfloat16"]
    measured = {
        "streamed": lambda: training_speed(plain, streamed(plain, dataset_dir)),
        "in memory": lambda: training_speed(plain, in_memory(plain, dataset_dir)),
    }
    if has_amx():
        measured["half"] = lambda: training_speed(half, in_memory(half, dataset_dir))
    with pytorch_steps(plain) as of_pytorch:
        if of_pytorch:
            measured["PyTorch"] = of_pytorch
        found = in_turns(measured, rounds=9)
    ratios = {"training / a batch in memory": ratio(found["streamed"], found["in memory"])}
    if "half" in found:
        ratios["mixed_bfloat16 / float32"] = ratio(found["half"], found["in memory"])
    if "PyTorch" in found:
        ratios["step time / PyTorch"] = ratio(found["PyTorch"], found["in memory"])
    return ratios


def has_amx() -> bool:
    """Whether the CPU has AMX; with the bfloat16 of AVX-512 a step takes 1.4 times as long."""
    return "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


def streamed(trainer: loop.Trainer, dataset_dir: pathlib.Path):
    return iter(trainer.distributed("train", str(dataset_dir), epoch=0))


def in_memory(trainer: loop.Trainer, dataset_dir: pathlib.Path):
    """The first batch of an epoch again and again."""
    first = reader.batches(
        trainer.info,
        str(dataset_dir),
        "train",
        batch_size=trainer.config.batch_size,
        names=("label",),
    ).take(1)
    (batch,) = first
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    return iter(trainer.strategy.experimental_distribute_dataset(batches))


def training_speed(trainer: loop.Trainer, iterator) -> float:
    """Examples a second of the compiled steps, those left out in which buffers are filled."""
    call = trainer.config.steps_per_call
    arguments = (iterator, tf.constant(call), tf.constant(0))
    for _ in range(2):
        trainer.run_steps(*arguments)
    started, count = time.monotonic(), 0
    while time.monotonic() - started < _SECONDS:
        totals, _ = trainer.run_steps(*arguments)
        count += float(totals["weight"])
    return count / (time.monotonic() - started)


@contextlib.contextmanager
def pytorch_steps(trainer: loop.Trainer) -> Iterator[Callable[[], float] | None]:
    """Examples a second of the same network and batch in PyTorch; None where there is none."""
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed, so steps are not compared with its")
        yield None
        return
    asked = {
        "network": {
            "blocks": BLOCKS,
            "dense_units": DENSE_UNITS,
            "num_classes": len(trainer.info.class_names),
            "dropout": trainer.config.dropout,
        },
        "num_parameters": trainer.model.count_params(),
        "learning_rate": trainer.config.learning_rate,
        "batch_size": trainer.config.batch_size,
        "shape": trainer.info.config.spectrogram.shape,
    }
    command = [sys.executable, "-m", "tests.benchmarks.pytorch_steps", json.dumps(asked)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def speed() -> float:
            print(file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield speed


# ---- workers


def worker_ratio(dataset_dir: pathlib.Path) -> float:
    """Examples a second of two workers of a core each, over those of one, 16 a worker and step."""
    found = in_turns(
        {
            "one worker": lambda: speed_of_workers(1, dataset_dir),
            "two workers": lambda: speed_of_workers(2, dataset_dir),
        },
        rounds=5,
    )
    return ratio(found["two workers"], found["one worker"])


def speed_of_workers(size: int, dataset_dir: pathlib.Path) -> float:
    addresses = [f"localhost:{port}" for port in free_ports(size)]
    cores = sorted(os.sched_getaffinity(0))
    workers = []
    for index in range(size):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.benchmarks.training",
                    str(dataset_dir),
                    str(size),
                    str(cores[index]),
                ],
                env=os.environ | ({"TF_CONFIG": json.dumps(task)} if size > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    return float(outputs[0].split()[-1])


def be_a_worker(dataset_dir: str, size: str, core: str) -> None:
    """Trains on one core and prints examples a second of all workers."""
    os.sched_setaffinity(0, {int(core)})
    strategy = devices.strategy_for("auto")
    values = six_conv_rgb.get_config().to_dict()
    config = TrainConfig.from_dict(values | {"batch_size": 16 * int(size)})
    trainer = loop.Trainer(config, dataset_reader.load_dataset_info(dataset_dir), strategy)
    iterator = iter(trainer.distributed("train", dataset_dir, epoch=0))
    arguments = (iterator, tf.constant(config.steps_per_call), tf.constant(0))
    trainer.run_steps(*arguments)
    started, count = time.monotonic(), 0
    for _ in range(2):  # the same number in each worker, since they step together
        totals, _ = trainer.run_steps(*arguments)
        count += float(totals["weight"])
    print(count / (time.monotonic() - started))


# ---- memory


def memory_ratio(folder: pathlib.Path) -> float:
    """The peak of trainer.train on 32 shards over that on 4, its shuffle buffer full in both."""
    found = {}
    for num_shards in (4, 32):
        directory = folder / f"shards{num_shards}"
        make_dataset(directory, num_shards=num_shards, examples_a_shard=100)
        found[num_shards] = peak_of_training(directory, folder / f"model{num_shards}")
    print({f"{name} shards": f"{value >> 20} MB" for name, value in found.items()})
    return found[32] / found[4]


def peak_of_training(dataset_dir: pathlib.Path, model_dir: pathlib.Path) -> int:
    """The most memory that a training held, in bytes."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "trainer.train",
            "--config=configs/six_conv_rgb.py",
            "--config.epochs=1",
            "--config.shuffle_buffer=300",
            f"--dataset_dir={dataset_dir}",
            f"--model_dir={model_dir}",
        ],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss << 10


if __name__ == "__main__":
    be_a_worker(*sys.argv[1:])
