"""A dataset as the list of its generations: manifests, the derived description, what is refused."""

import dataclasses
import hashlib
import itertools
import json

import numpy as np
import pytest

from common import dataset_info, dataset_reader, generations
from common.corrections import Corrections
from common.errors import UserFacingError
from common.generations import Manifest
from tests.benchmarks.made_dataset import make_dataset
from tests.support import generations as support


@pytest.fixture
def dataset(tmp_path):
    """A dataset that has grown by two generations, and what generation 0 was described as."""
    folder = tmp_path / "dataset"
    info = support.with_digests(make_dataset(folder, num_shards=2, examples_a_shard=20), folder)
    (folder / dataset_info.FILE_NAME).write_text(info.to_json())
    for number in (1, 2):
        part = tmp_path / f"part{number}"
        make_dataset(part, num_shards=number, examples_a_shard=16, seed=number)
        support.add(folder, part, generation=number)
    return folder


def pictures(info, folder) -> list[bytes]:
    return [values["spectrogram"] for _, values in dataset_reader.read_examples(info, str(folder))]


def test_the_list_reads_as_one_dataset(dataset):
    info = dataset_reader.load_dataset_info(str(dataset))
    assert info.generations == (0, 1, 2)
    assert info.splits["train"].num_examples == 40 + 16 + 32
    assert info.splits["test"].num_examples == 3 * 16
    files = [shard.file for shard in info.splits["train"].shards]
    assert files[:3] == [
        "train.tfrecord-00000-of-00002",
        "train.tfrecord-00001-of-00002",
        "generations/000001/train.tfrecord-00000-of-00001",
    ]
    assert not dataset_reader.damage(info, str(dataset))
    alone = []
    for folder in (dataset, dataset / "generations/000001", dataset / "generations/000002"):
        one = dataset_reader.first_info(str(folder))
        alone += pictures(one, folder)
        for label in info.class_names:
            info.splits["train"].class_counts[label] -= one.splits["train"].class_counts[label]
    assert sorted(alone) == sorted(pictures(info, dataset))
    assert set(info.splits["train"].class_counts.values()) == {0}


def test_without_generations_nothing_changes_by_a_byte(tmp_path):
    folder = tmp_path / "dataset"
    make_dataset(folder, num_shards=1, examples_a_shard=16)
    text = (folder / dataset_info.FILE_NAME).read_text()
    info = dataset_reader.load_dataset_info(str(folder))
    assert info.to_json() == text and "generations" not in json.loads(text)
    assert info.generations == ()
    assert dataset_reader.load_dataset_info(str(folder), pinned=(0,)) == info


def test_one_fingerprint_for_each_list(dataset):
    found = [
        dataset_reader.load_dataset_info(str(dataset), pinned=pinned).fingerprint
        for pinned in ((0,), (0, 1), (0, 2), (0, 1, 2))
    ]
    assert len(set(found)) == 4
    assert found[0] == dataset_reader.first_info(str(dataset)).fingerprint
    assert found[3] == dataset_reader.load_dataset_info(str(dataset)).fingerprint


def correct(dataset, generation, *, low, looks=({"track_id": 3, "listens": 4_000},)):
    """Gives a generation a list of corrections, by which the training split has more low ones."""
    folder = dataset / f"generations/{generation:06d}"
    lines = [json.dumps({"announced_at": "2026-01-01T00:00:00Z"} | look) + "\n" for look in looks]
    text = "".join(lines).encode()
    (folder / "corrections.jsonl").write_bytes(text)
    values = json.loads((folder / "manifest.json").read_text())
    values["source"]["corrections"] = len(lines)
    values["corrected"] = {
        "sha256": hashlib.sha256(text).hexdigest(),
        "class_counts": {"train": {"low": low, "high": -low}, "validation": {}, "test": {}},
    }
    (folder / "manifest.json").write_text(json.dumps(values))


