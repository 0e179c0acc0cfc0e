"""The split and the shard of a track: pure functions of its row, which `track_rows` applies."""

import bisect
import itertools
import math

from common.catalogue import Track
from common.dataset_config import SPLITS, DatasetConfig
from common.errors import UserFacingError
from common.hashing import HASH_RANGE, stable_hash


def group_of(track_id: int, artist_id: int, *, by: str) -> str:
    """Returns what a split keeps together, against leakage: the artist, or the track."""
    return f"artist {artist_id}" if by == "artist" and artist_id >= 0 else f"track {track_id}"


def split_of(group: str, sizes: tuple[float, float, float], *, salt: str) -> str:
    """Returns the split of a group, drawn by its hash with the shares `sizes`."""
    position = stable_hash(group, salt=f"{salt}/split") / HASH_RANGE
    edges = [sizes[0], sizes[0] + sizes[1]]
    return SPLITS[bisect.bisect_right(edges, position)]


def split_of_track(track: Track, config: DatasetConfig) -> str:
    """Returns the split of a track where that is by artist or track, so by its row alone."""
    group = group_of(track.track_id, track.artist_id, by=config.split_by)
    return split_of(group, config.split_sizes, salt=config.salt)


def day_of(date_created: int) -> int:
    """Returns the day of a date in seconds since 1970 UTC, which a split by date keeps together."""
    return date_created // 86_400


def first_days(counts: list[tuple[int, int]], sizes: tuple[float, float, float]) -> tuple[int, int]:
    """Returns the first days of validation and test, where the oldest tracks are for training.

    A day falls into the split in which the middle one of its tracks does, so the shares are met as
    nearly as whole days allow.

    Args:
        counts: (day, how many tracks are of it), each day once.
        sizes: the shares of the splits.

    Raises:
        UserFacingError: the tracks are of too few days for the splits.
    """
    counts = sorted(counts)
    total = sum(count for _, count in counts)
    before = itertools.accumulate((count for _, count in counts), initial=0)
    edges = [sizes[0], sizes[0] + sizes[1]]
    splits = [
        bisect.bisect_right(edges, (earlier + count / 2) / total)
        for (_, count), earlier in zip(counts, before, strict=False)
    ]
    for index, name in enumerate(SPLITS):
        if sizes[index] > 0 and index not in splits:
            raise UserFacingError(
                f"config.split_by: date; no tracks are left for {name}, since all {total:,} are of "
                f"{len(counts)} days"
            )
    after = counts[-1][0] + 1
    days = [day for day, _ in counts]
    first = [
        next((day for day, split in zip(days, splits, strict=True) if split >= index), after)
        for index in (1, 2)
    ]
    return first[0], first[1]


def split_of_day(day: int, first: tuple[int, int]) -> str:
    """Returns the split of a day, given the `first_days` of validation and test."""
    return SPLITS[bisect.bisect_right(first, day)]


def shard_count(num_rows: int) -> int:
    """Returns how many shards `num_rows` clips are written to.

    As many as 64, so that workers and readers have something to share, but none of fewer than
    16 clips on average; beyond that as many as keep a shard near 4,096 clips (66 MB, a few
    minutes of work on one core).
    """
    return max(1, min(num_rows // 16, max(64, math.ceil(num_rows / 4096))))


def shard_of(shuffle_key: int, num_shards: int) -> int:
    """Returns the index of the shard that a record with this shuffle key lies in."""
    return shuffle_key * num_shards // HASH_RANGE


def shard_name(split: str, index: int, num_shards: int) -> str:
    return f"{split}.tfrecord-{index:05d}-of-{num_shards:05d}"


def num_shards_of(name: str) -> int:
    """Returns how many shards the split of a shard of this name has."""
    return int(name.rpartition("-of-")[2])
