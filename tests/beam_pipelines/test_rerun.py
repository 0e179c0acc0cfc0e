"""Runs that are killed, repeated, or find something else in the folder."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from beam_pipelines import dataset_job, output_folder
from beam_pipelines.written_shard import ShardSummary
from common import dataset_reader
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from configs import dataset_artist
from tests.fuzz.targets import an_info
from tests.support import processes
from tests.support.commands import IN_MEMORY, assert_refused, build, counted, files_of
from tests.support.paths import ROOT

SPLIT = "--config.split_sizes=(0.5,0.25,0.25)"
KILLS = int(os.environ.get("SOAK_KILLS", "2"))


def start(library, out, *, flags=(), **streams) -> subprocess.Popen:
    """A run in a process group of its own, so that all of it can be killed."""
    command = [
        sys.executable,
        "-m",
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        f"--tracks_csv={library.tracks_csv}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={out}",
        "--max_reject_fraction=0.2",
        SPLIT,
        *flags,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True, **streams
    )


@pytest.mark.integration
def test_kills_at_random_moments(dataset_dir, library, tmp_path):
    rng = random.Random(7)
    for number in range(KILLS):
        out = tmp_path / str(number)
        process = start(library, out)
        # Most of a run is its start; from there on any moment is as good as another.
        deadline = time.monotonic() + 60
        while not (out / ".plan.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 4))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = files_of(out)
        was_finished = "dataset_info.json" in left
        done = [name for name in left if name.startswith(".done-")]
        whole = files_of(dataset_dir)
        for name, data in left.items():
            if ".tfrecord-" in name and not name.startswith("."):
                assert data == whole[name], f"{name} is a part of a shard"
        result = build(library.tracks_csv, library.audio_dir, out, SPLIT)
        assert result.returncode == 0, result.stderr
        assert files_of(out) == whole
        kept = counted(result.stdout, "shards: kept")
        written = counted(result.stdout, "shards: written")
        num_shards = sum(".tfrecord-" in name for name in whole)
        assert (kept, written) == ((0, 0) if was_finished else (len(done), num_shards - len(done)))


def test_a_run_goes_on_with_the_shards_that_are_done(dataset_dir, library, tmp_path):
    """A folder as a kill leaves it: two shards done, one without its note, one half-written."""
    out = tmp_path / "out"
    result = build(
        library.tracks_csv,
        library.audio_dir,
        out,
        SPLIT,
        "--max_reject_fraction=0",
        *IN_MEMORY,
    )
    assert_refused(result, "tracks were rejected", "--max_reject_fraction=0", "rejected.jsonl")
    assert not (out / "dataset_info.json").exists()
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {line["track_id"]: line["reason"] for line in lines} == library.rejected
    notes = sorted(out.glob(".done-*"))
    assert len(notes) == 3
    notes[0].unlink()
    (out / ".writing-123-train").write_bytes(b"half")
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT, *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "shards: kept") == 2
    assert counted(result.stdout, "shards: written") == 1
    assert files_of(out) == files_of(dataset_dir)


def test_an_interrupted_run_says_so_and_goes_on(dataset_dir, library, tmp_path):
    out = tmp_path / "out"
    # One worker, which is a process as well, starts sooner than two.
    flags = ["--direct_num_workers=1"]
    process = start(library, out, flags=flags, stderr=subprocess.PIPE, text=True)

    def decoders():
        return {
            pid
            for pid in processes.descendants(process.pid)
            if "decoder_process" in processes.command_line(pid)
        }

    deadline = time.monotonic() + 60
    while not (started := decoders()) and time.monotonic() < deadline:
        time.sleep(0.02)
    started |= processes.descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode:  # else it was faster
        assert process.returncode == 130
        assert errors.strip() == "interrupted; the same command goes on"
    processes.wait_until_ended(started)
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT, *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    assert files_of(out) == files_of(dataset_dir)


def test_another_dataset_in_the_folder_is_refused(dataset_dir, library, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(dataset_dir, out)
    arguments = (library.tracks_csv, library.audio_dir, out, SPLIT)
    result = build(*arguments, "--config.min_seconds=20", "--config.spectrogram.hop=521")
    assert_refused(
        result,
        "config.min_seconds is 3.0 there and 20.0 here",
        "config.spectrogram.hop is 520 there and 521 here",
        "--overwrite",
    )
    assert files_of(out) == files_of(dataset_dir)
    for name in ("dataset_card.md", "dataset_card-listens.png", "notes.md"):
        (out / name).write_text("of the dataset that was there")
    result = build(*arguments, "--config.min_seconds=20", "--overwrite", *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir() if path.suffix in (".md", ".png")} == {"notes.md"}
    info = dataset_reader.load_dataset_info(str(out))
    assert info.rejected["too_short"] == 1 + len(library.truncated)
    assert dataset_reader.damage(info, str(out)) == []


def test_shards_of_unknown_origin_are_not_touched(library, tmp_path):
    shard = tmp_path / "train.tfrecord-00000-of-00001"
    shard.write_bytes(b"somebody's")
    result = build(library.tracks_csv, library.audio_dir, tmp_path, SPLIT)
    assert_refused(result, tmp_path, "unknown origin", "--overwrite")
    assert shard.read_bytes() == b"somebody's"


def test_a_finished_dataset_is_left_alone(dataset_dir, library, tmp_path):
    out = shutil.copytree(dataset_dir, tmp_path / "out")
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT)
    assert result.returncode == 0, result.stderr
    assert "is finished" in result.stdout
    assert files_of(out) == files_of(dataset_dir)


def test_retry_tries_only_what_was_rejected_or_missing(dataset_dir, library, tmp_path):
    audio, out = tmp_path / "audio", tmp_path / "out"
    shutil.copytree(library.audio_dir, audio)
    mended = sorted(library.rejected)[:2]
    arguments = (library.tracks_csv, audio, out, SPLIT)
    assert_refused(build(*arguments, "--retry_rejected"), out, "no dataset whose rejected")
    shutil.copytree(dataset_dir, out, dirs_exist_ok=True)
    good = next(path for path in sorted(audio.rglob("*.mp3")) if path.stat().st_size > 200_000)
    for track_id in (*mended, library.missing_audio[0]):
        path = audio / f"{track_id:06d}"[:3] / f"{track_id:06d}.mp3"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(good, path)
    result = build(*arguments, "--retry_rejected", *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "tracks: decoded") == 3
    info = dataset_reader.load_dataset_info(str(out))
    assert info.num_examples == library.num_examples + 3
    assert sum(info.rejected.values()) == len(library.rejected) - 2
    assert info.missing_audio == len(library.missing_audio) - 1

    fresh = tmp_path / "fresh"
    result = build(library.tracks_csv, audio, fresh, SPLIT, *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    assert files_of(out) == files_of(fresh)


@pytest.mark.integration
def test_what_was_mended_after_too_many_rejects_is_tried_again(library, tmp_path):
    audio, out = tmp_path / "audio", tmp_path / "out"
    shutil.copytree(library.audio_dir, audio)
    arguments = (library.tracks_csv, audio, out, SPLIT, "--max_reject_fraction=0")
    assert_refused(build(*arguments), "with --retry_rejected it tries them again")
    good = next(path for path in sorted(audio.rglob("*.mp3")) if path.stat().st_size > 200_000)
    for line in (out / "rejected.jsonl").read_text().splitlines():
        shutil.copy(good, audio / json.loads(line)["path"])
    assert_refused(build(*arguments), "tracks were rejected")  # what is done is not done again
    result = build(*arguments, "--retry_rejected")
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "tracks: decoded") == len(library.rejected)
    info = dataset_reader.load_dataset_info(str(out))
    assert info.num_examples == library.num_examples + len(library.rejected)
    whole = build(library.tracks_csv, audio, tmp_path / "at once", SPLIT)
    assert whole.returncode == 0, whole.stderr
    assert files_of(out) == files_of(tmp_path / "at once")


def test_a_job_that_leaves_no_clip_says_why(tmp_path):
    """Whatever --max_reject_fraction allows, which is not to blame then."""
    nothing = ShardSummary(
        split="train",
        file="train.tfrecord-00000-of-00001",
        num_examples=0,
        bytes=0,
        sha256="",
        label_counts=(0, 0, 0),
        num_tracks=0,
        missing_audio=2,
        rejected={"silent": 3},
    )
    job = dataset_job.Job(
        config=DatasetConfig.from_dict(dataset_artist.get_config().to_dict()),
        tracks_csv="tracks.csv",
        catalog_sha256="",
        audio_dir="music",
        output_dir=str(tmp_path),
        work=output_folder.Work(output_folder.Mode.NEW),
        run_id="one",
        max_reject_fraction=1.0,
    )
    totals = dataset_job.Totals(
        shards=[nothing],
        rejected=[],
        artists_in_split={},
        leaking_groups={},
        statistics=[],
        most_frequent={},
    )
    with pytest.raises(UserFacingError) as raised:
        dataset_job.finish(job, job.config.thresholds, totals)
    line = str(raised.value)
    assert "3 were rejected (3 silent), 2 have no file in music" in line
    assert "max_reject_fraction" not in line


def test_a_dataset_is_not_replaced_where_it_is_to_be_tried_again(tmp_path):
    flags = ("--overwrite", "--retry_rejected")
    result = build("tracks.csv", "music", tmp_path / "out", *flags)
    assert_refused(result, "--overwrite", "--retry_rejected", "give one of them")


@pytest.mark.integration
@pytest.mark.parametrize("flags", [["--retry_rejected"], []])
def test_a_killed_retry_goes_on(dataset_dir, library, tmp_path, flags):
    out = tmp_path / "out"
    shutil.copytree(dataset_dir, out)
    process = start(library, out, flags=["--retry_rejected"])
    deadline = time.monotonic() + 60
    while (out / "dataset_info.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT, *flags)
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "tracks: decoded") == 0
    assert files_of(out) == files_of(dataset_dir)


@pytest.mark.parametrize(
    ("damage", "finished"),
    [("gone", True), pytest.param("cut", False, marks=pytest.mark.integration)],
)
def test_a_shard_that_is_not_whole_is_made_again(dataset_dir, library, tmp_path, damage, finished):
    out = tmp_path / "out"
    arguments = (library.tracks_csv, library.audio_dir, out, SPLIT)
    if finished:
        shutil.copytree(dataset_dir, out)
    else:
        assert_refused(build(*arguments, "--max_reject_fraction=0"), "tracks were rejected")
    shard = next(out.glob("train.tfrecord-*"))
    num_examples = sum(
        there.num_examples
        for there in dataset_reader.load_dataset_info(str(dataset_dir)).splits["train"].shards
        if there.file == shard.name
    )
    if damage == "cut":
        os.truncate(shard, shard.stat().st_size // 2)
    else:
        shard.unlink()
    result = build(*arguments, *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "tracks: decoded") == num_examples
    assert not finished or f"missing or cut, and made again: {shard.name}\n" in result.stdout
    assert files_of(out) == files_of(dataset_dir)


def test_a_kill_before_the_last_cleaning(dataset_dir, library, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(dataset_dir, out)
    (out / ".plan.json").write_text("{}")
    (out / ".done-train.tfrecord-00000-of-00001.json").write_text("{}")
    (out / "train.tfrecord-00007-of-00009").write_bytes(b"of a dataset that was replaced")
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT)
    assert result.returncode == 0, result.stderr
    assert "is finished" in result.stdout
    assert files_of(out) == files_of(dataset_dir)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"format_version": 1'])
def test_a_damaged_description_is_named(tmp_path, content):
    path = tmp_path / "dataset_info.json"
    path.write_bytes(content)
    with pytest.raises(UserFacingError, match=re.escape(f"{path}: not a dataset_info.json")):
        dataset_reader.load_dataset_info(str(tmp_path))
    with pytest.raises(UserFacingError, match=re.escape(f"{path}: not a dataset_info.json")):
        output_folder.work(str(tmp_path), {}, overwrite=False, retry_rejected=False)
    work = output_folder.work(str(tmp_path), {}, overwrite=True, retry_rejected=False)
    assert work.mode is output_folder.Mode.NEW


@pytest.mark.parametrize("name", ["rejected.jsonl", "train.tfrecord-00000-of-00001"])
def test_a_file_that_is_gone_is_made_again(tmp_path, name):
    info = DatasetInfo.from_json(json.dumps(an_info()))
    (tmp_path / "dataset_info.json").write_text(info.to_json())
    (tmp_path / "rejected.jsonl").touch()
    for split in info.splits.values():
        for shard in split.shards:
            (tmp_path / shard.file).write_bytes(bytes(shard.bytes))
    mine = output_folder.identity(info.config, info.catalog_sha256, info.versions)

    def work():
        return output_folder.work(str(tmp_path), mine, overwrite=False, retry_rejected=False)

    assert work().mode is output_folder.Mode.FINISHED
    (tmp_path / name).unlink()
    assert work().mode is output_folder.Mode.RETRY
    assert name in work().why


@pytest.mark.integration
def test_a_damaged_note_or_plan(dataset_dir, library, tmp_path):
    out = tmp_path / "out"
    arguments = (library.tracks_csv, library.audio_dir, out, SPLIT)
    assert_refused(build(*arguments, "--max_reject_fraction=0"), "tracks were rejected")
    next(out.glob(".done-*")).write_bytes(b"")
    plan = (out / ".plan.json").read_bytes()
    (out / ".plan.json").write_bytes(plan[:10])
    assert_refused(build(*arguments), out / ".plan.json", "--overwrite")
    (out / ".plan.json").write_bytes(plan)
    result = build(*arguments)
    assert result.returncode == 0, result.stderr
    assert files_of(out) == files_of(dataset_dir)
