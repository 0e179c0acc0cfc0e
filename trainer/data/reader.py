"""Streams a dataset by tf.data, as its `dataset_info.json` describes it."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common import files
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from trainer.data.augment import Augmentation, augment
from trainer.model.input_encoder import InputEncoder

# As measured: the overhead of each batch and of each turn is as large as that of the bytes. Parsing
# one batch of 16 at a time takes a third longer; 16 shards in turns of 16 records, a tenth.
_RECORDS_PARSED_AT_ONCE = 256
_SHARDS_READ_AT_ONCE = 8
_RECORDS_OF_A_SHARD_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """What a network takes of a record beside its picture, and what it is trained to tell of it.

    Attributes:
        encoder: gives `metadata` float32 [batch, size].
        arrays: of `chroma` and `tempo`, those asked for, uint8 as `DatasetInfo.features` says.
        genres: gives `genre_index` int64 [batch], where among these a record's genre is, else −1.
        log_listens: whether there is `log_listens` float32 [batch], ln(1 + listens) less that of
            the thresholds' mean.
    """

    encoder: InputEncoder | None = None
    arrays: tuple[str, ...] = ()
    genres: tuple[str, ...] = ()
    log_listens: bool = False


NOTHING = Beside()


def batches(
    info: DatasetInfo,
    dataset_dir: str,
    split: str,
    *,
    batch_size: int,
    names: Sequence[str] | None = None,
    beside: Beside = NOTHING,
    num_replicas: int = 1,
    local_replicas: Sequence[int] | None = None,
    shuffle_buffer: int = 0,
    seed: int = 0,
    epoch: int = 0,
    first_step: int = 0,
    augmentation: Augmentation | None = None,
) -> tf.data.Dataset:
    """Streams one pass over a split in batches of exactly `batch_size`, for each replica in turn.

    Each batch is a dict: `spectrogram` uint8 [batch, height, width]; of `label`, `listens`,
    `track_id`, `artist_id`, `date_created` int64 [batch] and `genre` string [batch] those asked
    for; what is asked for `beside` the picture; `index` int64 [batch], the record's index in this
    pass; `weight` float32 [batch], 1 for a record of the split, 0 for the repeated one that fills
    the last batches. Every record of the split appears once with weight 1. Every worker reads all
    records and parses its own, so the batches of a step are the same however many replicas and
    workers share them.

    Args:
        info: of the dataset.
        dataset_dir: where its shards lie.
        split: `train`, `validation` or `test`.
        batch_size: records in a batch.
        names: of the columns beside the pictures; all that every record has unless given.
        beside: what else there is.
        num_replicas: the number of batches is a multiple of this, one for each replica in a step.
        local_replicas: which of the replicas get their batches from here; all unless given.
        shuffle_buffer: records that a shuffle holds; 0 reads in the stored order.
        seed, epoch: decide the order of a shuffle, and nothing else does but the seed of
            `tf.random.set_seed`, which a training sets once, to its own.
        first_step: how many steps are left out at the beginning.
        augmentation: what is changed in the examples, which depends on seed, epoch and index alone.
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
    parse = parser(info, names=scalars(info) if names is None else names, beside=beside)
    epoch_seed = _seed(seed, epoch)

    # It has no loop or condition over tensors, for which AutoGraph would rewrite it.
    @tf.autograph.experimental.do_not_convert
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
        if augmentation is None:
            return values
        return augment(values, indices, augmentation, seed=epoch_seed)

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
    """Streams the serialized records of a split that have a label, as stored or shuffled.

    Args:
        info, dataset_dir, split: as `batches` has them.
        shuffle_buffer: records that a shuffle holds; 0 reads in the stored order.
        seed, epoch: decide the order of a shuffle.
    """
    shards = [shard for shard in info.splits[split].shards if shard.num_examples > shard.unlabelled]
    paths = [files.join(dataset_dir, shard.file) for shard in shards]
    labelled = _labelled(info) if any(shard.unlabelled for shard in shards) else None
    if not shuffle_buffer:
        records = tf.data.TFRecordDataset(paths)
        return records if labelled is None else records.apply(labelled)
    paths = list(np.random.default_rng([seed, epoch]).permutation(paths))
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(len(paths), _SHARDS_READ_AT_ONCE),
        block_length=_RECORDS_OF_A_SHARD_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if labelled is not None:
        records = records.apply(labelled)
    num_examples = info.splits[split].num_examples
    return records.shuffle(min(shuffle_buffer, num_examples), seed=_seed(seed, epoch))


