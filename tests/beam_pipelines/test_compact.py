"""Many generations become one: the batch job's bytes, no audio, nothing lost or repeated."""

import contextlib
import dataclasses
import json
import shutil
from collections import Counter

import pytest

from beam_pipelines import output_folder, pipeline
from beam_pipelines.stream import compaction, known, written_generation
from common import dataset_reader, generations
from common.errors import UserFacingError
from tests.support.commands import assert_refused, run_module
from tests.support.streams import (
    BEGIN,
    NOW,
    RULES,
    Killed,
    MadeUp,
    announce,
    announced,
    batch,
    everything_in,
    make_music,
    row,
    shards_of,
    stream,
)


@pytest.fixture(autouse=True)
def _decoder(monkeypatch):
    monkeypatch.setattr(pipeline, "Decoder", MadeUp)


@pytest.fixture
def music(tmp_path):
    return make_music(tmp_path / "music")


def compact(tmp_path):
    return compaction.compact(str(tmp_path / "dataset"))


def info_of(tmp_path, **which):
    return dataset_reader.load_dataset_info(str(tmp_path / "dataset"), **which)


def sorted_examples(tmp_path):
    info = info_of(tmp_path)
    found = dataset_reader.read_examples(info, str(tmp_path / "dataset"))
    return sorted((split, sorted(values.items())) for split, values in found)


def classes_in(tmp_path, split):
    """How many examples of each class a reader finds in a split."""
    info = info_of(tmp_path)
    found = Counter(
        dict(values)["label"] for name, values in sorted_examples(tmp_path) if name == split
    )
    return {name: found[label] for label, name in enumerate(info.class_names)}


def test_it_has_the_bytes_of_the_batch_job_and_needs_no_audio(tmp_path, music):
    for track in range(40, 150):  # a split of several shards
        (music / f"{track}.mp3").write_bytes(b"song %d" % track)
    announce(tmp_path / "announced", *(announced(t, at=t % 3 * 300, title="A") for t in range(140)))
    stream(tmp_path)
    announce(tmp_path / "announced", *(announced(track) for track in range(140, 150)), b"no json")
    stream(tmp_path)
    before, examples = info_of(tmp_path), sorted_examples(tmp_path)
    assert before.generations == (0, 1, 2, 3, 4)
    expected = batch(tmp_path, [row(track) for track in range(150)])
    assert len(list(expected.glob("train*"))) > 2
    shutil.rmtree(music)

    manifest = compact(tmp_path)
    assert manifest.replaces == (1, 2, 3, 4)
    assert manifest.counts == {"announced": 151, "tracks": 150} and manifest.late == 10
    assert manifest.rejected == {"malformed": 1, "undecodable": 1}
    assert manifest.window == tuple(generations.text_of(BEGIN + at) for at in (0, 900))
    made = tmp_path / "dataset/generations/000005"
    assert shards_of(made) == shards_of(expected)
    after, theirs = info_of(tmp_path), dataset_reader.load_dataset_info(str(expected))
    assert after.generations == (0, 5) and after.statistics == theirs.statistics
    assert sorted_examples(tmp_path) == examples
    for name in ("rejected", "missing_audio", "split_check", "thresholds", "features"):
        assert getattr(after, name) == getattr(before, name)
    for split in after.splits:
        ours = dataclasses.replace(after.splits[split], shards=())
        assert ours == dataclasses.replace(before.splits[split], shards=())
    # Whoever began before goes on with what was there then.
    assert info_of(tmp_path, pinned=before.generations) == before
    assert not dataset_reader.damage(after, str(tmp_path / "dataset"))


def test_once_goes_on_after_it_and_neither_loses_nor_repeats(tmp_path, music):
    """A rejected track that is announced again waits for its audio, and others wait too."""
    announce(tmp_path / "announced", *(announced(t, at=t % 2 * 300) for t in range(14)))
    announce(tmp_path / "other", announced(20), announced(21, path="21 later.mp3"))
    stream(tmp_path)
    stream(tmp_path, source="other")
    announce(
        tmp_path / "announced", announced(13, path="13 later.mp3"), announced(30, listens=None)
    )
    stream(tmp_path)

    def waiting():
        there = known.load(str(tmp_path / "dataset"), uri=str(tmp_path / "announced"))
        return sorted(entry.announcement.track_id for entry in there.waiting)

    def remembered(uri):
        there = known.load(str(tmp_path / "dataset"), uri=str(tmp_path / uri))
        return there.position, there.newest_end, there.waiting, there.listens, there.artists

    before = [remembered(uri) for uri in ("announced", "other")]
    assert waiting() == [13, 21, 30]
    compact(tmp_path)
    assert [remembered(uri) for uri in ("announced", "other")] == before
    for source in ("announced", "other"):
        assert not stream(tmp_path, source=source, now=NOW + 30)

    (music / "13 later.mp3").write_bytes(b"good now")
    (music / "21 later.mp3").write_bytes(b"good now")
    announce(tmp_path / "announced", announced(30, listens=3), announced(2), announced(31, at=600))
    manifests = stream(tmp_path, now=NOW + 60)
    assert sum(manifest.counts["tracks"] for manifest in manifests) == 4
    assert manifests[0].counts["duplicates"] == 1 and not waiting()
    tracks = [dict(values)["track_id"] for _, values in sorted_examples(tmp_path)]
    assert sorted(tracks) == [*range(14), 20, 21, 30, 31]

    # The list that said why 13 had no record is of a row that was taken since.
    again = compact(tmp_path)
    assert again.counts["superseded"] == 1 and again.rejected == {}
    assert again.replaces == tuple(range(1, again.generation))
    assert [dict(v)["track_id"] for _, v in sorted_examples(tmp_path)] == tracks
    for source in ("announced", "other"):
        assert not stream(tmp_path, source=source, now=NOW + 90)


