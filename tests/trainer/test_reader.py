"""The reader of the trainer: every record once a pass, in an order that seed and epoch decide."""

import collections

import numpy as np
import pytest

from common import dataset_reader
from common.errors import UserFacingError
from trainer.data import reader
from trainer.evaluation import metrics


def ids_of(batches) -> list[int]:
    """The ids of a pass, padding left out."""
    return [
        int(track_id)
        for batch in batches.as_numpy_iterator()
        for track_id, weight in zip(batch["track_id"], batch["weight"], strict=True)
        if weight
    ]


@pytest.fixture(scope="module")
def info(dataset_dir):
    return dataset_reader.load_dataset_info(str(dataset_dir))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(("batch_size", "num_replicas"), [(1, 1), (4, 1), (5, 2), (16, 4)])
@pytest.mark.parametrize("shuffle_buffer", [0, 3, 1000])
def test_every_record_once(info, dataset_dir, split, batch_size, num_replicas, shuffle_buffer):
    batches = reader.batches(
        info,
        str(dataset_dir),
        split,
        batch_size=batch_size,
        num_replicas=num_replicas,
        shuffle_buffer=shuffle_buffer,
    )
    sizes = [len(batch["label"]) for batch in batches.as_numpy_iterator()]
    assert set(sizes) == {batch_size}
    steps = reader.num_steps(info, split, global_batch_size=batch_size * num_replicas)
    assert len(sizes) == steps * num_replicas
    expected = [
        example["track_id"]
        for name, example in dataset_reader.read_examples(info, str(dataset_dir))
        if name == split
    ]
    assert sorted(ids_of(batches)) == sorted(expected)


def test_values_are_those_written(info, dataset_dir):
    written = {
        example["track_id"]: example
        for _, example in dataset_reader.read_examples(info, str(dataset_dir))
    }
    batches = reader.batches(info, str(dataset_dir), "train", batch_size=4)
    for batch in batches.as_numpy_iterator():
        for place, track_id in enumerate(batch["track_id"]):
            example = written[track_id]
            assert batch["spectrogram"][place].tobytes() == example["spectrogram"]
            for name in ("label", "listens", "artist_id", "date_created", "genre"):
                assert batch[name][place] == example[name]


def test_the_order_depends_on_seed_and_epoch_alone(info, dataset_dir):
    def order(seed, epoch):
        return ids_of(
            reader.batches(
                info,
                str(dataset_dir),
                "train",
                batch_size=4,
                shuffle_buffer=8,
                seed=seed,
                epoch=epoch,
            )
        )

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert orders == [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert len({tuple(ids) for ids in orders}) == 4


def test_columns_without_pictures(info, dataset_dir):
    columns = reader.read_columns(info, str(dataset_dir), "train", ["label", "genre"])
    counts = np.bincount(columns["label"], minlength=3).tolist()
    assert counts == list(info.splits["train"].class_counts.values())
    assert len(columns["genre"]) == len(columns["label"])


def test_labels_by_genre(info, dataset_dir):
    """As the dataset's other reader counts them."""
    expected = collections.Counter(
        (example["genre"], example["label"])
        for split, example in dataset_reader.read_examples(info, str(dataset_dir))
        if split == "train"
    )
    columns = reader.read_columns(info, str(dataset_dir), "train", ["label", "genre"])
    counts = metrics.counts_by_genre(columns["genre"], columns["label"], 3)
    found = {(genre, label): n for genre, row in counts.items() for label, n in enumerate(row) if n}
    assert found == expected
    assert metrics.counts_by_genre(np.array([]), np.array([], int), 3) == {}


def test_what_is_wrong_is_said(dataset_dir, tmp_path):
    with pytest.raises(UserFacingError, match="no such folder"):
        dataset_reader.load_dataset_info(str(tmp_path / "none"))
    with pytest.raises(UserFacingError, match="unfinished"):
        dataset_reader.load_dataset_info(str(tmp_path))
    text = (dataset_dir / "dataset_info.json").read_text()
    (tmp_path / "dataset_info.json").write_text(
        text.replace('"format_version": 1', '"format_version": 9')
    )
    with pytest.raises(
        UserFacingError, match=r"dataset_info\.json: format 9, this version reads 1"
    ):
        dataset_reader.load_dataset_info(str(tmp_path))
    (tmp_path / "dataset_info.json").write_text(text[:100])
    with pytest.raises(UserFacingError, match="not a dataset_info"):
        dataset_reader.load_dataset_info(str(tmp_path))
