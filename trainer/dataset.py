"""Streams a dataset by tf.data; it learns from `dataset_info.json` what there is to read."""

import contextlib

import numpy as np
import tensorflow as tf

from beam_pipelines import dataset_info
from beam_pipelines.command import InputError, require
from beam_pipelines.dataset_info import DatasetInfo, Shard
from trainer import augment


def load_info(dataset_dir: str) -> DatasetInfo:
    """The description of the dataset in a folder, local or gs://.

    Raises:
        InputError: there is no such folder, the dataset in it is unfinished, or a shard is not
            what it says.
    """
    path = tf.io.gfile.join(dataset_dir, dataset_info.FILE_NAME)
    if not tf.io.gfile.isdir(dataset_dir):
        raise InputError(f"{dataset_dir}: no such folder; --dataset_dir is what build_dataset made")
    if not tf.io.gfile.exists(path):
        raise InputError(
            f"{dataset_dir}: no {dataset_info.FILE_NAME}, so the dataset is unfinished; run "
            "beam_pipelines.build_dataset again"
        )
    with tf.io.gfile.GFile(path) as file:
        info = DatasetInfo.from_json(file.read(), name=path)
    for split in info.splits.values():
        for shard in split.shards:
            check_shard(shard, tf.io.gfile.join(dataset_dir, shard.file))
    return info


def check_shard(shard: Shard, path: str) -> None:
    """Raises InputError unless a shard is there and as long as it was written."""
    try:
        length = tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        raise InputError(f"{path}: the shard is missing") from None
    require(length == shard.bytes, f"{path}: {length:,} bytes, {shard.bytes:,} were written")


@contextlib.contextmanager
def damage_named(dataset_dir: str):
    """Turns TensorFlow's error about a damaged record into an InputError."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise InputError(
            f"{dataset_dir}: a shard is damaged ({error.message.splitlines()[0]}); "
            f"python -m beam_pipelines.inspect_dataset --dataset_dir={dataset_dir} --verify "
            "names it"
        ) from None


def batches(
    info: DatasetInfo,
    dataset_dir: str,
    split: str,
    *,
    batch_size: int,
    group: int = 1,
    shuffle_buffer: int = 0,
    seed: int = 0,
    epoch: int = 0,
    freq_mask: int = 0,
    time_mask: int = 0,
) -> tf.data.Dataset:
    """One pass over a split in batches of exactly `batch_size`.

    Each batch is a dict: `spectrogram` uint8 [batch, height, width]; `label`, `listens`,
    `track_id`, `artist_id`, `date_created` int64 [batch]; `genre` string [batch]; `weight`
    float32 [batch], 1 for a record of the split, 0 for the repeated one that fills the last
    batches. Every record of the split appears once with weight 1.

    Args:
        info: of the dataset.
        dataset_dir: where its shards lie.
        split: `train`, `validation` or `test`.
        batch_size: records in a batch.
        group: the number of batches is a multiple of this, one for each replica in a step.
        shuffle_buffer: records that a shuffle holds; 0 reads in the stored order.
        seed, epoch: decide the order of a shuffle, and nothing else does.
        freq_mask, time_mask: see `augment.masker`; 0 and 0 leave the pictures as they are.
    """
    shards = [shard for shard in info.splits[split].shards if shard.num_examples]
    num_examples = info.splits[split].num_examples
    if not num_examples:
        raise InputError(f"{dataset_dir}: the split {split} has no examples")
    files = [tf.io.gfile.join(dataset_dir, shard.file) for shard in shards]
    first = files[0]
    if shuffle_buffer:
        files = list(np.random.default_rng([seed, epoch]).permutation(files))
    records = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(len(files), 16),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if shuffle_buffer:
        records = records.shuffle(min(shuffle_buffer, num_examples), seed=_seed(seed, epoch))
    step = batch_size * group
    filler = tf.data.TFRecordDataset(first).take(1).repeat(-num_examples % step)
    weighted = records.map(lambda record: (record, 1.0)).concatenate(
        filler.map(lambda record: (record, 0.0))
    )
    shape = info.config.spectrogram.shape
    parsed = weighted.batch(batch_size, drop_remainder=True).map(
        lambda serialized, weights: _parse(serialized, shape) | {"weight": weights},
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    if freq_mask or time_mask:
        tf.random.set_seed(_seed(seed, epoch))  # tensorflow-io's masks take no seed of their own
        mask = augment.masker(freq_mask=freq_mask, time_mask=time_mask)
        parsed = parsed.map(
            lambda batch: batch | {"spectrogram": tf.map_fn(mask, batch["spectrogram"])}
        )
    return parsed.prefetch(tf.data.AUTOTUNE)


def num_steps(info: DatasetInfo, split: str, *, global_batch_size: int) -> int:
    """How many steps one pass over a split takes."""
    return -(-info.splits[split].num_examples // global_batch_size)


def read_columns(info: DatasetInfo, dataset_dir: str, split: str, names: list[str]) -> dict:
    """Whole columns of a split without its pictures: {name: array [examples]}."""
    if not info.splits[split].num_examples:
        return {name: np.array([]) for name in names}
    files = [tf.io.gfile.join(dataset_dir, shard.file) for shard in info.splits[split].shards]
    columns = {name: _SCALARS[name] for name in names}
    dataset = (
        tf.data.TFRecordDataset(files)
        .batch(256)
        .map(lambda records: tf.io.parse_example(records, columns))
    )
    parts = list(dataset.as_numpy_iterator())
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


_SCALARS = {
    "label": tf.io.FixedLenFeature([], tf.int64),
    "listens": tf.io.FixedLenFeature([], tf.int64),
    "track_id": tf.io.FixedLenFeature([], tf.int64),
    "artist_id": tf.io.FixedLenFeature([], tf.int64),
    "date_created": tf.io.FixedLenFeature([], tf.int64),
    "genre": tf.io.FixedLenFeature([], tf.string),
}


def _parse(serialized: tf.Tensor, shape: tuple[int, int]) -> dict[str, tf.Tensor]:
    picture = {"spectrogram": tf.io.FixedLenFeature([], tf.string)}
    values = tf.io.parse_example(serialized, _SCALARS | picture)
    return values | {"spectrogram": decode_pictures(values["spectrogram"], shape)}


def decode_pictures(data: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """Stored pictures, string [batch] → uint8 [batch, height, width]."""
    return tf.reshape(tf.io.decode_raw(data, tf.uint8), [-1, *shape])


def _seed(seed: int, epoch: int) -> int:
    """A seed for tf.data, whose own 0 would mean a random one."""
    return int(np.random.default_rng([seed, epoch, 1]).integers(1, 2**31))