def test_corrected_listens_have_the_bytes_of_the_batch_job(tmp_path, music):
    """Of looks in any order the newest counts, before a compaction and after it."""
    announce(tmp_path / "announced", *(announced(t, at=t % 2 * 300) for t in range(12)), b"[]")
    announce(tmp_path / "announced", announced(5, at=1_200, listens=4_000))  # in the same run
    stream(tmp_path)
    announce(
        tmp_path / "announced",
        announced(2, at=900, listens=4_001),
        announced(2, at=600, listens=17),
        announced(3, at=650, listens=4_002),
        announced(20, at=600),
    )
    stream(tmp_path)
    announce(
        tmp_path / "announced",
        announced(2, at=700, listens=18),
        announced(3, at=950, listens=0),
        announced(5, at=1_500, listens=4_000),
    )
    (third,) = stream(tmp_path)
    assert third.counts == {"announced": 3, "corrections": 1, "duplicates": 2, "tracks": 0}
    before, examples = info_of(tmp_path), sorted_examples(tmp_path)
    shutil.move(music, tmp_path / "elsewhere")
    manifest = compact(tmp_path)
    shutil.move(tmp_path / "elsewhere", music)
    assert manifest.counts["corrections"] == 5 and "corrections" not in manifest.source
    newest = {2: 4_001, 3: 0, 5: 4_000}
    expected = batch(
        tmp_path,
        [row(t, **({"listens": newest[t]} if t in newest else {})) for t in (*range(12), 20)],
    )
    made = tmp_path / f"dataset/generations/{manifest.generation:06d}"
    assert shards_of(made) == shards_of(expected)
    info, theirs = info_of(tmp_path), dataset_reader.load_dataset_info(str(expected))
    for split, found in info.splits.items():
        assert found.class_counts == theirs.splits[split].class_counts
        assert found.class_counts == before.splits[split].class_counts
    assert sorted_examples(tmp_path) == examples
    assert info.corrections is None and len(before.corrections) == 3
    assert not stream(tmp_path)
    announce(tmp_path / "announced", announced(3, at=960, listens=1), announced(2, at=800))
    (again,) = stream(tmp_path)
    assert again.counts == {"announced": 2, "corrections": 1, "duplicates": 1, "tracks": 0}
    assert shards_of(made) == shards_of(expected)


def test_corrections_of_generation_0_are_kept_and_read(tmp_path, music):
    batch(tmp_path, [row(track) for track in range(9)], output="dataset")
    for at, track in enumerate((3, 4, 20)):
        announce(tmp_path / "announced", announced(track, at=300 * at, listens=4_444))
        stream(tmp_path)
    announce(tmp_path / "announced", announced(20, at=1_200, listens=7))
    stream(tmp_path)
    before, counts = sorted_examples(tmp_path), info_of(tmp_path).splits
    listens = {dict(values)["track_id"]: dict(values)["listens"] for _, values in before}
    assert [listens[track] for track in (2, 3, 4, 20)] == [274, 4_444, 4_444, 7]
    manifest = compact(tmp_path)
    assert manifest.source["corrections"] == 2 and sorted_examples(tmp_path) == before
    for split, found in info_of(tmp_path).splits.items():
        assert found.class_counts == counts[split].class_counts
        assert found.class_counts == classes_in(tmp_path, split)
    announce(tmp_path / "announced", announced(3, at=900, listens=4_444), announced(4, at=5))
    (manifest,) = stream(tmp_path)
    assert manifest.counts == {"announced": 2, "duplicates": 2, "tracks": 0}


@pytest.mark.parametrize("kill_at", range(7))
def test_a_run_that_is_killed_changes_nothing_and_the_next_goes_on(
    tmp_path, music, monkeypatch, kill_at
):
    announce(tmp_path / "announced", *(announced(t, at=t % 3 * 300) for t in range(12)))
    stream(tmp_path, rules=dataclasses.replace(RULES, max_tracks=3))
    before = info_of(tmp_path)
    shutil.copytree(tmp_path / "dataset", tmp_path / "at_once")
    compaction.compact(str(tmp_path / "at_once"))
    step = iter(range(100))

    def dying(function):
        def call(*arguments, **named):
            if next(step) == kill_at:
                raise Killed
            return function(*arguments, **named)

        return call

    for module, name in (
        (output_folder, "write_done"),  # after each of the three shards
        (output_folder, "write_info"),
        (output_folder, "write_rejected"),
        (written_generation, "write_manifest"),
    ):
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    with contextlib.suppress(Killed):
        compact(tmp_path)
        pytest.fail("was not killed")
    assert info_of(tmp_path) == before
    compact(tmp_path)
    assert everything_in(tmp_path / "dataset") == everything_in(tmp_path / "at_once")


