"""The Beam job: a catalogue and a folder of audio in, a dataset out.

Rows of the catalogue are split, assigned to a shard and grouped by shard; inside a shard each
track is read, decoded, turned into its spectrograms and written, sorted by shuffle key. So no audio
and no spectrogram passes through a shuffle, and the bytes written depend on nothing but catalogue,
audio and config.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import apache_beam as beam
import soundfile
from apache_beam.pvalue import AsDict, AsList, AsSingleton, TaggedOutput
from apache_beam.utils.shared import Shared

from beam_pipelines import output_folder, splits_and_shards
from beam_pipelines.decoder_process import Decoder
from beam_pipelines.shard_writer import ShardWriter, Songs
from beam_pipelines.track_rows import track_rows
from beam_pipelines.written_shard import ShardSummary
from common import catalogue, dataset_info, files, input_statistics, labels, rejection
from common.dataset_config import SPLITS, DatasetConfig
from common.errors import UserFacingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a run is to do.

    Attributes:
        config: of the dataset.
        tracks_csv: path of the catalogue.
        features_csv: paths of tables of further columns.
        catalog_sha256: of the catalogue and those tables.
        audio_dir: what the paths of the catalogue are relative to.
        output_dir: where the dataset goes.
        work: what is done with what is there.
        run_id: a name of this run that no other has.
        max_reject_fraction: the job fails if a larger part of the tracks is rejected.
        is_generation: whether it is a generation of a dataset that grows, of which few or no tracks
            need be good, or know an input or their listens.
    """

    config: DatasetConfig
    tracks_csv: str
    catalog_sha256: str
    audio_dir: str
    output_dir: str
    work: output_folder.Work
    run_id: str
    max_reject_fraction: float
    features_csv: tuple[str, ...] = ()
    is_generation: bool = False


class PlanShards(beam.DoFn):
    """Rows in each split → the name of every shard; makes the folder ready for them.

    It needs the count of all rows, so a catalogue that can't be read has changed nothing, and how
    many rows know each of the inputs.
    """

    def __init__(self, job: Job):
        self._job = job

    def process(
        self,
        _: Any,
        rows_in_split: dict[str, int],
        thresholds: tuple[float, ...],
        known: dict[tuple[str, str], int],
    ) -> Iterator[Any]:
        job = self._job
        for kind, name in input_columns(job.config):
            if not known.get((kind, name)) and not job.is_generation:
                raise UserFacingError(
                    f"config.inputs.{kind}: {name} is unknown of all "
                    f"{sum(rows_in_split.values()):,} tracks; is it the right column?"
                )
        names = [
            splits_and_shards.shard_name(split, index, num_shards)
            for split in SPLITS
            for num_shards in [shard_count(rows_in_split.get(split, 0), job.config)]
            for index in range(num_shards)
        ]
        made_of = output_folder.identity(job.config, job.catalog_sha256, library_versions())
        plan = {"num_shards": len(names), "num_rows": sum(rows_in_split.values())}
        output_folder.prepare(job.output_dir, job.work, made_of | plan, run_id=job.run_id)
        for name in names:
            yield name, ()


def shard_count(num_rows: int, config: DatasetConfig) -> int:
    """Returns how many shards the clips of so many rows are written to."""
    return splits_and_shards.shard_count(num_rows * config.clips_per_track)


def assign_to_shard(
    row: tuple[Any, ...], rows_in_split: dict[str, int], *, config: DatasetConfig
) -> tuple[str, tuple[Any, ...]]:
    """Turns (split, shuffle key, track) into (name of the shard, (shuffle key, track))."""
    split, shuffle_key, track = row
    num_shards = shard_count(rows_in_split[split], config)
    index = splits_and_shards.shard_of(shuffle_key, num_shards)
    return splits_and_shards.shard_name(split, index, num_shards), (shuffle_key, track)


def input_columns(config: DatasetConfig) -> list[tuple[str, str]]:
    """Returns (kind, name) of each column that is an input."""
    inputs = config.inputs
    kinds = {"categories": inputs.categories, "numbers": inputs.numbers, "texts": inputs.texts}
    return [(kind, name) for kind, names in kinds.items() for name in names]


def known_inputs(row: tuple[Any, ...], config: DatasetConfig) -> list[tuple[str, str]]:
    """Those of the `input_columns` that a row knows."""
    track = catalogue.Track(*row[2])
    known = [
        *map(bool, track.categories),
        *(not math.isnan(number) for number in track.numbers),
        *map(bool, track.texts),
    ]
    return list(itertools.compress(input_columns(config), known))