def test_corrections_of_a_generation_change_the_fingerprint_and_the_classes(dataset):
    before = dataset_reader.load_dataset_info(str(dataset))
    found = {before.fingerprint}
    for low, listens in ((0, 4_000), (-1, 4_000), (1, 0)):
        correct(dataset, 2, low=low, looks=[{"track_id": 3, "listens": listens}])
        info = dataset_reader.load_dataset_info(str(dataset))
        assert (info.corrections.listens_of(3), info.corrections.listens_of(4)) == (listens, -1)
        counts, old = (each.splits["train"].class_counts for each in (info, before))
        assert counts == old | {"low": old["low"] + low, "high": old["high"] - low}
        found.add(info.fingerprint)
    assert len(found) == 3  # by what is listed
    assert dataset_reader.load_dataset_info(str(dataset), pinned=(0, 1)).corrections is None
    correct(dataset, 2, low=1_000)
    with pytest.raises(UserFacingError, match=r"damaged; corrected.class_counts .* train"):
        dataset_reader.load_dataset_info(str(dataset))


@pytest.mark.parametrize(
    "look",
    [{"track_id": -1, "listens": 1}, {"track_id": 3, "listens": 1.5}, {"track_id": 3},
     {"track_id": 3, "listens": 2**70}, {"track_id": 3, "listens": 1, "announced_at": "today"}],
)  # fmt: skip
def test_corrections_are_read_strictly(dataset, look):
    correct(dataset, 1, low=0, looks=[look])
    with pytest.raises(UserFacingError, match=r"000001/corrections\.jsonl: damaged"):
        dataset_reader.load_dataset_info(str(dataset))


def test_the_newest_look_counts_in_any_order():
    looks = [(3, 20.0, 7), (1, 5.0, 2), (3, 10.0, 9), (1, 5.0, 4), (2, 1.0, 0), (3, 20.0, 6)]
    for order in itertools.permutations(looks):
        track_ids, seconds, listens = map(np.array, zip(*order, strict=True))
        found = Corrections.newest(track_ids=track_ids, seconds=seconds, listens=listens)
        assert [found.listens_of(track) for track in range(5)] == [-1, 4, 0, 7, -1]


def test_a_folder_without_a_manifest_is_unfinished(dataset):
    before = dataset_reader.load_dataset_info(str(dataset))
    unfinished = dataset / "generations/000003"
    unfinished.mkdir()
    (unfinished / "train.tfrecord-00000-of-00001").write_bytes(b"half")
    assert dataset_reader.load_dataset_info(str(dataset)) == before


def test_one_made_of_others_takes_their_place(dataset, tmp_path):
    pinned = dataset_reader.load_dataset_info(str(dataset))
    make_dataset(tmp_path / "part", num_shards=3, examples_a_shard=16)
    support.add(dataset, tmp_path / "part", generation=3, replaces=(1, 2))
    info = dataset_reader.load_dataset_info(str(dataset))
    assert info.generations == (0, 3)
    assert info.splits["train"].num_examples == 40 + 48
    # Whoever began before goes on with what was there then.
    assert dataset_reader.load_dataset_info(str(dataset), pinned=pinned.generations) == pinned


