"""Measures which stage of the input is slow, each without those after it."""

import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from common.dataset_info import DatasetInfo
from trainer.data import reader
from trainer.data.augment import Augmentation
from trainer.train_config import TrainConfig

_SECONDS_A_STAGE = 2.0


def slowest(config: TrainConfig, info: DatasetInfo, dataset_dir: str) -> str:
    """Returns a line: how many examples a second each stage gives, and which costs most."""
    costs, told, before = {}, [], 0.0
    for name, batches in stages(config, info, dataset_dir):
        seconds = seconds_an_example(batches, config.batch_size)
        told.append(f"{name} {1 / seconds:,.0f}")
        costs[name], before = seconds - before, seconds
    slow = max(costs, key=lambda name: costs[name])
    return f"input alone, examples/s after each stage: {', '.join(told)}; slowest: {slow}"


def stages(
    config: TrainConfig, info: DatasetInfo, dataset_dir: str
) -> Iterator[tuple[str, tf.data.Dataset]]:
    """Yields (name, batches) of the input up to each of its stages."""
    stored = reader.read_records(info, dataset_dir, "train")
    shuffled = reader.read_records(
        info, dataset_dir, "train", shuffle_buffer=config.shuffle_buffer, seed=config.seed
    )
    training: dict[str, Any] = {
        "batch_size": config.batch_size,
        "names": ("label",),
        "shuffle_buffer": config.shuffle_buffer,
        "seed": config.seed,
    }
    yield "reading", stored.batch(config.batch_size)
    yield "shuffling", shuffled.batch(config.batch_size)
    yield "parsing", reader.batches(info, dataset_dir, "train", **training)
    augmentation = Augmentation.of(config)
    if augmentation.changes_pictures:
        yield (
            "augmenting",
            reader.batches(info, dataset_dir, "train", **training, augmentation=augmentation),
        )


def seconds_an_example(batches: tf.data.Dataset, batch_size: int) -> float:
    """Returns how long an example takes, over a pass or two seconds of one."""
    started, count = time.monotonic(), 0
    for _ in batches:
        count += batch_size
        if time.monotonic() - started > _SECONDS_A_STAGE:
            break
    return (time.monotonic() - started) / max(1, count)
