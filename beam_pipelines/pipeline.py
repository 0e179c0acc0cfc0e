"""The Beam job: a catalogue and a folder of audio in, a dataset out.

Rows of the catalogue are labelled, split and assigned to a shard, and grouped by shard; inside a
shard each clip is read, decoded, turned into its picture and written, in the order of its hash.
So no audio and no picture passes through a shuffle, and the bytes written depend on nothing but
catalogue, audio and config.
"""

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Iterable
from importlib import metadata

import apache_beam as beam
import soundfile
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsDict, AsList, AsSingleton, TaggedOutput

from beam_pipelines import audio, catalogue, dataset_info, labels_and_splits, records, storage
from beam_pipelines.clip_record import clip_record
from beam_pipelines.command import InputError
from beam_pipelines.dataset_config import SPLITS, DatasetConfig

REJECTED_FILE = "rejected.jsonl"
PLAN_FILE = f"{storage.TEMPORARY_PREFIX}plan.json"


class ReadCatalogue(beam.DoFn):
    """Path of a `tracks.csv` → (split, order, track) of each row; output `sha256` of the file."""

    def __init__(self, config: DatasetConfig):
        self._config = config

    def process(self, path: str):
        config = self._config
        with storage.open_to_read(path) as raw:
            file = catalogue.HashingFile(raw)
            tracks = catalogue.read_tracks(io.BufferedReader(file), name=path, subset=config.subset)
            for track in tracks:
                group = labels_and_splits.group_of(
                    track.track_id, track.artist_id, by=config.split_by
                )
                split = labels_and_splits.split_of(group, config.split_sizes, salt=config.salt)
                order = labels_and_splits.stable_hash(
                    str(track.track_id), salt=f"{config.salt}/order"
                )
                # Plain tuples, since Beam would pickle a class of our own.
                yield split, order, tuple(track)
        yield TaggedOutput("sha256", file.hexdigest())


def clear(output_dir: str) -> None:
    """Deletes what a run writes, the description first: without it a folder is unfinished."""
    for path in (dataset_info.FILE_NAME, REJECTED_FILE):
        storage.delete(storage.matches(storage.join(output_dir, path)))
    storage.delete(shard_files(output_dir))
    clear_temporary(output_dir)


def clear_temporary(output_dir: str) -> None:
    storage.delete(storage.matches(storage.join(output_dir, f"{storage.TEMPORARY_PREFIX}*")))


def shard_files(output_dir: str) -> list[str]:
    """The paths of all shards that lie in a folder."""
    patterns = [storage.join(output_dir, f"{split}.tfrecord-*") for split in SPLITS]
    return [path for pattern in patterns for path in storage.matches(pattern)]


class PlanShards(beam.DoFn):
    """Rows in each split → the name of every shard; clears the folder for them.

    It needs the count of all rows, so a catalogue that can't be read has changed nothing.
    """

    def __init__(self, output_dir: str):
        self._output_dir = output_dir

    def process(self, _, rows_in_split: dict[str, int]):
        storage.make_folder(self._output_dir)
        clear(self._output_dir)
        names = [
            labels_and_splits.shard_name(split, index, num_shards)
            for split in SPLITS
            for num_shards in [labels_and_splits.shard_count(rows_in_split.get(split, 0))]
            for index in range(num_shards)
        ]
        plan = {"num_shards": len(names), "num_rows": sum(rows_in_split.values())}
        storage.write_atomically(self._output_dir, PLAN_FILE, json.dumps(plan).encode())
        for name in names:
            yield name, ()


def assign_to_shard(row: tuple, rows_in_split: dict[str, int]) -> tuple[str, tuple]:
    """(split, order, track) → (name of the shard, (order, track))."""
    split, order, track = row
    num_shards = labels_and_splits.shard_count(rows_in_split[split])
    index = labels_and_splits.shard_of(order, num_shards)
    return labels_and_splits.shard_name(split, index, num_shards), (order, track)


