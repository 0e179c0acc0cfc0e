"""Streams a dataset by tf.data, as its `dataset_info.json` describes it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common import files
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from trainer.data import augment

# As measured: the overhead of each batch and of each turn is as large as that of the bytes. Parsing
# one batch of 16 at a time takes a third longer; 16 shards in turns of 16 records, a tenth.
_RECORDS_PARSED_AT_ONCE = 256
_SHARDS_READ_AT_ONCE = 8
_RECORDS_OF_A_SHARD_AT_ONCE = 64


def batches(
    info: DatasetInfo,
    dataset_dir: str,
    split: str,
    *,
    batch_size: int,
    names: Sequence[str] | None = None,
    num_replicas: int = 1,
    local_replicas: Sequence[int] | None = None,
    shuffle_buffer: int = 0,
    seed: int = 0,
    epoch: int = 0,
    first_step: int = 0,
    freq_mask: int = 0,
    time_mask: int = 0,
) -> tf.data.Dataset:
    """Streams one pass over a split in batches of exactly `batch_size`, for each replica in turn.

    Each batch is a dict: `spectrogram` uint8 [batch, height, width]; of `label`, `listens`,
    `track_id`, `artist_id`, `date_created` int64 [batch] and `genre` string [batch] those asked
    for; `index` int64 [batch], the record's index in this pass; `weight` float32 [batch], 1 for a
    record of the split, 0 for the padding that fills the last batches. Every record of the
    split appears once with weight 1. Every worker reads all records and parses its own, so the
    batches of a step are the same however many replicas and workers share them.

    Args:
        info: of the dataset.
        dataset_dir: where its shards lie.
        split: `train`, `validation` or `test`.
        batch_size: records in a batch.
        names: of the columns beside the pictures; all unless given.
        num_replicas: the number of batches is a multiple of this, one for each replica in a step.
        local_replicas: which of the replicas get their batches from here; all unless given.
        shuffle_buffer: records that a shuffle holds; 0 reads in the stored order.
        seed, epoch: decide the order of a shuffle, and nothing else does but the seed of
            `tf.random.set_seed`, which a training sets once, to its own.
        first_step: how many steps are left out at the beginning.
        freq_mask, time_mask: see `augment.mask`; 0 and 0 leave the pictures as they are. What is
            masked depends on seed, epoch and index alone.
    """
    num_examples = info.splits[split].num_examples
    if not num_examples:
        raise UserFacingError(f"{dataset_dir}: the split {split} has no examples")
    local = list(range(num_replicas) if local_replicas is None else local_replicas)
    records = read_records(
        info, dataset_dir, split, shuffle_buffer=shuffle_buffer, seed=seed, epoch=epoch
    )
    filler = read_records(info, dataset_dir, split).take(1)
    step_size = batch_size * num_replicas
    records = records.concatenate(filler.repeat(-num_examples % step_size))
    records = records.skip(first_step * step_size)
    parsed_size = batch_size * max(1, _RECORDS_PARSED_AT_ONCE // batch_size)
    if len(local) == num_replicas:
        serialized = records.batch(parsed_size)
    else:
        of_replicas = records.batch(batch_size).enumerate()
        mine = tf.constant(local, tf.int64)
        serialized = (
            of_replicas.filter(lambda number, _: tf.reduce_any(number % num_replicas == mine))
            .map(lambda _, batch: batch)
            .rebatch(parsed_size)
        )
    if names is None:
        names = [name for name in info.features if name != "spectrogram"]
    parse = parser(info, names=names)
    mask = functools.partial(
        augment.mask, freq_mask=freq_mask, time_mask=time_mask, seed=_seed(seed, epoch)
    )

    def with_indices(number: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        here = number * parsed_size + tf.range(tf.size(serialized, out_type=tf.int64))
        batch, within = here // batch_size, here % batch_size
        step, replica = (
            batch // len(local),
            tf.gather(tf.constant(local, tf.int64), batch % len(local)),
        )
        indices = ((first_step + step) * num_replicas + replica) * batch_size + within
        weights = tf.cast(indices < num_examples, tf.float32)
        values = parse(serialized) | {"index": indices, "weight": weights}
        if freq_mask or time_mask:
            values["spectrogram"] = mask(values["spectrogram"], indices)
        return values

    parsed = (
        serialized.enumerate()
        .map(with_indices, num_parallel_calls=tf.data.AUTOTUNE)
        .rebatch(batch_size, drop_remainder=True)
    )
    options = tf.data.Options()
    # As many calls at once as there are cores are right from the first record on; the thread that
    # would look for a better number is waited for at the end of each pass, for up to 0.3 s.
    options.autotune.enabled = False
    return parsed.prefetch(tf.data.AUTOTUNE).with_options(options)


def read_records(
    info: DatasetInfo,
    dataset_dir: str,
    split: str,
    *,
    shuffle_buffer: int = 0,
    seed: int = 0,
    epoch: int = 0,
) -> tf.data.Dataset:
    """Streams the serialized records of a split, as stored or, with a buffer, shuffled."""
    paths = [
        files.join(dataset_dir, shard.file)
        for shard in info.splits[split].shards
        if shard.num_examples
    ]
    if not shuffle_buffer:
        return tf.data.TFRecordDataset(paths)
    paths = list(np.random.default_rng([seed, epoch]).permutation(paths))
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(len(paths), _SHARDS_READ_AT_ONCE),
        block_length=_RECORDS_OF_A_SHARD_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    num_examples = info.splits[split].num_examples
    return records.shuffle(min(shuffle_buffer, num_examples), seed=_seed(seed, epoch))


def parser(
    info: DatasetInfo, *, names: Sequence[str], pictures: bool = True
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns a function from serialized records, string [batch], to a dict of columns.

    Args:
        info: of the dataset, whose `features` say what a record has.
        names: of the columns of one value a record.
        pictures: whether there is `spectrogram` among the columns.
    """
    of_dtype = {"int64": tf.int64, "bytes": tf.string}
    columns = {
        name: tf.io.FixedLenFeature([], of_dtype[info.features[name]["dtype"]]) for name in names
    }
    if pictures:
        columns["spectrogram"] = tf.io.FixedLenFeature([], tf.string)
    shape = info.config.spectrogram.shape

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        values: dict[str, tf.Tensor] = tf.io.parse_example(serialized, columns)
        if pictures:
            values["spectrogram"] = decode_pictures(values["spectrogram"], shape)
        return values

    return parse