def test_what_is_not_whole_is_said(dataset):
    shard = dataset / "generations/000002/test.tfrecord-00000-of-00001"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserFacingError, match=r"generations/000002/test.*were written"):
        dataset_reader.load_dataset_info(str(dataset))
    damaged = bytearray(whole)
    damaged[40] ^= 1
    shard.write_bytes(damaged)
    info = dataset_reader.load_dataset_info(str(dataset))
    (line,) = dataset_reader.damage(info, str(dataset))
    assert "000002/test" in line or "test.tfrecord" in line
    shard.write_bytes(whole)

    manifest = dataset / "generations/000001/manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    with pytest.raises(UserFacingError, match="generation 1 is missing"):
        dataset_reader.load_dataset_info(str(dataset))
    with pytest.raises(UserFacingError, match="generation 1 is gone"):
        dataset_reader.load_dataset_info(str(dataset), pinned=(0, 1))
    manifest.write_text(text.replace('"generation": 1', '"generation": 7'))
    with pytest.raises(UserFacingError, match=r"generation: 7, not 1"):
        dataset_reader.load_dataset_info(str(dataset))
    manifest.write_text(text)

    # Made anew beneath what was added to it.
    info = dataset_reader.first_info(str(dataset))
    other = dataclasses.replace(info, fingerprint="0" * 64)
    (dataset / dataset_info.FILE_NAME).write_text(other.to_json())
    with pytest.raises(UserFacingError, match="was added to another dataset"):
        dataset_reader.load_dataset_info(str(dataset))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("generation", 0, "generation: 0 is not a number from 1 on"),
        ("generation", True, "generation: True"),
        ("late", -1, "late: -1 is not a count"),
        ("window", ["2026-01-01T00:00:00Z"], "window"),
        ("window", ["2026-01-01T00:05:00Z", "2026-01-01T00:00:00Z"], "window"),
        ("window", ["yesterday", "today"], "window"),
        ("source", {"uri": "x", "offsets": {"a": [5, 2]}}, "source"),
        ("source", {"offsets": {}}, "source"),
        ("source", {"uri": "x", "offsets": {}, "others": [{"uri": "y"}]}, "source"),
        ("counts", {"tracks": 1.5}, "counts"),
        ("rejected", [], "rejected"),
        ("replaces", ["1"], "replaces"),
        ("fingerprint", "abc", "fingerprint"),
        ("splits.train.num_examples", 3, "splits.train.num_examples: not what its shards have"),
        ("splits.train.shards.0.file", "../x", "splits.train.shards[0]: file"),
        ("splits.train.shards.0.bytes", "9", "splits.train.shards[0]: bytes"),
        ("splits.train.shards.0.unlabelled", 1, "num_examples: not what its shards have"),
        ("splits.train.shards.0.unlabelled", 99, "shards[0].unlabelled: more than it has"),
        ("splits.train.shards.0.unlabelled", None, "splits.train.shards[0]: unlabelled: None is"),
        ("corrected", None, "corrected: None is not"),
        ("corrected", {"sha256": "0" * 64, "class_counts": {"train": {"low": 1}}}, "corrected"),
        ("splits.other", {}, "splits: not train, validation, test"),
        ("split_check.groups_in_two_splits", None, "split_check.groups_in_two_splits"),
        ("statistics", {"spectrogram": 3}, "statistics"),
        ("more", 1, "more: unknown"),
        ("format_version", 2, "format 2, this version reads 1"),
    ],
)
def test_manifests_are_read_strictly(dataset, path, value, words):
    values = json.loads((dataset / "generations/000001/manifest.json").read_text())
    *parents, last = path.split(".")
    inner = values
    for name in parents:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = value
    with pytest.raises(UserFacingError) as raised:
        Manifest.from_json(json.dumps(values), name="m.json")
    assert str(raised.value).startswith("m.json: ") and words in str(raised.value)


@pytest.mark.parametrize("field", ["generation", "splits", "source", "window", "versions"])
def test_a_missing_field_is_named(dataset, field):
    values = json.loads((dataset / "generations/000001/manifest.json").read_text())
    del values[field]
    with pytest.raises(UserFacingError, match=f"{field}: missing"):
        Manifest.from_json(json.dumps(values))
    for text in ("", "[]", "{", "null"):
        with pytest.raises(UserFacingError, match=r"not a manifest\.json"):
            Manifest.from_json(text)


def test_a_manifest_reads_back(dataset):
    path = dataset / "generations/000002/manifest.json"
    manifest = Manifest.from_json(path.read_text())
    assert manifest.to_json() == path.read_text()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.5+01:00", 0.5),
        ("2026-11-25t10:00:00z", 1795600800),
        ("2000-02-29T23:59:59.123456789-00:00", 951868799.123456789),
    ],
)
def test_dates_of_rfc_3339(text, seconds):
    assert generations.seconds_of(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-25", "2026-11-25T10:00:00", "2026-13-01T00:00:00Z", "٢026-11-25T10:00:00Z"],
)
def test_other_dates_are_refused(text):
    with pytest.raises(ValueError):
        generations.seconds_of(text)