class WithSongs(beam.DoFn):
    """What makes records out of songs: it has a decoder, one for each process of a worker.

    Args:
        config: of the dataset.
        audio_dir: what the paths of tracks are relative to.
    """

    def __init__(self, config: DatasetConfig, audio_dir: str):
        self._config, self._audio_dir = config, audio_dir
        self._decoders = Shared()

    def setup(self) -> None:
        decoder = self._decoders.acquire(self._start_decoder)
        self._songs = Songs(self._config, self._audio_dir, decoder)

    def _start_decoder(self) -> Decoder:
        decoder = Decoder(self._config)
        decoder.start()
        return decoder


class WriteShard(WithSongs):
    """(name, rows) → the shard on disk, and what is in it.

    Outputs: the shard's summary (`ShardSummary.packed`); `rejected`, (id, JSON) of each rejected
    track; `groups`, ((kind, id), split) of each artist, and of each group that the split is by,
    that was written; of the training split `statistics`, (name, JSON of `ShardStatistics`), and
    `counts`, ((kind, name), (value, count)) of what is in its inputs.
    """

    def __init__(self, job: Job):
        super().__init__(job.config, job.audio_dir)
        self._job = job

    def process(
        self, element: tuple[str, Iterable[tuple[Any, ...]]], thresholds: tuple[float, ...]
    ) -> Iterator[Any]:
        name, rows = element
        job = self._job
        # The empty row is PlanShards', so that a shard without tracks is written too.
        tracks = [catalogue.Track.unpacked(track) for _, track in sorted(filter(None, rows))]
        writer = ShardWriter(
            job.config, job.output_dir, self._songs.records_of, attempt=job.work.attempt
        )
        written = writer.written(name, tracks, thresholds)
        yield written.summary.packed()
        for line in written.rejected:
            # As JSON, since a file's name need not be UTF-8 and Beam's strings must.
            yield TaggedOutput("rejected", (line.track_id, line.to_json()))
        for group in written.groups:
            yield TaggedOutput("groups", (group, written.summary.split))
        if written.statistics is not None:
            statistics = input_statistics.ShardStatistics.from_json(written.statistics)
            without_counts = statistics._replace(counts={}).to_json()
            yield TaggedOutput("statistics", (written.summary.file, without_counts))
            for counted, count in statistics.counts.items():
                yield TaggedOutput("counts", (counted, count))


class Finish(beam.DoFn):
    """Everything that was written → `rejected.jsonl` and, last, `dataset_info.json`."""

    def __init__(self, job: Job):
        self._job = job

    def process(
        self,
        _: Any,
        packed: list[dict[str, Any]],
        rejected: list[tuple[int, str]],
        artists_in_split: dict[str, int],
        leaking_groups: dict[str, int],
        thresholds: tuple[float, ...],
        statistics: list[tuple[str, str]],
        most_frequent: dict[tuple[str, str], Any],
    ) -> None:
        job = self._job
        shards = [ShardSummary.unpacked(values) for values in packed]
        # There may be millions; parsed, each would take ten times its text.
        output_folder.write_rejected(job.output_dir, rejected)
        info = dataclasses.replace(
            describe(job, shards, artists_in_split, leaking_groups, thresholds),
            statistics=input_statistics.statistics_of(
                (
                    input_statistics.ShardStatistics.from_json(text)
                    for _, text in sorted(statistics)
                ),
                most_frequent,
                wanted=job.config.inputs,
                spectrogram=job.config.spectrogram,
            ),
        )
        num_rejected = sum(info.rejected.values())
        num_tracks = num_rejected + sum(shard.num_tracks for shard in shards)
        too_few = not info.num_examples or num_rejected > job.max_reject_fraction * num_tracks
        if too_few and not job.is_generation:
            output_folder.end_unfinished(job.output_dir)
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in info.rejected.items())
            raise UserFacingError(
                f"{num_rejected:,} of {num_tracks:,} tracks were rejected ({reasons}), more than "
                f"--max_reject_fraction={job.max_reject_fraction:g} allows; they are listed in "
                f"{files.join(job.output_dir, dataset_info.REJECTED_FILE)}. With a larger "
                "fraction the same command takes the rest; with --retry_rejected it tries them "
                "again"
            )
        output_folder.write_info(job.output_dir, info)


