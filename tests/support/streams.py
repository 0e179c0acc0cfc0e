"""Announcements, the stream and the batch job over the same rows, in a moment.

The decoder is one that makes pictures of any bytes; there is no engine.
"""

import csv
import dataclasses
import hashlib
import json
from collections import Counter

import numpy as np

from beam_pipelines import clip_record, dataset_job, output_folder
from beam_pipelines.decoder_process import Decoded
from beam_pipelines.stream import plan, run, sources, written_generation
from common import generations, rejection
from common.dataset_config import DatasetConfig
from configs import dataset_artist
from tests.support import direct_job

NOW = int(generations.seconds_of("2026-11-25T12:00:00Z"))
BEGIN = NOW - 86_400
RULES = plan.Rules(window=300, audio_wait=600)
CONFIG = dataclasses.replace(
    DatasetConfig.from_dict(dataset_artist.get_config().to_dict()), split_sizes=(0.5, 0.25, 0.25)
)


class MadeUp:
    """Decodes any bytes but `bad`, in this process."""

    def __init__(self, config):
        self._config = config

    def start(self):
        pass

    def decode(self, track, data, *, thresholds):
        if data == b"bad":
            raise rejection.ClipError("undecodable", "not audio")
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
        shape = self._config.spectrogram.shape
        picture = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        record = clip_record.record_with(
            track, {"spectrogram": picture}, self._config, thresholds=thresholds
        )
        return Decoded([record], 30.0, 1, 1)


def make_music(folder):
    """Forty songs as the made-up decoder takes them; track 13 is bad."""
    folder.mkdir()
    for track in range(40):
        (folder / f"{track}.mp3").write_bytes(b"bad" if track == 13 else b"song %d" % track)
    return folder


def row(track, **other):
    return {
        "track_id": track,
        "path": f"{track}.mp3",
        "listens": 137 * track % 5_000,
        "artist_id": track // 3,
        "genre": "Rock" if track % 2 else "",
    } | other


def announced(track, *, at=0, **other):
    return row(track, announced_at=generations.text_of(BEGIN + at), **other)


def announce(folder, *values, name="a.jsonl"):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("ab") as file:
        for value in values:
            line = value if isinstance(value, bytes) else json.dumps(value).encode()
            file.write(line + b"\n")


def stream(
    tmp_path,
    *,
    output="dataset",
    source="announced",
    now=NOW,
    job=direct_job.run,
    rules=RULES,
    watch=None,
    there=None,
):
    """Does what `stream_dataset --once` does, at a time; the manifests that it wrote.

    The source is one of `sources`, or the name of a folder.
    """
    if isinstance(source, str):
        source = sources.Folder(str(tmp_path / source))
    output_dir = str(tmp_path / output)
    if not (tmp_path / output / "dataset_info.json").exists():
        written_generation.begin_dataset(output_dir, CONFIG)
    found = run.run(
        source,
        output_dir,
        job,
        audio_dir=str(tmp_path / "music"),
        rules=rules,
        now=now,
        watch=watch,
        there=there,
    )
    return list(found)


def batch(tmp_path, rows, *, output="batch"):
    """What the batch job makes of the same rows."""
    catalogue = tmp_path / f"{output}.csv"
    with catalogue.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    direct_job.run(
        dataset_job.Job(
            config=CONFIG,
            tracks_csv=str(catalogue),
            catalog_sha256="",
            audio_dir=str(tmp_path / "music"),
            output_dir=str(tmp_path / output),
            work=output_folder.Work(output_folder.Mode.NEW),
            run_id="1",
            max_reject_fraction=0.5,
        )
    )
    return tmp_path / output


def shards_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")}


def everything_in(dataset):
    """The bytes of all generations, but for how runs shared them among themselves.

    That is where announcements lay in their files, which run counted them, and what waited.
    """
    found = {}
    for path in sorted(dataset.rglob("*")):
        if path.name == "waiting.jsonl":
            continue
        if path.is_file() and path.name != "manifest.json":
            found[str(path.relative_to(dataset))] = path.read_bytes()
        elif path.is_file():
            values = json.loads(path.read_text())
            del values["source"]
            values["counts"] = values["counts"]["tracks"]
            found[str(path.relative_to(dataset))] = values
    return found


def counts_of(manifests):
    """What manifests count together, rejected tracks and announcements too."""
    counts = Counter()
    for manifest in manifests:
        counts.update(manifest.counts)
        counts.update(manifest.rejected)
    return counts


class Killed(BaseException):
    """A run is killed where a test wants it."""
