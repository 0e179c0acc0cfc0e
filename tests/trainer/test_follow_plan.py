"""Which generations an update takes, and which clips it draws: without any model."""

import collections
import dataclasses
import shutil

import numpy as np
import pytest

from common import dataset_reader
from common.errors import UserFacingError
from common.generations import Manifest
from tests.benchmarks.made_dataset import make_dataset
from tests.support import drifting
from tests.trainer.test_gate import make_export
from trainer.continuous import following, plan, replay
from trainer.data import sample
from trainer.follow_config import FollowConfig
from trainer.train_config import TrainConfig


def manifest(number, *replaces) -> Manifest:
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Manifest))
    return Manifest(**fields | {"generation": number, "replaces": replaces})


def next_of(numbers, seen):
    there = [each if isinstance(each, Manifest) else manifest(each) for each in numbers]
    return plan.next_generations(there, plan.seen_of(there, seen))


def test_what_has_not_been_trained_on_is_new():
    assert next_of([1, 2, 3], [0, 1]) == ((0, 1), (2, 3))
    assert next_of([], [0]) == ((0,), ())
    assert next_of([1], [0, 1]) == ((0, 1), ())


def test_what_was_merged_of_what_is_known_is_not_new():
    merged = manifest(3, 1, 2)
    assert next_of([1, 2, merged, 4], [0, 1, 2]) == ((0, 3), (4,))
    assert next_of([merged, 4], [0, 1, 2]) == ((0, 3), (4,))  # 1 and 2 are removed
    assert next_of([merged, manifest(6, 1, 2, 3, 4), 7], [0, 3, 4]) == ((0, 6), (7,))


def test_what_was_merged_of_what_is_not_known_is_taken_as_it_was():
    merged = manifest(3, 1, 2)
    assert next_of([1, 2, merged], [0, 1]) == ((0, 1), (2,))
    assert next_of([1, 2, merged], [0]) == ((0,), (1, 2))
    assert next_of([merged], [0, 1]) == ((0,), (3,))  # as long as it is there


def test_an_update_that_is_missing_is_named(tmp_path):
    for update in (1, 2, 3):
        folder = tmp_path / f"updates/{update:06d}"
        folder.mkdir(parents=True)
        if update < 3:
            (folder / plan.DONE_FILE).write_text("{}")
    assert plan.finished(str(tmp_path)) == [{}, {}]
    (tmp_path / "updates/000001" / plan.DONE_FILE).unlink()
    with pytest.raises(UserFacingError, match="updates/000001: the update is missing or not done"):
        plan.finished(str(tmp_path))
    (tmp_path / "updates/000001" / plan.DONE_FILE).write_text("{")
    with pytest.raises(UserFacingError, match=r"updates/000001/update\.json: damaged"):
        plan.finished(str(tmp_path))