def describe(
    job: Job,
    shards: list[ShardSummary],
    artists_in_split: dict[str, int],
    leaking_groups: dict[str, int],
    thresholds: tuple[float, ...],
) -> dataset_info.DatasetInfo:
    """Returns the description of what the shards hold."""
    config = job.config
    shards = sorted(shards, key=lambda shard: shard.file)
    splits = {}
    for split in SPLITS:
        mine = [shard for shard in shards if shard.split == split]
        splits[split] = dataset_info.Split(
            num_examples=sum(sum(shard.label_counts) for shard in mine),
            class_counts={
                name: sum(shard.label_counts[label] for shard in mine)
                for label, name in enumerate(config.class_names)
            },
            num_artists=artists_in_split.get(split, 0),
            shards=tuple(
                dataset_info.Shard(
                    file=shard.file,
                    num_examples=shard.num_examples,
                    bytes=shard.bytes,
                    sha256=shard.sha256,
                    unlabelled=shard.num_examples - sum(shard.label_counts),
                )
                for shard in mine
            ),
        )
    reasons: Counter[str] = Counter()
    for shard in shards:
        reasons.update(shard.rejected)
    groups = config.split_by if config.split_by in ("track", "date") else "artist"
    return dataset_info.DatasetInfo.of(
        config,
        splits,
        thresholds=tuple(thresholds),
        rejected={reason: reasons[reason] for reason in rejection.REASONS if reasons[reason]},
        missing_audio=sum(shard.missing_audio for shard in shards),
        torn_groups=leaking_groups.get(groups, 0),
        torn_artists=leaking_groups.get("artist", 0),
        catalog_sha256=job.catalog_sha256,
        versions=library_versions(),
    )


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that samples and pictures pass through."""
    names = ("librosa", "numpy", "scipy", "soundfile", "soxr")
    libsndfile = soundfile.__libsndfile_version__
    return {name: metadata.version(name) for name in names} | {"libsndfile": libsndfile}


def build_dataset(pipeline: beam.Pipeline, job: Job) -> None:
    """Adds the job to a pipeline."""
    rows = track_rows(
        pipeline,
        job.config,
        tracks_csv=job.tracks_csv,
        features_csv=job.features_csv,
        may_lack_listens=job.is_generation,
    )
    rows_in_split = AsDict(
        rows
        | "split" >> beam.Map(lambda row: row[0])
        | "count rows" >> beam.combiners.Count.PerElement()
    )
    thresholds = AsSingleton(class_thresholds(pipeline, rows, job.config))
    known = {}
    if input_columns(job.config):
        known = AsDict(
            rows
            | "known inputs" >> beam.FlatMap(known_inputs, job.config)
            | "count known inputs" >> beam.combiners.Count.PerElement()
        )
    planned = (
        pipeline
        | "plan" >> beam.Impulse()
        | "plan shards" >> beam.ParDo(PlanShards(job), rows_in_split, thresholds, known)
    )
    assigned = rows | "assign to shard" >> beam.Map(
        assign_to_shard, rows_in_split, config=job.config
    )
    written = (
        (planned, assigned)
        | beam.Flatten()
        | "group by shard" >> beam.GroupByKey()
        | "write shard"
        >> beam.ParDo(WriteShard(job), thresholds).with_outputs(
            "rejected", "groups", "statistics", "counts", main="shards"
        )
    )
    splits_of_group = (
        written.groups
        | "group by group" >> beam.GroupByKey()
        | "splits" >> beam.MapTuple(lambda group, splits: (group[0], sorted(set(splits))))
    )
    artists_in_split = AsDict(
        splits_of_group
        | "artists" >> beam.FlatMapTuple(lambda kind, splits: splits if kind == "artist" else ())
        | "count artists" >> beam.combiners.Count.PerElement()
    )
    leaking_groups = AsDict(
        splits_of_group
        | "leaking" >> beam.FlatMapTuple(lambda kind, splits: [kind] if len(splits) > 1 else ())
        | "count leaking" >> beam.combiners.Count.PerElement()
    )
    most_frequent = {}
    if job.config.inputs.categories or job.config.inputs.texts:
        most_frequent = AsDict(
            written.counts
            | "add up counts" >> beam.CombinePerKey(sum)
            | "by input" >> beam.MapTuple(lambda key, count: (key[:2], (-count, key[2])))
            | "most frequent"
            >> beam.combiners.Top.PerKey(input_statistics.MAX_TOKENS, reverse=True)
            | "list them" >> beam.MapTuple(input_statistics.listed)
        )
    _ = (
        pipeline
        | "finish" >> beam.Impulse()
        | "write info"
        >> beam.ParDo(
            Finish(job),
            AsList(written.shards),
            AsList(written.rejected),
            artists_in_split,
            leaking_groups,
            thresholds,
            AsList(written.statistics),
            most_frequent,
        )
    )


def class_thresholds(
    pipeline: beam.Pipeline, rows: beam.PCollection, config: DatasetConfig
) -> beam.PCollection:
    """Returns a collection of one tuple: the thresholds of the config, or at its quantiles."""
    if not config.quantiles:
        return pipeline | "thresholds" >> beam.Create([config.thresholds])
    return (
        rows
        | "popularity" >> beam.Map(lambda row: catalogue.Track(*row[2]).value)
        # Catalogues have far fewer different counts than tracks.
        | "count listens" >> beam.combiners.Count.PerElement()
        | "gather counts" >> beam.combiners.ToList()
        | "quantiles" >> beam.Map(labels.thresholds_at, quantiles=config.quantiles)
    )
