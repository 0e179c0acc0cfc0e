"""The split and the shard of a track: pure functions of its row."""

import bisect
import math

from common.dataset_config import SPLITS
from common.hashing import HASH_RANGE, stable_hash


def group_of(track_id: int, artist_id: int, *, by: str) -> str:
    """What may not be torn apart by the split: the artist, or the track where none is known."""
    return f"artist {artist_id}" if by == "artist" and artist_id >= 0 else f"track {track_id}"


def split_of(group: str, sizes: tuple[float, float, float], *, salt: str) -> str:
    """The split of a group, drawn by its hash with the shares `sizes`."""
    position = stable_hash(group, salt=f"{salt}/split") / HASH_RANGE
    edges = [sizes[0], sizes[0] + sizes[1]]
    return SPLITS[bisect.bisect_right(edges, position)]


def shard_count(num_rows: int) -> int:
    """How many shards `num_rows` clips are written to.

    As many as 64, so that workers and readers have something to share, but none of fewer than
    16 clips on average; beyond that as many as keep a shard near 4,096 clips (66 MB, a few
    minutes of work on one core).
    """
    return max(1, min(num_rows // 16, max(64, math.ceil(num_rows / 4096))))


def shard_of(order: int, num_shards: int) -> int:
    """The shard of the record whose place in the order is the hash `order`."""
    return order * num_shards // HASH_RANGE


def shard_name(split: str, index: int, num_shards: int) -> str:
    return f"{split}.tfrecord-{index:05d}-of-{num_shards:05d}"
