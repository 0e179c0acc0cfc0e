"""The dataset job as a command: what it writes, what it refuses, what its workers load."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

from common import dataset_reader, hashing
from common.catalogue import clip_path
from tests.support.commands import (
    IN_MEMORY,
    assert_refused,
    build,
    files_of,
    read_csv,
    run_module,
    write_csv,
)
from tests.support.paths import ROOT

SPLIT = "--config.split_sizes=(0.5,0.25,0.25)"  # of the dataset of all tests


def examples_by_tensorflow(dataset_dir, split):
    paths = sorted(map(str, dataset_dir.glob(f"{split}.tfrecord-*")))
    for record in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        yield tf.train.Example.FromString(record).features.feature


def ints(features, name):
    return list(features[name].int64_list.value)


def test_the_description_is_what_the_shards_hold(dataset_dir, library):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    assert info.num_examples == library.num_examples
    assert info.missing_audio == len(library.missing_audio)
    seen = {}
    for split, described in info.splits.items():
        labels, artists = [], set()
        for features in examples_by_tensorflow(dataset_dir, split):
            (track_id,) = ints(features, "track_id")
            (listens,) = ints(features, "listens")
            labels += ints(features, "label")
            artists.update(ints(features, "artist_id"))
            assert labels[-1] == (listens >= 1000) + (listens >= 3500)
            assert len(features["spectrogram"].bytes_list.value[0]) == 102 * 159
            assert track_id not in seen
            seen[track_id] = split
        assert described.num_examples == len(labels) > 0
        counts = dict(zip(info.class_names, map(labels.count, range(3)), strict=True))
        assert described.class_counts == counts
        assert described.num_artists == len(artists)
        assert sum(shard.num_examples for shard in described.shards) == len(labels)
        for shard in described.shards:
            data = (dataset_dir / shard.file).read_bytes()
            assert hashlib.sha256(data).hexdigest() == shard.sha256
            assert len(data) == shard.bytes
    assert len(seen) == info.num_examples
    assert not seen.keys() & set(library.outside_subset)
    assert set(library.truncated) <= seen.keys()


def test_no_artist_is_in_two_splits(dataset_dir):
    artists = {}
    for split in ("train", "validation", "test"):
        for features in examples_by_tensorflow(dataset_dir, split):
            artists.setdefault(ints(features, "artist_id")[0], set()).add(split)
    assert len(artists) > 3
    assert all(len(splits) == 1 for splits in artists.values())
    check = dataset_reader.load_dataset_info(str(dataset_dir)).split_check
    assert check == {"by": "artist", "groups_in_two_splits": 0, "artists_in_two_splits": 0}


def test_rejected_clips_are_listed_with_their_reason(dataset_dir, library):
    lines = [json.loads(line) for line in (dataset_dir / "rejected.jsonl").read_text().splitlines()]
    assert {line["track_id"]: line["reason"] for line in lines} == library.rejected
    assert [line["track_id"] for line in lines] == sorted(library.rejected)
    for line in lines:
        assert list(line) == ["track_id", "path", "reason", "message"]
        assert (library.audio_dir / line["path"]).exists()
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    assert sum(info.rejected.values()) == len(lines)


def test_records_stand_in_the_order_of_their_hash(dataset_dir):
    for split in ("train", "validation", "test"):
        orders = [
            hashing.stable_hash(str(ints(features, "track_id")[0]), salt="fma/order")
            for features in examples_by_tensorflow(dataset_dir, split)
        ]
        assert orders == sorted(orders)


def test_every_run_writes_the_same_bytes(dataset_dir, library, tmp_path):
    """One worker's, then those of the same process, over the first. Those of two workers are in the
    test of what a job imports.
    """
    for flags in (["--direct_num_workers=1"], [*IN_MEMORY, "--overwrite"]):
        result = build(library.tracks_csv, library.audio_dir, tmp_path / "again", SPLIT, *flags)
        assert result.returncode == 0, result.stderr
        assert "shards: written" in result.stdout
        assert files_of(tmp_path / "again") == files_of(dataset_dir)


def test_the_order_of_the_rows_does_not_matter_to_the_shards(dataset_dir, library, tmp_path):
    rows = read_csv(library.tracks_csv)
    backwards = tmp_path / "tracks.csv"
    write_csv(backwards, [*rows[:3], *reversed(rows[3:])])
    result = build(backwards, library.audio_dir, tmp_path / "out", SPLIT, *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    ours, theirs = files_of(tmp_path / "out"), files_of(dataset_dir)
    assert ours.keys() == theirs.keys()
    assert {n for n in ours if ours[n] != theirs[n]} == {"dataset_info.json"}  # catalogue's SHA-256


def test_the_posters_split_is_by_track(library, tmp_path):
    result = run_module(
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_poster.py",
        f"--tracks_csv={library.tracks_csv}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={tmp_path}",
        "--max_reject_fraction=0.2",
        "--subset=medium",
        *IN_MEMORY,
    )
    assert result.returncode == 0, result.stderr
    info = dataset_reader.load_dataset_info(str(tmp_path))
    assert info.split_check["by"] == "track"
    assert info.split_check["groups_in_two_splits"] == 0
    assert info.split_check["artists_in_two_splits"] > 0
    assert info.num_examples > library.num_examples  # medium contains small


def test_a_job_imports_neither_tensorflow_nor_librosa(dataset_dir, library, tmp_path):
    # Workers put what they have loaded beside the dataset as they end.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, pathlib, sys\n"
        "def note():\n"
        "    if any(name.startswith('beam_pipelines') for name in sys.modules):\n"
        f"        path = pathlib.Path({str(tmp_path)!r}, f'modules-{{os.getpid()}}')\n"
        "        path.write_text(' '.join([sys.argv[0], *sys.modules]))\n"
        "atexit.register(note)\n"
    )
    result = build(
        library.tracks_csv,
        library.audio_dir,
        tmp_path / "out",
        SPLIT,
        "--direct_num_workers=2",
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert files_of(tmp_path / "out") == files_of(dataset_dir)
    notes = [path.read_text().split() for path in tmp_path.glob("modules-*")]
    workers = [modules for modules in notes if "sdk_worker_main.py" in modules[0]]
    assert len(workers) == 2
    decoders = [modules for modules in notes if "decoder_process.py" in modules[0]]
    assert len(decoders) == 2
    for modules in notes:
        loaded = {module.partition(".")[0] for module in modules}
        assert "soundfile" in loaded
        # Importing librosa takes a decoder longer than all else that it needs to start.
        assert not loaded & {"tensorflow", "keras", "librosa", "trainer", "serving"}
        # What only the launcher needs does not cost each worker memory either.
        assert "matplotlib" not in loaded or "build_dataset.py" in modules[0]
        assert ("apache_beam" in loaded) != (modules in decoders)


def test_the_light_definitions_import_neither_beam_nor_tensorflow():
    code = (
        "import sys\n"
        "from beam_pipelines import clip_record\n"
        "from common import audio, dataset_info, records, spectrogram\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(loaded & {'apache_beam', 'tensorflow', 'librosa', 'matplotlib'})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


# ---------------------------------------------------------------- what is wrong is said in a line


def test_a_missing_catalogue(library, tmp_path):
    missing, out = tmp_path / "tracks.csv", tmp_path / "out"
    assert_refused(build(missing, library.audio_dir, out), missing, "no such file")
    assert not out.exists()


def test_a_missing_column(library, tmp_path):
    changed, out = tmp_path / "tracks.csv", tmp_path / "out"
    changed.write_text(library.tracks_csv.read_text().replace(",listens,", ",lissens,"))
    assert_refused(build(changed, library.audio_dir, out), changed, "(track, listens)")
    assert not out.exists()


def test_a_cell_that_is_no_number_changes_nothing(dataset_dir, library, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name, data in files_of(dataset_dir).items():
        (out / name).write_bytes(data)
    rows = read_csv(library.tracks_csv)
    place = list(zip(rows[0], rows[1], strict=True)).index(("track", "listens"))
    rows[10][place] = "abc"
    changed = tmp_path / "tracks.csv"
    write_csv(changed, rows)
    assert_refused(
        build(changed, library.audio_dir, out, "--overwrite", *IN_MEMORY),
        f'{changed}, row 11, column (track, listens): "abc" is not a whole number',
    )
    assert files_of(out) == files_of(dataset_dir)


def test_an_empty_audio_folder(library, tmp_path):
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    assert_refused(build(library.tracks_csv, empty, out), empty, "holds no files")
    assert_refused(build(library.tracks_csv, tmp_path / "none", out), "none: no such folder")
    assert not out.exists()


def test_an_audio_folder_of_other_files_changes_nothing(dataset_dir, library, tmp_path):
    other, out = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    (other / "song.mp3").write_bytes(b"x")
    shutil.copytree(dataset_dir, out)
    assert_refused(
        build(library.tracks_csv, other, out, "--overwrite", *IN_MEMORY),
        other,
        "none of the",
        "such as 0",
    )
    assert files_of(out) == files_of(dataset_dir)


@pytest.mark.parametrize(
    ("source", "name", "flags"),
    [
        ("ä b", "aus gabe ü [1]/", ()),
        ("what? [2020]", "star*", IN_MEMORY),
    ],
)
def test_names_that_are_no_globs(dataset_dir, library, tmp_path, source, name, flags):
    """An audio folder and an output folder, beside files that a glob would have found."""
    neighbour = tmp_path / "star neighbour" / "train.tfrecord-00000-of-00001"
    neighbour.parent.mkdir()
    neighbour.write_bytes(b"somebody's")
    audio, out = tmp_path / "audio" / source, f"{tmp_path}/deep/{name}"
    shutil.copytree(library.audio_dir, audio)
    result = build(library.tracks_csv, audio, out, SPLIT, *flags)
    assert result.returncode == 0, result.stderr
    assert files_of(pathlib.Path(out)) == files_of(dataset_dir)
    assert neighbour.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audio", "deep", "star neighbour"]


def test_a_folder_named_like_a_clip_is_a_bad_clip(dataset_dir, library, tmp_path):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    good = [
        values["track_id"] for _, values in dataset_reader.read_examples(info, str(dataset_dir))
    ]
    (first, *_) = library.missing_audio
    catalogue, audio = tmp_path / "tracks.csv", tmp_path / "audio"
    rows = read_csv(library.tracks_csv)
    kept = {str(track_id) for track_id in (first, *good[:4])}
    write_csv(catalogue, [*rows[:3], *(row for row in rows[3:] if row[0] in kept)])
    for track_id in good[:4]:
        (audio / clip_path(track_id)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.audio_dir / clip_path(track_id), audio / clip_path(track_id))
    (audio / clip_path(first)).mkdir(parents=True)
    result = build(catalogue, audio, tmp_path / "out", *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    (line,) = map(json.loads, lines)
    assert line["track_id"] == first
    assert line["reason"] == "undecodable" and "Is a directory" in line["message"]


def test_an_output_folder_that_can_not_be_written(library, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert_refused(build(library.tracks_csv, library.audio_dir, out), out, "can't be written")


@pytest.mark.parametrize(
    ("flag", "fragment"),
    [
        ("--config.tresholds=(1,2)", "tresholds"),
        ("--config.thresholds=(9,2)", "config.thresholds: (9, 2) do not rise"),
        ("--config.class_names=('a','a','b')", "config.class_names"),
        ("--config.spectrogram.hop=0", "config.spectrogram.hop"),
        ("--config.split_by=moon", "config.split_by: 'moon'"),
        ("--config.split_sizes=(0.5,0.5,0.5)", "config.split_sizes"),
        ("--direct_num_wokers=2", "--direct_num_wokers"),
        ("--subset=tiny", "subset"),
    ],
)
def test_flags(library, tmp_path, flag, fragment):
    result = build(library.tracks_csv, library.audio_dir, tmp_path / "out", flag)
    assert result.returncode != 0
    assert fragment in result.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- looking at it


def test_inspect_counts_verifies_and_draws(dataset_dir, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = [f"--dataset_dir={dataset_dir}", f"--output={sheet}", "--verify"]
    result = run_module("beam_pipelines.inspect_dataset", *arguments)
    assert result.returncode == 0, result.stderr
    assert "verified" in result.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_inspect_names_a_damaged_shard(dataset_dir, tmp_path):
    for name, data in files_of(dataset_dir).items():
        (tmp_path / name).write_bytes(data)
    shards = sorted(tmp_path.glob("*.tfrecord-*"), key=lambda path: path.stat().st_size)
    data = bytearray(shards[-1].read_bytes())
    data[len(data) // 2] ^= 1
    shards[-1].write_bytes(data)
    result = run_module("beam_pipelines.inspect_dataset", f"--dataset_dir={tmp_path}", "--verify")
    assert_refused(result, shards[-1].name, "is damaged")


def test_inspect_of_an_unfinished_folder(tmp_path):
    result = run_module("beam_pipelines.inspect_dataset", f"--dataset_dir={tmp_path}")
    assert_refused(result, tmp_path, "unfinished")


def test_the_real_sample(fma_sample, tmp_path):
    csv, audio = fma_sample / "fma_metadata" / "tracks.csv", fma_sample / "fma_small"
    result = build(csv, audio, tmp_path, *IN_MEMORY)
    assert result.returncode == 0, result.stderr
    info = dataset_reader.load_dataset_info(str(tmp_path))
    assert (info.num_examples, info.missing_audio, info.rejected) == (12, 46, {})
    assert "12" in result.stdout and "without audio: 46" in result.stdout
