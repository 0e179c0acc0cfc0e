"""Announcements in, generations out: the same bytes as the batch job's, nothing lost or twice.

The decoder is one that makes pictures of any bytes; there is no engine.
"""

import contextlib
import dataclasses
import json
import random
import shutil
from collections import Counter

import pytest
from prometheus_client import parser

from beam_pipelines import pipeline
from beam_pipelines.stream import compaction, known, metrics, written_generation
from common import catalogue, dataset_reader, generations
from common.dataset_config import SPLITS
from common.errors import UserFacingError
from tests.support import direct_job, streams
from tests.support.commands import IN_MEMORY, assert_refused, run_module
from tests.support.streaming import streaming
from tests.support.streams import (
    BEGIN,
    CONFIG,
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

LATER = dataclasses.replace(RULES, unlabelled=True)


@pytest.fixture(autouse=True)
def _decoder(monkeypatch):
    monkeypatch.setattr(pipeline, "Decoder", MadeUp)


@pytest.fixture
def music(tmp_path):
    return make_music(tmp_path / "music")


def test_once_from_an_empty_folder_equals_the_batch_job(tmp_path, music):
    announce(tmp_path / "announced", *(announced(track) for track in range(40)))
    (manifest,) = stream(tmp_path)
    expected = batch(tmp_path, [row(track) for track in range(40)])
    made = tmp_path / "dataset/generations/000001"
    assert shards_of(made) == shards_of(expected)
    assert (made / "rejected.jsonl").read_bytes() == (expected / "rejected.jsonl").read_bytes()
    info = dataset_reader.load_dataset_info(str(tmp_path / "dataset"))
    theirs = dataset_reader.load_dataset_info(str(expected))
    assert info.num_examples == theirs.num_examples == 39
    for name in ("rejected", "thresholds", "split_check", "statistics", "features", "config"):
        assert getattr(info, name) == getattr(theirs, name)
    for split in SPLITS:
        ours = dataclasses.replace(info.splits[split], shards=())
        assert ours == dataclasses.replace(theirs.splits[split], shards=())
    assert manifest.counts == {"announced": 40, "tracks": 40} and manifest.late == 0
    assert not stream(tmp_path)  # nothing is new


def test_a_dataset_of_batch_grows_and_keeps_what_it_had(tmp_path, music):
    batch(tmp_path, [row(track) for track in range(20)], output="dataset")
    before = everything_in(tmp_path / "dataset")
    announce(
        tmp_path / "announced",
        *(announced(track, at=600) for track in range(18, 30)),
        announced(3, listens=4_999),
    )
    correction, manifest = stream(tmp_path)
    counts = {"announced": 13, "duplicates": 2, "corrections": 1, "tracks": 0}
    assert correction.counts == counts and correction.window is None
    assert manifest.counts == {"tracks": 10} and manifest.rejected == {}
    assert manifest.statistics is None
    after = everything_in(tmp_path / "dataset")
    assert {name: after[name] for name in before} == before
    info = dataset_reader.load_dataset_info(str(tmp_path / "dataset"))
    tracks, splits = [], {}
    for split, values in dataset_reader.read_examples(info, str(tmp_path / "dataset")):
        tracks.append(values["track_id"])
        splits.setdefault(values["artist_id"], set()).add(split)
    assert sorted(tracks) == [track for track in range(30) if track != 13]
    # Artist 6 has tracks 18 and 19 in generation 0 and 20 in generation 1.
    assert all(len(found) == 1 for found in splits.values())
    assert info.split_check["groups_in_two_splits"] == 0
    assert sum(split.num_artists for split in info.splits.values()) == len(splits)
    assert not dataset_reader.damage(info, str(tmp_path / "dataset"))


def test_the_order_in_which_they_come_changes_no_byte(tmp_path, music):
    values = [announced(track, at=track % 3 * 300) for track in range(15)]
    values += [announced(2, at=605, listens=1), announced(2, at=601, listens=2)]
    announce(tmp_path / "announced", *values)
    stream(tmp_path)
    random.Random(0).shuffle(values)
    announce(tmp_path / "other", *values[:9], name="z.jsonl")
    announce(tmp_path / "other", *values[9:], name="a.jsonl")
    stream(tmp_path, source="other", output="again")
    assert everything_in(tmp_path / "dataset") == everything_in(tmp_path / "again")


@pytest.mark.parametrize("kill_at", range(6))
def test_a_run_that_is_killed_loses_nothing_and_does_nothing_twice(
    tmp_path, music, monkeypatch, kill_at
):
    """Killed before or after a job, or just before a manifest; then the command is run again."""
    values = [announced(track, at=track % 3 * 300) for track in range(12)]
    announce(tmp_path / "announced", *values, b"no json", announced(50))
    step = iter(range(100))

    def die_at_its_turn():
        if next(step) == kill_at:
            raise Killed

    def job(made):
        die_at_its_turn()
        direct_job.run(made)

    write_manifest = written_generation.write_manifest

    def write(*arguments):
        die_at_its_turn()
        write_manifest(*arguments)

    monkeypatch.setattr(written_generation, "write_manifest", write)
    with contextlib.suppress(Killed):
        stream(tmp_path, job=job)
        pytest.fail("was not killed")
    dataset_reader.load_dataset_info(str(tmp_path / "dataset"))  # readers are never in the way
    stream(tmp_path, job=job)

    stream(tmp_path, output="at_once")
    assert everything_in(tmp_path / "dataset") == everything_in(tmp_path / "at_once")
    there = known.load(str(tmp_path / "dataset"), uri=str(tmp_path / "announced"))
    assert sorted(there.listens) == list(range(12))
    assert [entry.announcement.track_id for entry in there.waiting] == [50]
    totals = {}
    for manifest in there.manifests:
        for name, count in manifest.counts.items():
            totals[name] = totals.get(name, 0) + count
    assert totals == {"announced": 14, "tracks": 12}


def labels_in_windows():
    """Tracks of three windows, some without listens, and what is announced of them later."""
    values = [announced(t, at=t % 3 * 300, listens=None if t % 2 else 137 * t) for t in range(12)]
    values += [announced(t, at=610 + t, listens=3_000 + t) for t in (1, 3, 5)]
    values += [announced(t, at=1_200 + t, listens=t) for t in (2, 3)]
    values += [announced(3, at=1_290, listens=1_001), announced(4, at=1_250, listens=548)]
    return values


@pytest.mark.parametrize("rules", [RULES, LATER], ids=["wait", "later"])
def test_one_run_and_a_run_in_and_after_each_window_give_the_same_bytes(tmp_path, music, rules):
    values = labels_in_windows()
    random.Random(1).shuffle(values)
    announce(tmp_path / "announced", *values)
    manifests = stream(tmp_path, rules=rules)
    assert sum(manifest.source.get("corrections", 0) for manifest in manifests) >= 2
    values.sort(key=lambda value: value["announced_at"])
    for now in range(BEGIN + 150, BEGIN + 1_800, 150):
        while values and generations.seconds_of(values[0]["announced_at"]) <= now:
            announce(tmp_path / "stream", values.pop(0))
        if (tmp_path / "stream").exists():
            stream(tmp_path, source="stream", output="again", now=now, rules=rules)
    assert not values
    made = everything_in(tmp_path / "dataset")
    assert made == everything_in(tmp_path / "again")
    assert (rules is LATER) == any(name.endswith("unlabelled.jsonl") for name in made)


@pytest.mark.parametrize("rules", [RULES, LATER], ids=["wait", "later"])
def test_what_is_kept_from_run_to_run_is_what_is_read(tmp_path, music, rules):
    values = [*labels_in_windows(), announced(13), announced(50), announced(13, at=700, listens=4)]
    random.Random(2).shuffle(values)
    written_generation.begin_dataset(str(tmp_path / "dataset"), CONFIG)
    uri = str(tmp_path / "announced")
    there = known.load(str(tmp_path / "dataset"), uri=uri)
    for step in range(0, len(values), 3):
        announce(tmp_path / "announced", *values[step : step + 3])
        stream(tmp_path, rules=rules, there=there, now=NOW + 100 * step)
        assert there == known.load(str(tmp_path / "dataset"), uri=uri)
    assert (len(there.manifests) > 5 and there.waiting == []) or there.corrections


@pytest.mark.parametrize("kill_at", range(5))
def test_a_run_that_is_killed_loses_no_label(tmp_path, music, monkeypatch, kill_at):
    announce(tmp_path / "announced", *labels_in_windows())
    stream(tmp_path, output="at_once", rules=LATER)
    step = iter(range(100))
    write_manifest = written_generation.write_manifest

    def write(*arguments):
        if next(step) == kill_at:
            raise Killed
        write_manifest(*arguments)

    monkeypatch.setattr(written_generation, "write_manifest", write)
    with contextlib.suppress(Killed):
        stream(tmp_path, rules=LATER)
        assert kill_at == 4  # there are four generations
    info = dataset_reader.load_dataset_info(str(tmp_path / "dataset"))
    assert not dataset_reader.damage(info, str(tmp_path / "dataset"))  # labels never come first
    stream(tmp_path, rules=LATER)
    assert everything_in(tmp_path / "dataset") == everything_in(tmp_path / "at_once")
    assert not stream(tmp_path, rules=LATER)


def test_what_lands_without_listens_is_labelled_later_and_compacted(tmp_path, music):
    """A run that waits for labels again goes on with what landed without."""
    announce(tmp_path / "announced", *labels_in_windows())
    manifests = stream(tmp_path, rules=LATER)
    counts = Counter()
    for manifest in manifests:
        counts.update(manifest.counts)
    assert counts == {
        "announced": 19,
        "tracks": 12,
        "labels": 2,
        "corrections": 2,
        "merged": 2,
        "duplicates": 1,
    }
    folder = tmp_path / "dataset/generations"
    first = json.loads((folder / "000001/manifest.json").read_text())["splits"]
    unlabelled = [s.get("unlabelled", 0) for split in first.values() for s in split["shards"]]
    lines = (folder / "000001/unlabelled.jsonl").read_text().splitlines()
    assert sum(unlabelled) == sum(len(json.loads(line)["track_ids"]) for line in lines) == 2
    announce(
        tmp_path / "announced",
        announced(7, at=1_500, listens=5),
        announced(30, at=1_500, listens=None),
    )
    (manifest,) = stream(tmp_path)
    assert manifest.counts == {"announced": 2, "labels": 1, "tracks": 0}
    assert manifest.source["waiting"] == 1  # 30 waits for its listens

    def found():
        info = dataset_reader.load_dataset_info(str(tmp_path / "dataset"))
        assert info.split_check["groups_in_two_splits"] == 0
        examples = dataset_reader.read_examples(info, str(tmp_path / "dataset"))
        return sorted(
            (values["track_id"], values["listens"], values["label"]) for _, values in examples
        )

    before = found()
    assert before == [
        (t, n, sum(n >= edge for edge in CONFIG.thresholds) if n >= 0 else -1)
        for t, n in enumerate([0, 3_001, 2, 1_001, 548, 3_005, 822, 5, 1_096, -1, 1_370, -1])
    ]
    compacted = compaction.compact(str(tmp_path / "dataset"))
    compacted_shards = shards_of(folder / f"{compacted.generation:06d}")
    assert found() == before and compacted.num_records - compacted.num_examples == 2
    known_now = [row(t, listens=n) for t, n, _ in before if n >= 0]
    shutil.rmtree(folder)
    announce(
        tmp_path / "rows",
        *(value | {"announced_at": generations.text_of(BEGIN)} for value in known_now),
        *(announced(t, listens=None) for t in (9, 11)),
    )
    stream(tmp_path, source="rows", rules=LATER)
    assert shards_of(folder / "000001") == compacted_shards


def test_each_clip_of_a_track_is_counted(tmp_path, music, monkeypatch):
    """Where a track may have several, by reading how many it has."""
    monkeypatch.setattr(streams, "CONFIG", dataclasses.replace(CONFIG, clips_per_track=3))
    decode = MadeUp.decode

    def several(self, track, data, *, thresholds):
        decoded = decode(self, track, data, thresholds=thresholds)
        return decoded._replace(records=decoded.records * (1 + track.track_id % 3))

    monkeypatch.setattr(MadeUp, "decode", several)
    batch(tmp_path, [row(track) for track in range(20, 26)], output="dataset")
    values = labels_in_windows() + [announced(t, at=900, listens=4_000) for t in range(20, 26)]
    announce(tmp_path / "announced", *values)
    stream(tmp_path, rules=LATER)
    for is_compacted in (False, True):
        if is_compacted:
            compaction.compact(str(tmp_path / "dataset"))
        info = dataset_reader.load_dataset_info(str(tmp_path / "dataset"))
        # 1, 2 or 3 of each, on average 2; the tracks 7, 9 and 11 are unlabelled.
        assert (info.num_examples + info.unlabelled, info.unlabelled) == (18 * 2, 2 + 1 + 3)
        assert not dataset_reader.damage(info, str(tmp_path / "dataset"))  # counts all classes


def test_a_label_of_a_rejected_track_is_announced_anew(tmp_path, music):
    """Nobody has its record; what was said of its listens is an announcement as any other."""
    announce(
        tmp_path / "announced",
        announced(13, listens=None),
        announced(1, at=600),
        announced(13, at=600, listens=9),
    )
    manifests = stream(tmp_path, rules=LATER)
    assert [manifest.rejected for manifest in manifests] == [{"undecodable": 1}, {}]
    assert not (tmp_path / "dataset/generations/000002/corrections.jsonl").exists()
    (music / "13.mp3").write_bytes(b"good now")
    (manifest,) = stream(tmp_path, rules=LATER)
    assert manifest.num_examples == 1 and not stream(tmp_path, rules=LATER)


@pytest.mark.parametrize("name", ["corrections.jsonl", "unlabelled.jsonl"])
def test_readers_name_a_damaged_list(tmp_path, music, name):
    announce(tmp_path / "announced", *labels_in_windows())
    stream(tmp_path, rules=LATER)
    paths = sorted((tmp_path / "dataset/generations").glob(f"*/{name}"))
    whole = paths[0].read_bytes()
    for data in (None, whole[:-3], whole.partition(b"\n")[2], b"[]\n"):
        paths[0].unlink(missing_ok=True)
        if data is not None:
            paths[0].write_bytes(data)
        with pytest.raises(UserFacingError, match=f"{paths[0].parent.name}/{name}: "):
            dataset_reader.load_dataset_info(str(tmp_path / "dataset"))


def test_audio_that_comes_a_minute_later_and_audio_that_never_comes(tmp_path, music):
    announce(
        tmp_path / "announced", announced(1), announced(2), announced(77), announced(88, at=10)
    )
    (first,) = stream(tmp_path)
    assert first.counts["tracks"] == 2 and first.source["waiting"] == 2
    assert not stream(tmp_path, now=NOW + 30)
    (music / "77.mp3").write_bytes(b"here now")
    (second,) = stream(tmp_path, now=NOW + 60)
    assert (second.counts["tracks"], second.late, second.source["waiting"]) == (1, 1, 1)
    assert second.window == first.window
    (third,) = stream(tmp_path, now=NOW + 601)
    assert third.rejected == {"no_audio": 1} and third.source["waiting"] == 0
    (line,) = (tmp_path / "dataset/generations/000003/rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["track_id"] == 88
    # One whose audio was missing or bad may be announced again.
    (music / "88.mp3").write_bytes(b"here at last")
    announce(tmp_path / "announced", announced(88, at=900))
    (fourth,) = stream(tmp_path, now=NOW + 700)
    assert fourth.num_examples == 1
    info = dataset_reader.load_dataset_info(str(tmp_path / "dataset"))
    assert info.generations == (0, 1, 2, 3, 4) and info.num_examples == 4


def test_what_can_not_be_used_is_a_dead_letter(tmp_path, music):
    (music / "link.mp3").symlink_to("/etc/hostname")
    announce(
        tmp_path / "announced",
        b"\xff",
        b"x" * 1_000_000,
        announced(1),
        announced(2, path="../2.mp3"),
        announced(3, path="link.mp3"),
        announced(13),
        {"track_id": 4},
    )
    (manifest,) = stream(tmp_path)
    assert manifest.rejected == {
        "malformed": 2,
        "outside_audio_dir": 2,
        "too_long": 1,
        "undecodable": 1,
    }
    assert manifest.num_examples == 1 and manifest.counts["announced"] == 7
    text = (tmp_path / "dataset/generations/000001/rejected.jsonl").read_text()
    assert len(text.splitlines()) == 6 and "a.jsonl, byte 0: no JSON" in text


def test_only_dead_letters_move_on_too(tmp_path, music):
    announce(tmp_path / "announced", b"nonsense")
    (manifest,) = stream(tmp_path)
    assert manifest.window is None and manifest.num_examples == 0
    assert not stream(tmp_path)
    announce(tmp_path / "announced", announced(1))
    (manifest,) = stream(tmp_path)
    assert manifest.source["offsets"] == {"a.jsonl": [9, 9 + len(json.dumps(announced(1))) + 1]}


def test_what_can_not_grow_is_refused(tmp_path):
    quantiles = dataclasses.replace(CONFIG, thresholds=(), quantiles=(0.2, 0.6))
    by_date = dataclasses.replace(CONFIG, split_by="date")
    for config, words in ((quantiles, "config.quantiles"), (by_date, "config.split_by: date")):
        with pytest.raises(UserFacingError, match=words):
            written_generation.begin_dataset(str(tmp_path / "dataset"), config)
    assert not (tmp_path / "dataset").exists()


def test_metrics_say_how_far_it_is(tmp_path, music):
    watch = metrics.Watch()

    def figures(now):
        """As Prometheus reads them: {name, or name and label: value}."""
        stream(tmp_path, now=now, watch=watch)
        watch.ended(began=now, now=now + 2)
        metrics.write(str(tmp_path / "stream.prom"), watch, now=now + 2)
        families = parser.text_string_to_metric_families((tmp_path / "stream.prom").read_text())
        return {
            " ".join(
                [sample.name.removeprefix("fma_stream_"), *sample.labels.values()]
            ): sample.value
            for family in families
            for sample in family.samples
        }

    announce(tmp_path / "announced", announced(1, at=10), announced(2, at=310))
    found = figures(BEGIN + 200)
    assert (found["lag_messages"], found["waiting"], found["lag_seconds"]) == (2, 2, 192)
    assert found["generations"] == 0 and "clips_per_second" not in found
    found = figures(BEGIN + 300)
    assert (found["lag_messages"], found["waiting"], found["lag_seconds"]) == (0, 1, 0)
    assert (found["clips_per_second"], found["latency_seconds"]) == (0.5, 292)
    announce(tmp_path / "announced", b"nonsense", announced(1), announced(13), announced(4))
    found = figures(BEGIN + 700)
    assert found["announcements announced"] == 6 and found["announcements duplicates"] == 1
    assert found["announcements tracks"] == 4 and found["late"] == 2
    assert (found["rejected malformed"], found["rejected undecodable"]) == (1, 1)
    assert (found["generations"], found["examples"], found["waiting"]) == (3, 3, 0)
    again = figures(BEGIN + 800)  # nothing new: what the last writing run did is still there
    changed = {name for name in found if found[name] != again[name]}
    assert changed == {"run_timestamp_seconds"} and again["run_timestamp_seconds"] == BEGIN + 802


def test_a_damaged_state_is_named(tmp_path, music):
    announce(tmp_path / "announced", announced(1), announced(77))
    stream(tmp_path)
    folder = tmp_path / "dataset/generations/000001"
    announce(tmp_path / "announced", announced(1, at=300, listens=3))
    stream(tmp_path)
    (tmp_path / "dataset/generations/000002/corrections.jsonl").rename(folder / "moved")
    with pytest.raises(UserFacingError, match=r"000002/corrections.jsonl: missing"):
        stream(tmp_path)
    (folder / "moved").rename(tmp_path / "dataset/generations/000002/corrections.jsonl")
    for name in ("waiting.jsonl", "catalogue.csv"):
        text = (folder / name).read_text()
        (folder / name).unlink()
        with pytest.raises(UserFacingError, match=name):
            stream(tmp_path)
        (folder / name).write_text(text)
    shutil.rmtree(folder.parent)
    again = stream(tmp_path)  # it begins anew
    assert [manifest.generation for manifest in again] == [1, 2]


@pytest.mark.integration
def test_commands_with_labels_that_come_later(tmp_path, library, monkeypatch):
    """Real clips on an engine, and the same steps without one; then what a person is shown."""
    monkeypatch.undo()  # the real decoder
    with library.tracks_csv.open("rb") as file:
        tracks = list(catalogue.read_tracks(file, name="", subset="small"))[:4]
    columns = ("track_id", "path", "artist_id", "genre")
    rows = [{column: getattr(track, column) for column in columns} for track in tracks]
    at = {"announced_at": "2026-11-25T10:00:00Z"}
    announce(tmp_path / "announced", *(values | at for values in rows))
    looks = [values | {"announced_at": "2026-11-25T11:00:00Z", "listens": 9} for values in rows[1:]]
    announce(tmp_path / "announced", *looks)
    result = run_module(
        "beam_pipelines.stream_dataset",
        "--config=configs/dataset_artist.py",
        "--config.split_sizes=(0.5,0.25,0.25)",
        f"--source={tmp_path / 'announced'}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={tmp_path / 'dataset'}",
        "--labels=later",
        "--once",
        *IN_MEMORY,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "without a label" in result.stdout and "labels" in result.stdout
    (tmp_path / "music").symlink_to(library.audio_dir)
    first, _ = stream(tmp_path, output="again", rules=LATER)
    unlabelled, labelled = first.num_records, first.counts["labels"]
    assert unlabelled and labelled
    assert everything_in(tmp_path / "dataset") == everything_in(tmp_path / "again")
    result = run_module(
        "beam_pipelines.inspect_dataset", f"--dataset_dir={tmp_path / 'dataset'}", "--verify"
    )
    assert result.returncode == 0, result.stderr
    left = unlabelled - labelled
    assert f"records without a label, which training passes over: {left}\n" in result.stdout


@pytest.mark.integration
def test_what_is_there_is_read_once_by_a_command_that_goes_on(tmp_path, music):
    """Its looks do not cost more the larger the dataset is, whose lock it has."""
    announce(tmp_path / "announced", announced(1))
    how = [f"--source={tmp_path / 'announced'}", f"--audio_dir={music}", "--poll=1s", *IN_MEMORY]
    with streaming(tmp_path / "dataset", *how, made_up=True) as running:
        running.wait_for_generations(1)
        announce(tmp_path / "announced", announced(2, at=300))
        running.wait_for_generations(2)
        first = tmp_path / "dataset/generations/000001/catalogue.csv"
        first.rename(tmp_path / "away")
        announce(tmp_path / "announced", announced(3, at=600), announced(1, at=600))
        running.wait_for_generations(3)
        (tmp_path / "away").rename(first)
        running.end()
    there = known.load(str(tmp_path / "dataset"), uri=str(tmp_path / "announced"))
    assert sorted(there.listens) == [1, 2, 3]
    assert there.manifests[2].counts == {"announced": 2, "duplicates": 1, "tracks": 1}


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--window=5", "--window=5: not a duration"),
        ("--source=kafka://broker/topic", "--source=kafka"),
        ("--labels=never", "--labels=never: value should be one of"),
        ("--audio_dir=none", "none: no such folder"),
        ("--metrics_file=none/stream.prom", "--metrics_file=none/stream.prom: no such folder"),
        ("--metrics_file=docs", "--metrics_file=docs: a folder"),
        ("--metrics_file=docs/", "--metrics_file=docs/: a folder"),
        ("--config.tresholds=(1,2)", "tresholds"),
    ],
)
@pytest.mark.integration
def test_flags(tmp_path, music, flag, words):
    announce(tmp_path / "announced")
    result = run_module(
        "beam_pipelines.stream_dataset",
        "--config=configs/dataset_artist.py",
        f"--source={tmp_path / 'announced'}",
        f"--audio_dir={music}",
        f"--output_dir={tmp_path / 'dataset'}",
        "--once",
        flag,
    )
    assert_refused(result, words)
    assert not (tmp_path / "dataset/dataset_info.json").exists()