def _labelled(info: DatasetInfo) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A function that leaves out the serialized records that have no label."""
    parse = parser(info, names=("label",), pictures=False)

    @tf.autograph.experimental.do_not_convert
    def labelled(serialized: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(serialized, parse(serialized)["label"] >= 0)

    return lambda records: records.batch(_RECORDS_PARSED_AT_ONCE).map(labelled).unbatch()


def scalars(info: DatasetInfo) -> tuple[str, ...]:
    """The columns of one value a record that every record has."""
    return tuple(
        name
        for name, feature in info.features.items()
        if not feature["shape"] and not feature.get("optional")
    )


def parser(
    info: DatasetInfo,
    *,
    names: Sequence[str],
    beside: Beside = NOTHING,
    pictures: bool = True,
    may_lack: bool = False,
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function from serialized records, string [batch], to a dict of columns.

    Listens and label are the newest of the dataset's list of generations, −1 where unknown.

    Args:
        info: of the dataset, whose `features` say what a record has.
        names: of the columns of one value a record.
        beside: what else there is.
        pictures: whether there is `spectrogram` among the columns.
        may_lack: whether a record may lack what every one of the dataset has, as unknown.
    """
    needed = {*names, *(() if beside.encoder is None else beside.encoder.dtypes)}
    needed |= {"genre"} if beside.genres else set()
    needed |= {"listens"} if beside.log_listens else set()
    newest = None
    if info.corrections is not None and (of_labels := needed & {"listens", "label"}):
        needed, newest = needed | {"track_id"}, _newest(info, of_labels)
    parsed = {name: _parsing(info.features[name], may_lack=may_lack) for name in sorted(needed)}
    for name in beside.arrays + ("spectrogram",) * pictures:
        # A record that has none gets zeros.
        size = int(np.prod(info.features[name]["shape"]))
        parsed[name] = tf.io.FixedLenFeature([], tf.string, default_value=bytes(size))
    if pictures:
        parsed["spectrogram"] = tf.io.FixedLenFeature([], tf.string)
    origin = float(np.mean(np.log1p(info.thresholds))) if info.thresholds else 0.0

    @tf.autograph.experimental.do_not_convert
    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.io.parse_example(serialized, parsed)
        if newest is not None:
            found |= newest(found)
        values = {name: found[name] for name in names}
        for name in beside.arrays + ("spectrogram",) * pictures:
            values[name] = decode_pictures(found[name], info.features[name]["shape"])
        if beside.encoder is not None:
            values["metadata"] = beside.encoder(
                {name: as_input(found[name]) for name in beside.encoder.dtypes}
            )
        if beside.genres:
            same = found["genre"][:, tf.newaxis] == tf.constant(beside.genres)
            index = tf.argmax(tf.cast(same, tf.int8), axis=1)
            values["genre_index"] = tf.where(tf.reduce_any(same, axis=1), index, -1)
        if beside.log_listens:
            listens = tf.cast(found["listens"], tf.float32)
            values["log_listens"] = tf.math.log1p(listens) - origin
        return values

    parsing: Callable[[tf.Tensor], dict[str, tf.Tensor]] = parse
    return parsing


def _newest(
    info: DatasetInfo, names: Collection[str]
) -> Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """A function from parsed columns to `listens` and `label`, with what came after the records.

    Args:
        info: of the dataset.
        names: of the two, those that are wanted.
    """
    assert info.corrections is not None
    # Tensors and no constants, which would be written into the graph.
    track_ids = tf.convert_to_tensor(info.corrections.track_ids)
    listens = tf.convert_to_tensor(info.corrections.listens)
    thresholds = tf.constant(info.thresholds, tf.float64)

    def newest(columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        wanted = columns["track_id"]
        place = tf.minimum(tf.searchsorted(track_ids, wanted), tf.size(track_ids) - 1)
        found = {"listens": tf.gather(listens, place)}
        found["label"] = tf.searchsorted(
            thresholds, tf.cast(found["listens"], tf.float64), side="right", out_type=tf.int64
        )
        is_newer = tf.gather(track_ids, place) == wanted
        return {name: tf.where(is_newer, found[name], columns[name]) for name in names}

    return newest


def _parsing(feature: Mapping[str, Any], *, may_lack: bool) -> tf.io.FixedLenFeature:
    """How a column of one value is parsed; an optional one has a default that means unknown."""
    dtype = {"int64": tf.int64, "bytes": tf.string, "float32": tf.float32}[feature["dtype"]]
    unknown = {tf.int64: -1, tf.string: b"", tf.float32: float("nan")}[dtype]
    default = unknown if may_lack or feature.get("optional") else None
    return tf.io.FixedLenFeature([], dtype, default_value=default)


def as_input(values: tf.Tensor) -> tf.Tensor:
    """A stored column as the encoder takes it: strings, or float32, below 0 of int64 unknown."""
    if values.dtype == tf.int64:
        return tf.where(values >= 0, tf.cast(values, tf.float32), float("nan"))
    return values


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
        records.map(
            parser(info, names=names, pictures=False),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(1)
        .as_numpy_iterator()
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def decode_pictures(data: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Stored pictures, string [batch] → uint8 [batch, *shape]."""
    return tf.reshape(tf.io.decode_raw(data, tf.uint8), [-1, *shape])


def _seed(seed: int, epoch: int) -> int:
    """Returns a seed for an epoch; never 0, which tf.data takes for a random one."""
    return int(np.random.default_rng([seed, epoch, 1]).integers(1, 2**31))
