"""Damaged records: named, or left out and counted."""

import dataclasses
import random
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from common import dataset_reader, records
from common.errors import UserFacingError
from trainer.data import damaged_records, reader


@pytest.fixture
def copy(dataset_dir, tmp_path):
    """A dataset to be damaged, and its training shards."""
    shutil.copytree(dataset_dir, tmp_path / "dataset")
    shards = sorted((tmp_path / "dataset").glob("train.tfrecord-*"))
    return tmp_path / "dataset", [shard for shard in shards if shard.stat().st_size]


def frames(data: bytes) -> list[tuple[int, int]]:
    """(begin, end) of each record's bytes in a TFRecord file, by the format's definition."""
    found, begin = [], 0
    while begin < len(data):
        end = begin + 12 + struct.unpack_from("<Q", data, begin)[0] + 4
        found.append((begin, end))
        begin = end
    return found


def flip(path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def ids(info, dataset_dir) -> list[int]:
    columns = reader.read_columns(info, str(dataset_dir), "train", ["track_id"])
    return sorted(columns["track_id"].tolist())


def test_one_damaged_record_is_left_out_and_those_after_it_stay(copy, tmp_path):
    folder, (shard, *_) = copy
    info = dataset_reader.load_dataset_info(str(folder))
    before = ids(info, folder)
    spans = frames(shard.read_bytes())
    assert len(spans) > 2
    (lost,) = [
        values["track_id"]
        for index, values in enumerate(
            map(records.decode_example, records.read_records(shard.open("rb"), name="x"))
        )
        if index == 1
    ]
    flip(shard, (spans[1][0] + spans[1][1]) // 2)
    problem = rf"{shard.name}, record 1: .*--skip_damaged"
    with pytest.raises(UserFacingError, match=problem), damaged_records.named(info, str(folder)):
        ids(info, folder)

    (tmp_path / "copies").mkdir()
    left, found = damaged_records.left_out(info, str(folder), str(tmp_path / "copies"))
    assert [str(record) for record in found] == [f"{shard}, record 1: its data is damaged"]
    assert dataset_reader.load_dataset_info(str(tmp_path / "copies")) == left
    assert ids(left, tmp_path / "copies") == sorted(set(before) - {lost})
    assert left.splits["train"].num_examples == len(before) - 1
    assert sum(left.splits["train"].class_counts.values()) == len(before) - 1
    assert left.splits["test"].num_examples == info.splits["test"].num_examples
    copies = (tmp_path / "copies").glob("*.tfrecord-*")
    assert [path.name for path in copies if not path.is_symlink()] == [shard.name]


def test_behind_a_damaged_length_all_is_lost_and_counted(copy, tmp_path):
    folder, (shard, *_) = copy
    info = dataset_reader.load_dataset_info(str(folder))
    spans = frames(shard.read_bytes())
    flip(shard, spans[1][0] + 3)
    (tmp_path / "copies").mkdir()
    left, found = damaged_records.left_out(info, str(folder), str(tmp_path / "copies"))
    assert len(found) == len(spans) - 1
    assert "record 1: its length is damaged" in str(found[0])
    assert "record 2: lost behind" in str(found[1])
    here = ids(left, tmp_path / "copies")
    assert len(here) == info.splits["train"].num_examples - len(found)


def test_a_whole_record_that_is_no_example(copy, tmp_path):
    folder, (shard, *_) = copy
    info = dataset_reader.load_dataset_info(str(folder))
    data = shard.read_bytes()
    begin, end = frames(data)[0]
    shard.write_bytes(records.frame(b"\x07 no example") + data[end:])
    assert begin == 0
    problem = f"{shard.name}, record 0: not an example"
    with pytest.raises(UserFacingError, match=problem), damaged_records.named(info, str(folder)):
        list(reader.batches(info, str(folder), "train", batch_size=4))
    (tmp_path / "copies").mkdir()
    left, (found,) = damaged_records.left_out(info, str(folder), str(tmp_path / "copies"))
    assert f"{shard.name}, record 0" in str(found)
    assert len(ids(left, tmp_path / "copies")) == info.splits["train"].num_examples - 1


def test_damage_anywhere_adds_up(copy, tmp_path):
    folder, shards = copy
    info = dataset_reader.load_dataset_info(str(folder))
    draw = random.Random(0)
    for number in range(25):
        shard = draw.choice(shards)
        good = shard.read_bytes()
        if draw.random() < 0.5:
            flip(shard, draw.randrange(len(good)))
        else:
            shard.write_bytes(good[: draw.randrange(len(good))])
        copies = tmp_path / str(number)
        copies.mkdir()
        left, found = damaged_records.left_out(info, str(folder), str(copies))
        assert found
        assert len(ids(left, copies)) + len(found) == info.splits["train"].num_examples
        shard.write_bytes(good)


def test_a_missing_shard_is_refused(copy, tmp_path):
    folder, (shard, *_) = copy
    info = dataset_reader.load_dataset_info(str(folder))
    shard.unlink()
    (tmp_path / "copies").mkdir()
    with pytest.raises(UserFacingError, match=f"{shard.name}: the shard is missing"):
        damaged_records.left_out(info, str(folder), str(tmp_path / "copies"))


def test_nothing_damaged_changes_nothing(dataset_dir, tmp_path):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    left, found = damaged_records.left_out(info, str(dataset_dir), str(tmp_path))
    assert found == []
    assert dataclasses.asdict(left) == dataclasses.asdict(info)
    assert all(path.is_symlink() for path in tmp_path.glob("*.tfrecord-*"))


def test_other_errors_of_tensorflow_stay_as_they_are(dataset_dir):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    stays = pytest.raises(tf.errors.InvalidArgumentError)
    with stays, damaged_records.named(info, str(dataset_dir)):
        tf.reshape(tf.constant(np.zeros(3)), [2])