# ---- drawing


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A dataset of 40 training shards of 5 records."""
    folder = tmp_path_factory.mktemp("many") / "dataset"
    return make_dataset(folder, num_shards=40, examples_a_shard=5), str(folder)


def test_draws_are_records_of_the_split_none_twice_and_depend_on_the_seed_alone(many):
    info, folder = many
    train = info.splits["train"]
    written = collections.Counter(
        values["track_id"]
        for split, values in dataset_reader.read_examples(info, folder)
        if split == "train"
    )

    def drawn(size, seed):
        from common import records

        found = sample.draw(info, train, folder, size=size, seed=(seed,))
        return [records.decode_example(record)["track_id"] for record in found]

    first = drawn(30, 1)
    assert len(first) == len(set(first)) == 30 and set(first) <= written.keys()
    assert drawn(30, 1) == first != drawn(30, 2)
    assert drawn(0, 1) == []
    times = collections.Counter(track for seed in range(400) for track in drawn(20, seed))
    assert len(times) == 200  # each may come
    assert np.std(list(times.values())) < 3 * np.sqrt(400 * 20 / 200)
    few = dataclasses.replace(train, shards=train.shards[:3])
    assert (
        len(list(sample.draw(info, few, folder, size=100, seed=(0,)))) == 15
    )  # all that there are


def test_few_shards_are_opened_however_many_there_are(many, tmp_path):
    """The others may be gone."""
    info, folder = many
    opened = []
    real = sample.files.open_to_read

    def note(path):
        opened.append(path)
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample.files, "open_to_read", note)
        assert len(list(sample.draw(info, info.splits["train"], folder, size=60, seed=(3,)))) == 60
    assert len(set(opened)) == len(opened) <= sample.MAX_SHARDS


@pytest.mark.parametrize(("place", "what"), [(100, "data"), (4, "length"), (7, "length")])
def test_a_damaged_or_missing_shard_is_named(tmp_path, place, what):
    info = make_dataset(tmp_path / "d", num_shards=1, examples_a_shard=3)
    path = tmp_path / "d" / info.splits["train"].shards[0].file
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserFacingError, match=rf"train.*record 0: its {what} is damaged"):
        list(sample.draw(info, info.splits["train"], str(tmp_path / "d"), size=3, seed=(0,)))
    path.unlink()
    with pytest.raises(UserFacingError, match="the shard is missing"):
        list(sample.draw(info, info.splits["train"], str(tmp_path / "d"), size=3, seed=(0,)))


def test_an_update_costs_in_proportion_to_what_is_new(tmp_path):
    """And not to how much there was before."""
    for size in (100, 1_000):
        folder = tmp_path / str(size)
        drifting.write(folder / "dataset", seed=0, sizes=(size, 20, 20))
        drifting.grow(folder / "dataset", 1, sizes=(30, 6, 10))
        info = dataset_reader.load_dataset_info(str(folder / "dataset"))
        (folder / "update").mkdir()
        how = {"new": (1,), "dataset_dir": str(folder / "dataset"), "seed": 0}
        how |= {"folder": str(folder / "update")}
        mixed = replay.mix(info, share=0.4, test=(), **how)
        assert mixed.splits["train"].num_examples == 30 + 20
        assert mixed.splits["validation"].num_examples == 6 + 4
        assert mixed.splits["test"] == info.splits["test"]
        assert mixed.fingerprint == info.fingerprint
        assert mixed.splits["train"].class_counts == info.splits["train"].class_counts
        again = replay.mix(info, share=0.9, test=(1,), **how)  # what is there is taken
        assert again.splits["train"] == mixed.splits["train"]
        assert again.splits["test"].num_examples == 10


def test_the_training_of_an_update():
    from configs import short_chunk

    config = TrainConfig.from_dict(short_chunk.get_config().to_dict())
    follow = FollowConfig.from_dict(short_chunk.get_config().to_dict()["follow"])
    assert follow == FollowConfig()
    update = follow.of_update(config, number=3)
    assert (update.epochs, update.keep, update.patience) == (3, "last", 0)
    assert update.seed == config.seed + 3 and update.learning_rate == config.learning_rate
    assert update.warmup_epochs / 3 == pytest.approx(config.warmup_epochs / config.epochs)
    for field, value in (("replay", 1.0), ("epochs", 0), ("drift_js", -1.0)):
        with pytest.raises(UserFacingError, match=f"config.follow.{field}"):
            FollowConfig(**{field: value})
    with pytest.raises(UserFacingError, match=r"config\.follow\.repaly"):
        FollowConfig.from_dict({"repaly": 0.1})


# ---- the next update


@pytest.fixture
def grown(tmp_path):
    """A dataset of generations 0 to 3, and an export of a model of the first two."""
    dataset = tmp_path / "dataset"
    drifting.write(dataset, seed=0, sizes=(4, 1, 1))
    drifting.grow(dataset, 1, sizes=(4, 1, 1))
    export = tmp_path / "export/1"
    info = dataset_reader.load_dataset_info(str(dataset))
    make_export(export, dataset, dataset_generations=info.generations)
    for generation in (2, 3):
        drifting.grow(dataset, generation, sizes=(4, 1, 1))
    return tmp_path


def next_plan(folder, done=(), every=1):
    return following.next_plan(
        list(done),
        dataset_dir=str(folder / "dataset"),
        model_dir=str(folder / "model"),
        export_dir=str(folder / "export"),
        every_generations=every,
    )


def test_the_version_that_is_there_is_followed_on(grown):
    planned = next_plan(grown)
    assert (planned.generations, planned.new) == ((0, 1, 2), (2,))
    assert planned.starts_from == planned.served == planned.first == "1"
    assert next_plan(grown, every=2).new == (2, 3)
    assert next_plan(grown, every=3) is None
    assert next_plan(grown).id != planned.id


def test_an_update_that_has_begun_is_gone_on_with(grown):
    planned = next_plan(grown)
    folder = grown / "model/updates/000001"
    folder.mkdir(parents=True)
    (folder / plan.PLAN_FILE).write_text(planned.to_json())
    assert next_plan(grown) == planned
    assert next_plan(grown, every=2) == planned


def test_the_next_one_begins_with_the_model_of_the_one_before(grown):
    done = dataclasses.asdict(next_plan(grown)) | {"export": ".refused-a"}
    make_export(grown / "export/.refused-a", grown / "dataset")
    planned = next_plan(grown, [done])
    assert (planned.update, planned.generations, planned.new) == (2, (0, 1, 2, 3), (3,))
    assert (planned.starts_from, planned.served, planned.first) == (".refused-a", "1", "1")
    shutil.rmtree(grown / "export/.refused-a")  # as somebody does who needs the room
    assert next_plan(grown, [done]).starts_from == "1"
    assert next_plan(grown, [done | {"export": None}]).starts_from == "1"
    assert next_plan(grown, [done | {"generations": [0, 1, 2, 3]}]) is None


def test_a_version_of_another_dataset_can_not_be_followed_on(grown):
    make_export(grown / "export/2", grown / "dataset", dataset_fingerprint="0" * 64)
    with pytest.raises(UserFacingError, match=r"export/2: trained on another dataset than"):
        next_plan(grown)


def test_the_first_model_is_of_all_that_there_is(grown):
    shutil.rmtree(grown / "export")
    planned = next_plan(grown)
    assert (planned.generations, planned.new) == ((0, 1, 2, 3), ())
    assert planned.starts_from is planned.served is planned.first is None
    drifting.write(grown / "other/dataset", seed=0, sizes=(0, 0, 1))
    assert next_plan(grown / "other") is None  # nothing to train on yet