def num_steps(info: DatasetInfo, split: str, *, global_batch_size: int) -> int:
    """Returns how many steps one pass over a split takes."""
    return -(-info.splits[split].num_examples // global_batch_size)


def read_columns(
    info: DatasetInfo, dataset_dir: str, split: str, names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Reads whole columns of a split without its pictures, as stored: {name: array [examples]}."""
    if not info.splits[split].num_examples:
        return {name: np.array([]) for name in names}
    records = read_records(info, dataset_dir, split).batch(256)
    parts = list(
        records.map(parser(info, names=names, pictures=False), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(1)
        .as_numpy_iterator()
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def count_labels_by_genre(
    info: DatasetInfo, dataset_dir: str, split: str
) -> dict[bytes, NDArray[np.int64]]:
    """Counts the records of a split by genre and label: {genre: int64 [classes]}."""
    counts: dict[bytes, NDArray[np.int64]] = {}
    if not info.splits[split].num_examples:
        return counts
    parse = parser(info, names=["label", "genre"], pictures=False)
    records = read_records(info, dataset_dir, split).batch(256)
    parsed = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)
    for batch in parsed.as_numpy_iterator():
        for genre, label in zip(batch["genre"], batch["label"], strict=True):
            counts.setdefault(genre, np.zeros(len(info.class_names), np.int64))[label] += 1
    return counts


def decode_pictures(data: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """Decodes stored pictures, string [batch], to uint8 [batch, height, width]."""
    return tf.reshape(tf.io.decode_raw(data, tf.uint8), [-1, *shape])


def _seed(seed: int, epoch: int) -> int:
    """Returns a seed for an epoch; never 0, which tf.data takes for a random one."""
    return int(np.random.default_rng([seed, epoch, 1]).integers(1, 2**31))
