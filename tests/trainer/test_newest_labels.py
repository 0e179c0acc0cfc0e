"""Readers have the newest listens and labels of a list of generations, and pass over what has none.

What they should have is told by the announcements alone.
"""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from beam_pipelines import pipeline
from beam_pipelines.stream import compaction
from common import dataset_reader, labels, records
from tests.support.streams import (
    CONFIG,
    RULES,
    MadeUp,
    announce,
    announced,
    batch,
    make_music,
    row,
    stream,
)
from trainer.continuous import replay
from trainer.data import damaged_records, reader, sample
from trainer.run import compared_exports

LATER = dataclasses.replace(RULES, unlabelled=True)
SPLITS = ("train", "validation", "test")
COLUMNS = ("track_id", "listens", "label")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tracks 0 to 11 of a batch, 14 to 35 that came later, of which the odd ones had no listens.

    Returns the folder, and {track: listens} of what is known in the end.
    """
    folder = tmp_path_factory.mktemp("grown")
    make_music(folder / "music")
    later = range(14, 36)
    listens = {t: row(t)["listens"] for t in (*range(12), *later) if t < 12 or not t % 2}
    newer = {2: 4_001, 9: 0, 16: 4_002, 20: 1, 15: 3_600, 17: 0, 31: 1_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Decoder", MadeUp)
        batch(folder, [row(track) for track in range(12)], output="dataset")
        announce(
            folder / "announced",
            *(
                announced(t, at=t % 3 * 300, **({} if t in listens else {"listens": None}))
                for t in reversed(later)
            ),
        )
        stream(folder, rules=LATER)
        announce(
            folder / "announced",
            *(announced(track, at=1_000 + track, listens=n) for track, n in newer.items()),
            announced(2, at=900, listens=5),  # older than what comes before it
        )
        stream(folder, rules=LATER)
    return folder / "dataset", listens | newer


@pytest.fixture
def grown(made):
    """Of `made`, for tests that only read it."""
    return str(made[0]), made[1]


@pytest.fixture
def own(made, tmp_path):
    """A copy of `made`, for tests that change it."""
    shutil.copytree(made[0], tmp_path / "dataset")
    return str(tmp_path / "dataset"), made[1]


def load(folder, **how):
    return dataset_reader.load_dataset_info(folder, **how)


def tracks_in(info, folder, split, *, batch_size=4, **how):
    """(track, listens, label) of every example of a pass."""
    found = []
    for values in reader.batches(
        info, folder, split, batch_size=batch_size, names=COLUMNS, **how
    ).as_numpy_iterator():
        real = values["weight"] > 0
        found += zip(*(values[name][real].tolist() for name in COLUMNS), strict=True)
    return found


def columns_of(info, folder, split):
    """The same, of whole columns."""
    columns = reader.read_columns(info, folder, split, COLUMNS)
    return list(zip(*(columns[name].tolist() for name in COLUMNS), strict=True))


def everything(info, folder):
    return sorted(found for split in SPLITS for found in columns_of(info, folder, split))


def expected(listens):
    return sorted((t, n, labels.label_of(n, CONFIG.thresholds)) for t, n in listens.items())


def test_each_labelled_track_once_with_its_newest_listens_before_a_compaction_and_after(own):
    folder, listens = own
    info = load(folder)
    assert everything(info, folder) == expected(listens)
    assert (info.num_examples, info.unlabelled) == (len(listens), 8)
    assert not dataset_reader.damage(info, folder)
    for split in SPLITS:
        found = columns_of(info, folder, split)
        counts = np.bincount([label for _, _, label in found], minlength=3).tolist()
        assert counts == list(info.splits[split].class_counts.values())
        assert len(found) == info.splits[split].num_examples

    compaction.compact(folder)
    compacted = load(folder)
    assert everything(compacted, folder) == expected(listens)
    assert compacted.unlabelled == 8 and not dataset_reader.damage(compacted, folder)
    assert len(compacted.corrections) == 2  # of generation 0, whose records stay
    for split in SPLITS:
        assert dataclasses.replace(compacted.splits[split], shards=()) == dataclasses.replace(
            info.splits[split], shards=()
        )
    assert load(folder, pinned=info.generations) == info  # whoever began before goes on


@pytest.mark.parametrize("how", [{}, {"shuffle_buffer": 16, "num_replicas": 2}])
def test_a_pass_in_batches_has_the_labelled_ones_alone(grown, how):
    folder, _ = grown
    info = load(folder)
    found = tracks_in(info, folder, "train", **how)
    assert sorted(found) == sorted(columns_of(info, folder, "train"))


def test_a_pinned_list_has_the_labels_of_that_list(grown):
    folder, listens = grown
    info = load(folder)
    before = load(folder, pinned=(0, 1, 2, 3))
    assert before.corrections is None and before.fingerprint != info.fingerprint
    first = {t: row(t)["listens"] for t in listens if t < 12 or not t % 2}
    assert everything(before, folder) == expected(first)
    assert before.unlabelled == 11 and not dataset_reader.damage(before, folder)


def test_what_comes_of_labels_that_is_no_column_has_the_newest_too(grown):
    folder, listens = grown
    info = load(folder)
    beside = reader.Beside(log_listens=True)
    origin = np.mean(np.log1p(CONFIG.thresholds))
    for values in reader.batches(
        info, folder, "train", batch_size=4, names=("track_id",), beside=beside
    ).as_numpy_iterator():
        told = [np.log1p(listens[track]) - origin for track in values["track_id"]]
        assert values["log_listens"] == pytest.approx(told, abs=1e-5)


def test_without_later_labels_nothing_is_joined(grown):
    folder, _ = grown
    info = load(folder, pinned=(0,))
    assert info.corrections is None and info.unlabelled == 0

    def operations(info, **how):
        parse = tf.function(reader.parser(info, **how))
        graph = parse.get_concrete_function(tf.TensorSpec([None], tf.string)).graph
        return sorted({operation.type for operation in graph.get_operations()})

    of_labels = {"names": COLUMNS, "pictures": False}
    assert operations(info, **of_labels) == ["Const", "Identity", "ParseExampleV2", "Placeholder"]
    assert "LowerBound" in operations(load(folder), **of_labels)
    # Nor where no label is asked for, as in an export.
    assert "LowerBound" not in operations(load(folder), names=("track_id",))


def test_only_labelled_clips_are_drawn_and_replayed(grown, tmp_path):
    folder, listens = grown
    info = load(folder)
    for split in info.splits.values():
        drawn = sample.draw(info, split, folder, size=1_000, seed=(1,))
        tracks = {records.decode_example(record)["track_id"] for record in drawn}
        assert len(tracks) == split.num_examples and tracks <= listens.keys()
    (tmp_path / "update").mkdir()
    mixed = replay.mix(
        info,
        new=(3,),
        share=0.6,
        dataset_dir=folder,
        folder=str(tmp_path / "update"),
        seed=0,
        test=(),
    )
    found = columns_of(mixed, folder, "train")
    assert len(found) == mixed.splits["train"].num_examples
    assert set(found) <= set(expected(listens))
    of_newest = compared_exports.rows_of_newest(info, "train")
    rows = columns_of(replay.only(info, {of_newest[0]}), folder, "train")
    assert columns_of(info, folder, "train")[of_newest[1]] == rows


def test_damaged_records_are_left_out_of_what_is_labelled(own):
    folder, listens = own
    info = load(folder)
    shard = next(s for s in info.splits["train"].shards if s.file.startswith("generations/000001"))
    path = f"{folder}/{shard.file}"
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff\xff")
    with damaged_records.open_dataset(folder, skip_damaged=True) as opened:
        assert len(opened.damaged) == 1
        found = everything(opened.info, opened.folder)
        assert opened.info.num_examples + opened.info.unlabelled == 33
        assert len(found) == opened.info.num_examples
        assert set(found) <= set(expected(listens))
