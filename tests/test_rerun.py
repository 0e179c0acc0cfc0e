"""Runs that are killed, repeated, or find something else in the folder."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from beam_pipelines import dataset_reader
from tests.conftest import assert_refused, build, counted, files_of
from tests.paths import ROOT

SPLIT = "--config.split_sizes=(0.5,0.25,0.25)"
KILLS = int(os.environ.get("SOAK_KILLS", "3"))


def start(library, out, **streams) -> subprocess.Popen:
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
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT, "--max_reject_fraction=0")
    assert_refused(result, "tracks were rejected", "--max_reject_fraction=0", "rejected.jsonl")
    assert not (out / "dataset_info.json").exists()
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {line["track_id"]: line["reason"] for line in lines} == library.rejected
    notes = sorted(out.glob(".done-*"))
    assert len(notes) == 3
    notes[0].unlink()
    (out / ".writing-123-train").write_bytes(b"half")
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT)
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "shards: kept") == 2
    assert counted(result.stdout, "shards: written") == 1
    assert files_of(out) == files_of(dataset_dir)


def test_an_interrupted_run_says_so_and_goes_on(dataset_dir, library, tmp_path):
    out = tmp_path / "out"
    process = start(library, out, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / ".plan.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode:  # else it was faster
        assert process.returncode == 130
        assert errors.strip() == "interrupted; the same command goes on"
    result = build(library.tracks_csv, library.audio_dir, out, SPLIT)
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
    result = build(*arguments, "--config.min_seconds=20", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir() if path.suffix in (".md", ".png")} == {"notes.md"}
    info = dataset_reader.load_info(str(out))
    assert info.rejected["too_short"] == 1 + len(library.truncated)
    assert dataset_reader.damage(info, str(out)) == []


def test_shards_of_unknown_origin_are_not_touched(library, tmp_path):
    shard = tmp_path / "train.tfrecord-00000-of-00001"
    shard.write_bytes(b"somebody's")
    result = build(library.tracks_csv, library.audio_dir, tmp_path, SPLIT)
    assert_refused(result, tmp_path, "unknown origin", "--overwrite")
    assert shard.read_bytes() == b"somebody's"


def test_a_finished_dataset_is_left_alone(dataset_dir, library):
    before = files_of(dataset_dir)
    result = build(library.tracks_csv, library.audio_dir, dataset_dir, SPLIT)
    assert result.returncode == 0, result.stderr
    assert "is finished" in result.stdout
    assert files_of(dataset_dir) == before


def test_retry_tries_only_what_was_rejected_or_missing(dataset_dir, library, tmp_path):
    audio, out = tmp_path / "audio", tmp_path / "out"
    shutil.copytree(library.audio_dir, audio)
    mended = sorted(library.rejected)[:2]
    arguments = (library.tracks_csv, audio, out, SPLIT)
    assert_refused(build(*arguments, "--retry_rejected"), out, "no dataset whose rejected")
    result = build(*arguments)
    assert result.returncode == 0, result.stderr
    assert files_of(out) == files_of(dataset_dir)
    good = next(path for path in sorted(audio.rglob("*.mp3")) if path.stat().st_size > 200_000)
    for track_id in (*mended, library.missing_audio[0]):
        path = audio / f"{track_id:06d}"[:3] / f"{track_id:06d}.mp3"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(good, path)
    result = build(*arguments, "--retry_rejected")
    assert result.returncode == 0, result.stderr
    assert counted(result.stdout, "tracks: decoded") == 3
    info = dataset_reader.load_info(str(out))
    assert info.num_examples == library.num_examples + 3
    assert sum(info.rejected.values()) == len(library.rejected) - 2
    assert info.missing_audio == len(library.missing_audio) - 1

    fresh = tmp_path / "fresh"
    result = build(library.tracks_csv, audio, fresh, SPLIT)
    assert result.returncode == 0, result.stderr
    assert files_of(out) == files_of(fresh)
