"""Labels, splits and shards: properties that hold for any catalogue."""

from collections import Counter

import pytest

from beam_pipelines import splits_and_shards
from common import hashing, labels


@pytest.mark.parametrize(
    ("listens", "label"), [(0, 0), (999, 0), (1000, 1), (3499, 1), (3500, 2), (10**9, 2)]
)
def test_a_threshold_belongs_to_the_class_above_it(listens, label):
    assert labels.label_of(listens, (1000, 3500)) == label


def test_the_hash_never_changes():
    # Golden values: another hash would move every track to another split and shard.
    assert hashing.stable_hash("track 2", salt="fma/split") == 4952654536164008435
    assert hashing.stable_hash("", salt="") == 3103138567801194480


def test_split_sizes():
    splits = Counter(
        splits_and_shards.split_of(f"artist {i}", (0.8, 0.1, 0.1), salt="s") for i in range(20_000)
    )
    assert splits["train"] == pytest.approx(16_000, rel=0.02)
    assert splits["validation"] == pytest.approx(2_000, rel=0.1)
    assert splits["test"] == pytest.approx(2_000, rel=0.1)


def test_a_split_of_size_zero_stays_empty():
    sizes = (0.5, 0.0, 0.5)
    assert {splits_and_shards.split_of(f"artist {i}", sizes, salt="s") for i in range(1000)} == {
        "train",
        "test",
    }


def test_another_salt_is_another_split():
    def splits(salt):
        return [
            splits_and_shards.split_of(f"artist {i}", (0.5, 0.25, 0.25), salt=salt)
            for i in range(100)
        ]

    assert splits("a") == splits("a") != splits("b")


def test_tracks_of_unknown_artists_are_not_one_group():
    assert splits_and_shards.group_of(1, -1, by="artist") != splits_and_shards.group_of(
        2, -1, by="artist"
    )
    assert splits_and_shards.group_of(1, 5, by="artist") == splits_and_shards.group_of(
        2, 5, by="artist"
    )
    assert splits_and_shards.group_of(1, 5, by="track") != splits_and_shards.group_of(
        2, 5, by="track"
    )


@pytest.mark.parametrize("num_rows", [0, 1, 16, 17, 31, 32, 240, 6_400, 84_000, 10**6, 10**8])
def test_shards_are_neither_tiny_nor_huge(num_rows):
    shards = splits_and_shards.shard_count(num_rows)
    assert shards >= 1
    assert num_rows / shards <= 4096
    assert shards == 1 or num_rows / shards >= 16


def test_shards_are_filled_evenly_and_in_the_order_of_the_hash():
    orders = sorted(hashing.stable_hash(str(i), salt="fma/order") for i in range(20_000))
    shards = [splits_and_shards.shard_of(order, 20) for order in orders]
    assert shards == sorted(shards)
    assert set(shards) == set(range(20))
    assert max(Counter(shards).values()) < 1150
