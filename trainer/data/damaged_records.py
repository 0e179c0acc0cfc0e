"""Damaged records: finds and names them, and on demand leaves them out."""

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from common import dataset_info, dataset_reader, files, records
from common.catalogue import UNKNOWN
from common.dataset_info import DatasetInfo, Shard, Split
from common.errors import UserFacingError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenDataset:
    """A dataset that can be read: its description, its folder, and what was left out of it."""

    info: DatasetInfo
    folder: str
    damaged: tuple[records.DamagedRecord, ...] = ()

    def list_of_damaged(self) -> str:
        """Returns lines that count and name the damaged records."""
        head = f"damaged records: {len(self.damaged):,}, left out"
        return "\n".join([head, *map(str, self.damaged)])


@contextlib.contextmanager
def open_dataset(
    dataset_dir: str, *, skip_damaged: bool, pinned: Sequence[int] | None = None
) -> Iterator[OpenDataset]:
    """Opens a dataset, on demand a temporary copy without its damaged records.

    Args:
        dataset_dir: the folder.
        skip_damaged: whether to look for them first and leave them out.
        pinned: the generations to take; those that are there now unless given.

    Raises:
        UserFacingError: the dataset is not whole in another way (`load_dataset_info`).
    """
    if not skip_damaged:
        info = dataset_reader.load_dataset_info(dataset_dir, pinned=pinned)
        yield OpenDataset(info=info, folder=dataset_dir)
        return
    info = dataset_reader.load_dataset_info(dataset_dir, check_shards_of=(), pinned=pinned)
    with tempfile.TemporaryDirectory() as copies:
        left, damaged = left_out(info, dataset_dir, copies)
        yield OpenDataset(info=left, folder=copies, damaged=tuple(damaged))


@contextlib.contextmanager
def named(info: DatasetInfo, dataset_dir: str) -> Iterator[None]:
    """Turns TensorFlow's error about a damaged record into one line that names all of them."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        found = [
            str(record)
            for split in info.splits.values()
            for shard in split.shards
            for record in scan_shard(info, dataset_dir, shard)
            if isinstance(record, records.DamagedRecord)
        ]
        if not found:
            raise
        more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
        raise UserFacingError(
            f"{'; '.join(found[:3])}{more}; with --skip_damaged trainer.train and trainer.evaluate "
            "leave them out, and beam_pipelines.build_dataset --overwrite makes the dataset anew"
        ) from None


def scan_shard(
    info: DatasetInfo, dataset_dir: str, shard: Shard
) -> Iterator["bytes | records.DamagedRecord"]:
    """Yields the records of a shard, and for a damaged one what is wrong with it.

    Yields as many as were written: after a damaged length no record can be found any more.
    """
    path = files.join(dataset_dir, shard.file)
    height, width = info.config.spectrogram.shape
    # What is unknown of a track is left out of its record.
    required = {name for name, feature in info.features.items() if not feature.get("optional")}
    index = 0
    with files.open_to_read(path) as file:
        for record in records.scan_records(file, name=path):
            if isinstance(record, bytes):
                try:
                    values = records.decode_example(record)
                    picture = values["spectrogram"]
                    whole = isinstance(picture, bytes) and len(picture) == height * width
                    whole = whole and values.keys() >= required
                except (records.DamagedRecord, KeyError):
                    whole = False
                if not whole:
                    record = records.DamagedRecord(f"{path}, record {index}: not an example")
            yield record
            index += 1
    for lost in range(index, shard.num_examples):
        yield records.DamagedRecord(f"{path}, record {lost}: lost behind a damaged one")


def left_out(
    info: DatasetInfo, dataset_dir: str, folder: str
) -> tuple[DatasetInfo, list[records.DamagedRecord]]:
    """Makes a dataset without the damaged records.

    Shards that have one are written anew without it. The others are linked, or copied from a
    bucket. The fingerprint stays, since it is the same training run that resumes.

    Args:
        info: of the dataset.
        dataset_dir: where its shards lie.
        folder: a local one, where the other dataset goes.

    Returns:
        its description, and the damaged records.

    Raises:
        UserFacingError: a shard is missing, which is no damage that a training should do without.
    """
    splits: dict[str, Split] = {}
    found: list[records.DamagedRecord] = []
    for name, split in info.splits.items():
        shards, labels = [], Counter[Any]()
        for shard in split.shards:
            path = files.join(dataset_dir, shard.file)
            os.makedirs(os.path.dirname(os.path.join(folder, shard.file)), exist_ok=True)
            require(files.exists(path), f"{path}: the shard is missing")
            damaged = []
            before = labels[UNKNOWN]
            for record in scan_shard(info, dataset_dir, shard):
                if isinstance(record, bytes):
                    labels[info.newest(records.decode_example(record))["label"]] += 1
                else:
                    damaged.append(record)
            if damaged:
                shard = write_undamaged(info, dataset_dir, shard, folder)
            else:
                files.link_or_copy(path, os.path.join(folder, shard.file))
            found += damaged
            shards.append(dataclasses.replace(shard, unlabelled=labels[UNKNOWN] - before))
        splits[name] = dataclasses.replace(
            split,
            num_examples=Split.of_shards(shards).num_examples,
            class_counts={
                class_name: labels[label] for label, class_name in enumerate(info.class_names)
            },
            shards=tuple(shards),
        )
    left = dataclasses.replace(info, splits=splits)
    with open(os.path.join(folder, dataset_info.FILE_NAME), "w", encoding="utf-8") as file:
        file.write(left.to_json())
    return left, found


def write_undamaged(info: DatasetInfo, dataset_dir: str, shard: Shard, folder: str) -> Shard:
    """Writes a shard anew without its damaged records and returns its description."""
    digest, num_examples, num_bytes = hashlib.sha256(), 0, 0
    with open(os.path.join(folder, shard.file), "wb") as file:
        for record in scan_shard(info, dataset_dir, shard):
            if isinstance(record, bytes):
                framed = records.frame(record)
                file.write(framed)
                digest.update(framed)
                num_examples += 1
                num_bytes += len(framed)
    return Shard(
        file=shard.file, num_examples=num_examples, bytes=num_bytes, sha256=digest.hexdigest()
    )
