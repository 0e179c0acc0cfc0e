"""Reads a dataset back, without TensorFlow: its description, its records, whether it is whole."""

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from common import dataset_info, files, generations, records, relabelling
from common.catalogue import UNKNOWN
from common.dataset_config import SPLITS
from common.dataset_info import DatasetInfo, Shard
from common.errors import UserFacingError, require
from common.model_info import ModelInfo


def load_dataset_info(
    dataset_dir: str,
    *,
    check_shards_of: Collection[str] = SPLITS,
    pinned: Sequence[int] | None = None,
) -> DatasetInfo:
    """Reads the description of the dataset in a folder, local or gs://, with all its generations.

    Args:
        dataset_dir: the folder.
        check_shards_of: the splits each of whose shards must be there and as long as it was
            written.
        pinned: the generations to take beside 0; those that are there now unless given.

    Raises:
        UserFacingError: there is no such folder, the dataset in it is unfinished, a shard is not
            what the description says, or a generation is missing or damaged.
    """
    info = first_info(dataset_dir)
    below: dict[str, int] = {}
    if pinned is None:
        below = generations.sizes_below(dataset_dir)
        manifests = generations.load(dataset_dir, generations.numbers_in(below))
        manifests = generations.current(manifests, name=dataset_dir)
    else:
        manifests = generations.load(dataset_dir, set(pinned) - {0})
        if manifests and check_shards_of:
            below = generations.sizes_below(dataset_dir)
    info = generations.info_of_list(info, manifests, name=dataset_dir)
    info = relabelling.joined(info, manifests, dataset_dir)
    sizes = files.sizes_in(dataset_dir) | below if check_shards_of else {}
    for split in check_shards_of:
        for shard in info.splits[split].shards:
            shard_path, size = files.join(dataset_dir, shard.file), sizes.get(shard.file)
            require(size is not None, f"{shard_path}: the shard is missing")
            require(
                size == shard.bytes, f"{shard_path}: {size:,} bytes, {shard.bytes:,} were written"
            )
    return info


def load_trained_on(
    dataset_dir: str, model: ModelInfo, *, check_shards_of: Collection[str] = SPLITS
) -> DatasetInfo | None:
    """Reads the description of the generations that a model was trained on, None if they differ.

    Args:
        dataset_dir, check_shards_of: as `load_dataset_info` has them.
        model: whose fingerprint the generations must have.
    """
    pinned = model.dataset_generations or (0,)
    with contextlib.suppress(UserFacingError):
        info = load_dataset_info(dataset_dir, check_shards_of=check_shards_of, pinned=pinned)
        if info.fingerprint == model.dataset_fingerprint:
            return info
    return None


def first_info(dataset_dir: str) -> DatasetInfo:
    """Reads `dataset_info.json`, generation 0 of a dataset that grows; raises as that does."""
    path = files.join(dataset_dir, dataset_info.FILE_NAME)
    try:
        return DatasetInfo.from_json(files.read_bytes(path), name=path)
    except FileNotFoundError:
        problem = "no such folder; --dataset_dir is what build_dataset made"
        if files.folder_exists(dataset_dir):
            problem = (
                f"no {dataset_info.FILE_NAME}, so the dataset is unfinished; run "
                "beam_pipelines.build_dataset again"
            )
        raise UserFacingError(f"{dataset_dir}: {problem}") from None


def read_examples(info: DatasetInfo, dataset_dir: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (split, values) of every record, in the order of the shards.

    Listens and label are the newest of the list, and −1 where no generation of it knows them.
    """
    for name, split in info.splits.items():
        for shard in split.shards:
            for values in read_shard(shard, dataset_dir):
                if info.corrections is not None:
                    values |= info.newest(values)
                yield name, values


def read_shard(shard: Shard, dataset_dir: str) -> Iterator[dict[str, Any]]:
    """Yields the values of each record of a shard, as it was written.

    Raises:
        UserFacingError: it is missing or damaged.
    """
    try:
        with files.open_to_read(files.join(dataset_dir, shard.file)) as file:
            for index, record in enumerate(records.read_records(file, name=shard.file)):
                try:
                    values = records.decode_example(record)
                except records.DamagedRecord as error:
                    raise UserFacingError(f"{shard.file}, record {index}: {error}") from None
                yield values
    except FileNotFoundError:
        raise UserFacingError(f"{dataset_dir}: the shard {shard.file} is missing") from None


def damage(info: DatasetInfo, dataset_dir: str) -> list[str]:
    """Returns a line for each shard, and each split's classes, that is not as described."""
    found = []
    for name, split in info.splits.items():
        # Only then may the classes be others than those that the shards were written with.
        counts_labels = info.corrections is not None or split.unlabelled > 0
        classes: Counter[int] = Counter()
        for shard in split.shards:
            try:
                data = files.read_bytes(files.join(dataset_dir, shard.file))
                read = list(records.read_records(io.BytesIO(data), name=shard.file))
            except FileNotFoundError:
                found.append(f"{shard.file}: is missing")
                continue
            except records.DamagedRecord as error:
                found.append(str(error))
                continue
            if len(read) != shard.num_examples:
                found.append(f"{shard.file}: {len(read)} records, not {shard.num_examples}")
            elif hashlib.sha256(data).hexdigest() != shard.sha256:
                described = dataset_info.FILE_NAME
                if "/" in shard.file:
                    described = generations.MANIFEST_FILE
                found.append(f"{shard.file}: its SHA-256 is not the one in {described}")
            elif counts_labels:
                labels = Counter(info.newest(records.decode_example(r))["label"] for r in read)
                classes += labels
                if labels[UNKNOWN] != shard.unlabelled:
                    found.append(
                        f"{shard.file}: {labels[UNKNOWN]} records without a label, not "
                        f"{shard.unlabelled}"
                    )
        if counts_labels and not found:
            counts = [classes[label] for label in range(len(info.class_names))]
            described_counts = [split.class_counts[label] for label in info.class_names]
            if counts != described_counts:
                found.append(f"{name}: {counts} examples of the classes, not {described_counts}")
    return found