class WriteShard(beam.DoFn):
    """(name, rows) → the shard on disk, and what is in it.

    Outputs: the shard (a dict); `rejected`, a dict for each rejected clip; `groups`,
    ((kind, id), split) of each artist, and of each group that the split is by, that was written.
    """

    def __init__(self, config: DatasetConfig, *, audio_dir: str, output_dir: str):
        self._config = config
        self._audio_dir = audio_dir
        self._output_dir = output_dir

    def process(self, element: tuple[str, Iterable[tuple]]):
        name, rows = element
        split = name.partition(".")[0]
        # The empty row is PlanShards', so that a shard without tracks is written too.
        tracks = [catalogue.Track(*track) for _, track in sorted(row for row in rows if row)]
        written = []
        missing_audio = num_bytes = 0
        sha256 = hashlib.sha256()
        with storage.AtomicFile(self._output_dir, name) as file:
            for track in tracks:
                try:
                    data = storage.read_bytes(storage.join(self._audio_dir, track.path))
                except FileNotFoundError:
                    missing_audio += 1
                    Metrics.counter("clips", "missing_audio").inc()
                    continue
                started = time.perf_counter()
                try:
                    record = records.frame(clip_record(track, data, self._config))
                except audio.ClipError as error:
                    Metrics.counter("rejected", error.reason).inc()
                    yield TaggedOutput("rejected", rejected_line(track, error))
                    continue
                milliseconds = int(1000 * (time.perf_counter() - started))
                Metrics.distribution("clips", "milliseconds").update(milliseconds)
                Metrics.counter("clips", "written").inc()
                file.write(record)
                sha256.update(record)
                num_bytes += len(record)
                written.append(track)
        groups = {("artist", track.artist_id) for track in written if track.artist_id >= 0}
        if self._config.split_by != "artist":
            groups |= {(self._config.split_by, track.track_id) for track in written}
        for group in sorted(groups):
            yield TaggedOutput("groups", (group, split))
        labels = [
            labels_and_splits.label_of(track.listens, self._config.thresholds) for track in written
        ]
        yield {
            "split": split,
            "file": name,
            "num_examples": len(written),
            "bytes": num_bytes,
            "sha256": sha256.hexdigest(),
            "labels": dict(Counter(labels)),
            "missing_audio": missing_audio,
        }


def rejected_line(track: catalogue.Track, error: audio.ClipError) -> dict:
    """A line of `rejected.jsonl`."""
    return {
        "track_id": track.track_id,
        "path": track.path,
        "reason": error.reason,
        "message": str(error),
    }


class Finish(beam.DoFn):
    """Everything that was written → `rejected.jsonl` and, last, `dataset_info.json`."""

    def __init__(self, config: DatasetConfig, *, audio_dir: str, output_dir: str):
        self._config = config
        self._audio_dir = audio_dir
        self._output_dir = output_dir

    def process(self, _, shards, rejected, artists_in_split, torn_groups, catalog_sha256):
        info = describe(
            self._config, shards, rejected, artists_in_split, torn_groups, catalog_sha256
        )
        if not info.num_examples:
            clear(self._output_dir)
            raise InputError(
                f"{self._audio_dir}: no usable audio for any of the "
                f"{info.missing_audio + len(rejected):,} tracks of subset {self._config.subset} "
                f"({info.missing_audio:,} without a file such as {catalogue.clip_path(2)}, "
                f"{len(rejected):,} rejected)"
            )
        lines = sorted(rejected, key=lambda line: line["track_id"])
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        storage.write_atomically(self._output_dir, REJECTED_FILE, text.encode())
        storage.write_atomically(self._output_dir, dataset_info.FILE_NAME, info.to_json().encode())
        clear_temporary(self._output_dir)


