"""Training on a dataset that grows: all generations are read, and a training stays with its own."""

import dataclasses

import numpy as np
import pytest

from common import dataset_info, dataset_reader, records
from common.errors import UserFacingError
from configs import six_conv_rgb
from tests.benchmarks.made_dataset import make_dataset
from tests.support import generations as support
from trainer.data import damaged_records, reader
from trainer.run import model_folder
from trainer.train_config import TrainConfig


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    info = support.with_digests(make_dataset(folder, num_shards=1, examples_a_shard=20), folder)
    (folder / dataset_info.FILE_NAME).write_text(info.to_json())
    grow(folder, tmp_path, 1)
    return folder


def grow(dataset, tmp_path, generation):
    part = tmp_path / f"part{generation}"
    make_dataset(part, num_shards=2, examples_a_shard=16, seed=generation)
    support.add(dataset, part, generation=generation)


def pictures(info, folder, split, **how) -> list[bytes]:
    found = []
    for batch in reader.batches(info, str(folder), split, batch_size=8, **how).as_numpy_iterator():
        real = batch["weight"] > 0
        found += [picture.tobytes() for picture in batch["spectrogram"][real]]
    return found


@pytest.mark.parametrize("shuffle_buffer", [0, 16])
def test_every_record_of_every_generation_once(dataset, shuffle_buffer):
    info = dataset_reader.load_dataset_info(str(dataset))
    written = [
        values["spectrogram"]
        for split, values in dataset_reader.read_examples(info, str(dataset))
        if split == "train"
    ]
    read = pictures(info, dataset, "train", shuffle_buffer=shuffle_buffer)
    assert len(read) == 20 + 32
    assert sorted(read) == sorted(written)
    assert (read == written) == (shuffle_buffer == 0)


def test_the_same_examples_in_1_10_and_100_generations_give_the_same_batches(tmp_path):
    """Where they lie in the same order; a compaction brings others into one."""
    whole = tmp_path / "whole"
    info = make_dataset(whole, num_shards=1, examples_a_shard=100)
    (shard,) = info.splits["train"].shards
    with (whole / shard.file).open("rb") as file:
        framed = [records.frame(each) for each in records.read_records(file, name=shard.file)]
    found = {}
    for count in (1, 10, 100):
        folder = tmp_path / f"in-{count}"
        support.grow_by_parts(folder, info, framed, count=count)
        grown = dataset_reader.load_dataset_info(str(folder))
        assert len(grown.splits["train"].shards) == count
        found[count] = [
            {name: values.tobytes() for name, values in batch.items() if name != "genre"}
            for batch in reader.batches(grown, str(folder), "train", batch_size=8)
            .as_numpy_iterator()
        ]  # fmt: skip
    assert len(found[1]) == 13
    assert found[1] == found[10] == found[100]


def test_damaged_records_of_a_generation_are_left_out(dataset):
    shard = dataset / "generations/000001/train.tfrecord-00000-of-00002"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with damaged_records.open_dataset(str(dataset), skip_damaged=True) as opened:
        assert len(opened.damaged) == 1
        assert len(pictures(opened.info, opened.folder, "train")) == 20 + 31
        assert "generations/000001/train" in str(opened.damaged[0])


def test_a_training_stays_with_the_generations_it_began_with(dataset, tmp_path):
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    began = dataset_reader.load_dataset_info(str(dataset))
    model = str(tmp_path / "model")
    assert model_folder.pinned_generations(model) is None
    model_folder.claim(model, config, began)
    assert model_folder.pinned_generations(model) is None  # nothing is trained yet
    checkpoints = model_folder.newest_checkpoints(model)
    checkpoints.save({"weight": np.zeros(2)})
    checkpoints.wait()
    assert model_folder.pinned_generations(model) == (0, 1)

    grow(dataset, tmp_path, 2)
    grown = dataset_reader.load_dataset_info(str(dataset))
    assert grown.generations == (0, 1, 2)
    with pytest.raises(UserFacingError, match="holds another training"):
        model_folder.check(model, config, grown)
    pinned = model_folder.pinned_generations(model)
    with damaged_records.open_dataset(str(dataset), skip_damaged=False, pinned=pinned) as opened:
        assert opened.info == began
        model_folder.check(model, config, opened.info)
        assert model_folder.load_config(model, opened.info) == config


def test_a_training_from_before_the_dataset_grew_stays_with_that(dataset, tmp_path):
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    first = dataset_reader.load_dataset_info(str(dataset), pinned=(0,))
    assert first == dataclasses.replace(first, generations=())
    model = str(tmp_path / "model")
    model_folder.claim(model, config, first)
    checkpoints = model_folder.newest_checkpoints(model)
    checkpoints.save({"weight": np.zeros(2)})
    checkpoints.wait()
    pinned = model_folder.pinned_generations(model)
    model_folder.check(model, config, dataset_reader.load_dataset_info(str(dataset), pinned=pinned))
