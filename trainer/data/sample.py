"""Clips drawn at random from few shards, whatever the size of the dataset."""

from collections.abc import Iterable, Iterator

import numpy as np

from common import files, records
from common.catalogue import UNKNOWN
from common.dataset_info import DatasetInfo, Split
from common.errors import UserFacingError

# However many there are, no more shards than these are opened.
MAX_SHARDS = 16


def together(splits: Iterable[Split]) -> Split:
    """Returns a split that has the shards of all of these; of the classes nothing is counted."""
    return Split.of_shards([shard for split in splits for shard in split.shards])


def draw(
    info: DatasetInfo, split: Split, dataset_dir: str, *, size: int, seed: tuple[int, ...]
) -> Iterator[bytes]:
    """Yields labelled records of a split, drawn without replacement; all where there are no more.

    They come from at most MAX_SHARDS shards, drawn with chances as large as they are, of which each
    gives as many as its size lets expect. What lies between the records drawn is skipped, not read.
    Where some are unlabelled, as many more are drawn and the unlabelled ones left out, so there may
    be somewhat fewer or more than `size`.

    Args:
        info: of the dataset.
        split: whose records.
        dataset_dir: where its shards lie.
        size: how many, at most where all are labelled.
        seed: decides which.

    Raises:
        UserFacingError: a shard is missing or damaged.
    """
    rng = np.random.default_rng(seed)
    shards = [shard for shard in split.shards if shard.num_examples > shard.unlabelled]
    if len(shards) > MAX_SHARDS:
        sizes = np.array([shard.num_examples - shard.unlabelled for shard in shards], float)
        drawn = rng.choice(len(shards), MAX_SHARDS, replace=False, p=sizes / sizes.sum())
        shards = [shards[index] for index in sorted(drawn)]
    counts = np.array([shard.num_examples for shard in shards], int)
    unlabelled = sum(shard.unlabelled for shard in shards)
    total = int(counts.sum())
    if unlabelled:
        size = -(-size * total // (total - unlabelled))
    size = min(size, total)
    if not size:
        return
    of_shards = rng.multivariate_hypergeometric(counts, size)
    for shard, count in zip(shards, of_shards, strict=True):
        if count:
            wanted = set(rng.choice(shard.num_examples, count, replace=False).tolist())
            for record in _records_at(files.join(dataset_dir, shard.file), wanted):
                if not shard.unlabelled or _has_label(info, record):
                    yield record


def _has_label(info: DatasetInfo, record: bytes) -> bool:
    return info.newest(records.decode_example(record))["label"] != UNKNOWN


def _records_at(path: str, indices: set[int]) -> Iterator[bytes]:
    """Yields the records of a file at some indices, in their order."""
    try:
        with files.open_to_read(path) as file:
            yield from records.records_at(file, indices, name=path)
    except FileNotFoundError:
        raise UserFacingError(f"{path}: the shard is missing") from None
