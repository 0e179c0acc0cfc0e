"""The Beam job: a catalogue and a folder of audio in, a dataset out.

Rows of the catalogue are split, assigned to a shard and grouped by shard; inside a shard each
track is read, decoded, turned into its spectrograms and written, sorted by shuffle key. So no audio
and no spectrogram passes through a shuffle, and the bytes written depend on nothing but catalogue,
audio and config.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsList, AsSingleton, TaggedOutput
from apache_beam.utils.shared import Shared

from beam_pipelines import dataset_job
from beam_pipelines.dataset_job import Job
from beam_pipelines.decoder_process import Decoder
from beam_pipelines.shard_writer import ShardWriter, Songs
from beam_pipelines.track_rows import track_rows
from beam_pipelines.written_shard import ShardSummary
from common import catalogue, input_statistics, labels
from common.dataset_config import DatasetConfig


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
        tracks = dataset_job.in_order(filter(None, rows))
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


def _planned(
    _: Any,
    job: Job,
    rows_in_split: dict[str, int],
    known: dict[tuple[str, str], int],
    thresholds: tuple[float, ...],  # nothing is prepared before they are known
) -> Iterator[Any]:
    """Yields (name, ()) of every shard: an empty row, so that one without tracks is written too."""
    for name in dataset_job.plan_shards(job, rows_in_split, known):
        yield name, ()


def _finish(
    _: Any,
    job: Job,
    thresholds: tuple[float, ...],
    packed: list[dict[str, Any]],
    rejected: list[tuple[int, str]],
    artists_in_split: dict[str, int],
    leaking_groups: dict[str, int],
    statistics: list[tuple[str, str]],
    most_frequent: dict[tuple[str, str], Any],
) -> None:
    totals = dataset_job.Totals(
        shards=[ShardSummary.unpacked(values) for values in packed],
        rejected=rejected,
        artists_in_split=artists_in_split,
        leaking_groups=leaking_groups,
        statistics=statistics,
        most_frequent=most_frequent,
    )
    dataset_job.finish(job, thresholds, totals)


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
    if dataset_job.input_columns(job.config):
        known = AsDict(
            rows
            | "known inputs" >> beam.FlatMap(dataset_job.known_inputs, job.config)
            | "count known inputs" >> beam.combiners.Count.PerElement()
        )
    planned = (
        pipeline
        | "plan" >> beam.Impulse()
        | "plan shards" >> beam.FlatMap(_planned, job, rows_in_split, known, thresholds)
    )
    assigned = rows | "assign to shard" >> beam.Map(
        dataset_job.assign_to_shard, rows_in_split, config=job.config
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
        >> beam.Map(
            _finish,
            job,
            thresholds,
            AsList(written.shards),
            AsList(written.rejected),
            artists_in_split,
            leaking_groups,
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