def describe(
    config: DatasetConfig,
    shards: list[dict],
    rejected: list[dict],
    artists_in_split: dict[str, int],
    torn_groups: dict[str, int],
    catalog_sha256: str,
) -> dataset_info.DatasetInfo:
    """The description of what the shards hold."""
    shards = sorted(shards, key=lambda shard: shard["file"])
    versions = library_versions()
    splits = {}
    for split in SPLITS:
        mine = [shard for shard in shards if shard["split"] == split]
        labels = sum((Counter(shard["labels"]) for shard in mine), Counter())
        fields = ("file", "num_examples", "bytes", "sha256")
        splits[split] = dataset_info.Split(
            num_examples=sum(shard["num_examples"] for shard in mine),
            class_counts={name: labels[label] for label, name in enumerate(config.class_names)},
            num_artists=artists_in_split.get(split, 0),
            shards=tuple(dataset_info.Shard(**{f: shard[f] for f in fields}) for shard in mine),
        )
    reasons = Counter(line["reason"] for line in rejected)
    return dataset_info.DatasetInfo(
        format_version=dataset_info.FORMAT_VERSION,
        fingerprint=dataset_info.fingerprint(
            config=config, catalog_sha256=catalog_sha256, versions=versions, splits=splits
        ),
        config=config,
        features=dataset_info.features(config),
        class_names=config.class_names,
        splits=splits,
        rejected={reason: reasons[reason] for reason in audio.REJECT_REASONS if reasons[reason]},
        missing_audio=sum(shard["missing_audio"] for shard in shards),
        split_check={
            "by": config.split_by,
            "groups_in_two_splits": torn_groups.get(config.split_by, 0),
            "artists_in_two_splits": torn_groups.get("artist", 0),
        },
        catalog_sha256=catalog_sha256,
        versions=versions,
    )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that samples and pictures pass through."""
    names = ("librosa", "numpy", "scipy", "soundfile", "soxr")
    libsndfile = soundfile.__libsndfile_version__
    return {name: metadata.version(name) for name in names} | {"libsndfile": libsndfile}


def build_dataset(
    pipeline: beam.Pipeline,
    config: DatasetConfig,
    *,
    tracks_csv: str,
    audio_dir: str,
    output_dir: str,
) -> None:
    """Adds the job to a pipeline."""
    folders = {"audio_dir": audio_dir, "output_dir": output_dir}
    catalog = (
        pipeline
        | "catalogue" >> beam.Create([tracks_csv])
        | "read catalogue" >> beam.ParDo(ReadCatalogue(config)).with_outputs("sha256", main="rows")
    )
    rows_in_split = (
        catalog.rows
        | "split" >> beam.Map(lambda row: row[0])
        | "count rows" >> beam.combiners.Count.PerElement()
    )
    planned = (
        pipeline
        | "plan" >> beam.Impulse()
        | "plan shards" >> beam.ParDo(PlanShards(output_dir), AsDict(rows_in_split))
    )
    assigned = catalog.rows | "assign to shard" >> beam.Map(assign_to_shard, AsDict(rows_in_split))
    written = (
        (planned, assigned)
        | beam.Flatten()
        | "group by shard" >> beam.GroupByKey()
        | "write shard"
        >> beam.ParDo(WriteShard(config, **folders)).with_outputs(
            "rejected", "groups", main="shards"
        )
    )
    splits_of_group = (
        written.groups
        | "group by group" >> beam.GroupByKey()
        | "splits" >> beam.MapTuple(lambda group, splits: (group[0], sorted(set(splits))))
    )
    artists_in_split = (
        splits_of_group
        | "artists" >> beam.FlatMapTuple(lambda kind, splits: splits if kind == "artist" else ())
        | "count artists" >> beam.combiners.Count.PerElement()
    )
    torn_groups = (
        splits_of_group
        | "torn" >> beam.FlatMapTuple(lambda kind, splits: [kind] if len(splits) > 1 else ())
        | "count torn" >> beam.combiners.Count.PerElement()
    )
    _ = (
        pipeline
        | "finish" >> beam.Impulse()
        | "write info"
        >> beam.ParDo(
            Finish(config, **folders),
            AsList(written.shards),
            AsList(written.rejected),
            AsDict(artists_in_split),
            AsDict(torn_groups),
            AsSingleton(catalog.sha256),
        )
    )
