"""Which class a track is of, which split it goes to and which shard: pure functions of its row."""

import bisect
import hashlib
import itertools
import math

from beam_pipelines.command import InputError
from beam_pipelines.dataset_config import SPLITS

_HASH_RANGE = 1 << 63


def stable_hash(key: str, *, salt: str) -> int:
    """A 63-bit hash (BLAKE2b) that is the same on every machine and in every run."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, salt=_salt_bytes(salt)).digest()
    return int.from_bytes(digest, "big") >> 1  # Beam pickles an int that is not an int64


def _salt_bytes(salt: str) -> bytes:
    return hashlib.blake2b(salt.encode(), digest_size=hashlib.blake2b.SALT_SIZE).digest()


def label_of(listens: int, thresholds: tuple[int, ...]) -> int:
    """The class of a number of listens: how many of the rising thresholds it has reached."""
    return bisect.bisect_right(thresholds, listens)


def thresholds_at(
    counts: list[tuple[int, int]], *, quantiles: tuple[float, ...]
) -> tuple[int, ...]:
    """The thresholds that put the shares `quantiles` of all tracks below them.

    Each is the first number of listens that is heard by none of the lowest share, so equal
    numbers are never torn apart and a share may be a little smaller than asked for.

    Args:
        counts: (listens, how many tracks have them), each number of listens once.
        quantiles: rising, between 0 and 1.

    Raises:
        InputError: the listens are too much alike for so many classes.
    """
    counts = sorted(counts)
    total = sum(count for _, count in counts)
    cumulative = list(itertools.accumulate(count for _, count in counts))
    found = tuple(counts[bisect.bisect_right(cumulative, q * total)][0] for q in quantiles)
    if len(set(found)) < len(found) or found[0] == counts[0][0]:
        raise InputError(f"config.quantiles: {quantiles} fall on the same listens, {found}")
    return found


def group_of(track_id: int, artist_id: int, *, by: str) -> str:
    """What may not be torn apart by the split: the artist, or the track where none is known."""
    return f"artist {artist_id}" if by == "artist" and artist_id >= 0 else f"track {track_id}"


def split_of(group: str, sizes: tuple[float, float, float], *, salt: str) -> str:
    """The split of a group, drawn by its hash with the shares `sizes`."""
    position = stable_hash(group, salt=f"{salt}/split") / _HASH_RANGE
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
    return order * num_shards // _HASH_RANGE


def shard_name(split: str, index: int, num_shards: int) -> str:
    return f"{split}.tfrecord-{index:05d}-of-{num_shards:05d}"
