"""Which stage of the input is slow: each is measured without those after it."""

import time
from collections.abc import Iterator

import tensorflow as tf

from common.dataset_info import DatasetInfo
from trainer.data import reader
from trainer.train_config import TrainConfig

_SECONDS_A_STAGE = 2.0


def slowest(config: TrainConfig, info: DatasetInfo, dataset_dir: str) -> str:
    """A line that says how many examples a second each stage gives, and which costs most."""
    costs, told, before = {}, [], 0.0
    for name, batches in stages(config, info, dataset_dir):
        seconds = seconds_an_example(batches, config.batch_size)
        told.append(f"{name} {1 / seconds:,.0f}")
        costs[name], before = seconds - before, seconds
    slow = max(costs, key=costs.get)
    return f"input alone, examples/s after each stage: {', '.join(told)}; slowest: {slow}"


def stages(
    config: TrainConfig, info: DatasetInfo, dataset_dir: str
) -> Iterator[tuple[str, tf.data.Dataset]]:
    """(name, batches) of the input up to each of its stages."""
    stored = reader.read_records(info, dataset_dir, "train")
    shuffled = reader.read_records(
        info, dataset_dir, "train", shuffle_buffer=config.shuffle_buffer, seed=config.seed
    )
    training = {
        "batch_size": config.batch_size,
        "names": ("label",),
        "shuffle_buffer": config.shuffle_buffer,
        "seed": config.seed,
    }
    yield "reading", stored.batch(config.batch_size)
    yield "shuffling", shuffled.batch(config.batch_size)
    yield "parsing", reader.batches(info, dataset_dir, "train", **training)
    if config.freq_mask or config.time_mask:
        masks = {"freq_mask": config.freq_mask, "time_mask": config.time_mask}
        yield "masking", reader.batches(info, dataset_dir, "train", **training, **masks)


def seconds_an_example(batches: tf.data.Dataset, batch_size: int) -> float:
    """How long an example takes, over a pass or two seconds of one."""
    started, count = time.monotonic(), 0
    for _ in batches:
        count += batch_size
        if time.monotonic() - started > _SECONDS_A_STAGE:
            break
    return (time.monotonic() - started) / max(1, count)