def test_what_is_replaced_is_removed_and_nothing_else(tmp_path, music):
    announce(tmp_path / "announced", *(announced(t, at=t % 3 * 300) for t in range(9)))
    stream(tmp_path)
    folder = tmp_path / "dataset/generations"
    assert compaction.remove_replaced(str(tmp_path / "dataset")) == ([], 0)
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    compact(tmp_path)
    info, shard = info_of(tmp_path), next((folder / "000004").glob("train*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"?")
    with pytest.raises(UserFacingError, match=r"nothing is removed, since .*train"):
        compaction.remove_replaced(str(tmp_path / "dataset"))
    assert len(list(folder.iterdir())) == 4
    shard.write_bytes(whole)
    assert compaction.remove_replaced(str(tmp_path / "dataset")) == ([1, 2, 3], num_bytes)
    assert [path.name for path in folder.iterdir()] == ["000004"]
    assert info_of(tmp_path) == info
    # One that is made of others stands for theirs too.
    announce(tmp_path / "announced", announced(20))
    assert not stream(tmp_path)[0].replaces
    assert compact(tmp_path).replaces == (1, 2, 3, 4, 5)
    assert compaction.remove_replaced(str(tmp_path / "dataset"))[0] == [4, 5]
    assert info_of(tmp_path).generations == (0, 6) and info_of(tmp_path).num_examples == 10
    assert not stream(tmp_path)


def test_versions_of_all_are_named(tmp_path, music):
    announce(tmp_path / "announced", announced(1), announced(2, at=300))
    (manifest, _) = stream(tmp_path)
    path = tmp_path / "dataset/generations/000001/manifest.json"
    older = dataclasses.replace(manifest, versions=manifest.versions | {"numpy": "1.0"})
    path.write_text(older.to_json())
    expected = manifest.versions | {"numpy": f"1.0, {manifest.versions['numpy']}"}
    assert compact(tmp_path).versions == expected


def test_only_dead_letters_can_be_merged_too(tmp_path, music):
    for _ in range(2):
        announce(tmp_path / "announced", b"nonsense")
        stream(tmp_path)
    manifest = compact(tmp_path)
    assert manifest.rejected == {"malformed": 2} and manifest.window is None
    assert not stream(tmp_path)


def test_what_is_damaged_is_named_and_nothing_is_merged(tmp_path, music):
    announce(tmp_path / "announced", *(announced(t, at=t % 2 * 300) for t in (1, 2, 13)))
    stream(tmp_path)
    folder = tmp_path / "dataset/generations/000002"
    for name, words in (
        (next(path.name for path in folder.glob("*.tfrecord*") if path.stat().st_size), "SHA-256"),
        ("catalogue.csv", "missing"),
        ("rejected.jsonl", "not the lines"),
    ):
        data = (folder / name).read_bytes()
        if name.endswith("csv"):
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data[:-1] + b"?" if words == "SHA-256" else b"")
        with pytest.raises(UserFacingError, match=f"000002/{name}: .*{words}"):
            compact(tmp_path)
        (folder / name).write_bytes(data)
    assert info_of(tmp_path).generations == (0, 1, 2)
    assert compact(tmp_path).num_examples == 2


def test_where_there_is_nothing_to_merge_it_says_so(tmp_path, music):
    announce(tmp_path / "announced", announced(1))
    stream(tmp_path)
    with pytest.raises(UserFacingError, match=r"nothing to merge; it has 1 generation beside"):
        compact(tmp_path)
    assert not (tmp_path / "dataset/generations/000002").exists()
    batch(tmp_path, [row(track) for track in range(3)])
    with pytest.raises(UserFacingError, match=r"nothing to merge; it has no generations beside"):
        compaction.compact(str(tmp_path / "batch"))


@pytest.mark.integration
def test_command(tmp_path, music):
    announce(tmp_path / "announced", announced(1), announced(2, at=300))
    stream(tmp_path)
    missing = tmp_path / "none"
    command = ("beam_pipelines.compact", f"--dataset_dir={tmp_path / 'dataset'}")
    assert_refused(run_module(command[0], f"--dataset_dir={missing}"), "no such folder")
    assert not missing.exists()
    result = run_module(*command)
    assert result.returncode == 0 and "replaces 2 generations" in result.stdout
    assert_refused(run_module(*command), "nothing to merge")
    result = run_module(*command, "--remove_replaced")
    assert result.returncode == 0 and "of 2 replaced generations" in result.stdout
    manifest = json.loads((tmp_path / "dataset/generations/000003/manifest.json").read_text())
    assert manifest["replaces"] == [1, 2]
