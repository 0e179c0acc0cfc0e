"""What the dataset job does before its shards are written and after, as plain functions.

`pipeline` has an engine call them. Where the shards are made otherwise, by a stream or a
compaction, `tracks_by_shard` and `totals_of` do in one process what lies between them.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import soundfile

from beam_pipelines import output_folder, splits_and_shards
from beam_pipelines.track_rows import Row, catalogue_rows
from beam_pipelines.written_shard import ShardSummary, WrittenShard
from common import dataset_info, files, input_statistics, rejection
from common.catalogue import Track
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """What is in all shards of a job together.

    Attributes:
        shards: what each holds, in any order.
        rejected: (id, JSON of `RejectedTrack`) of each track that could not be used. There may be
            millions, which as objects would take ten times their text.
        artists_in_split: {split: how many artists}.
        leaking_groups: {kind of group: how many are in more than one split}.
        statistics: (shard, `ShardStatistics.to_json`) of each of the training split.
        most_frequent: {(kind, name) of an input: as `input_statistics.statistics_of` takes it}.
    """

    shards: Sequence[ShardSummary]
    rejected: Sequence[tuple[int, str]]
    artists_in_split: Mapping[str, int]
    leaking_groups: Mapping[str, int]
    statistics: Sequence[tuple[str, str]]
    most_frequent: Mapping[tuple[str, str], Any]


# ---- before the shards


def plan_shards(
    job: Job, rows_in_split: Mapping[str, int], known: Mapping[tuple[str, str], int]
) -> list[str]:
    """Makes the folder ready for the shards of a job, and returns the name of each.

    Args:
        job: what is to be done.
        rows_in_split: {split: how many rows}, of all rows, so a catalogue that can't be read has
            changed nothing.
        known: {one of the `input_columns`: how many rows know it}.

    Raises:
        UserFacingError: no row knows an input.
    """
    num_rows = sum(rows_in_split.values())
    for kind, name in input_columns(job.config):
        if not known.get((kind, name)) and not job.is_generation:
            raise UserFacingError(
                f"config.inputs.{kind}: {name} is unknown of all {num_rows:,} tracks; is it the "
                "right column?"
            )
    names = [
        splits_and_shards.shard_name(split, index, num_shards)
        for split in SPLITS
        for num_shards in [shard_count(rows_in_split.get(split, 0), job.config)]
        for index in range(num_shards)
    ]
    made_of = output_folder.identity(job.config, job.catalog_sha256, library_versions())
    plan = {"num_shards": len(names), "num_rows": num_rows}
    output_folder.prepare(job.output_dir, job.work, made_of | plan, run_id=job.run_id)
    return names


def shard_count(num_rows: int, config: DatasetConfig) -> int:
    """Returns how many shards the clips of so many rows are written to."""
    return splits_and_shards.shard_count(num_rows * config.clips_per_track)


def assign_to_shard(
    row: Row, rows_in_split: Mapping[str, int], *, config: DatasetConfig
) -> tuple[str, tuple[Any, ...]]:
    """Turns (split, shuffle key, track) into (name of the shard, (shuffle key, track))."""
    split, shuffle_key, track = row
    num_shards = shard_count(rows_in_split[split], config)
    index = splits_and_shards.shard_of(shuffle_key, num_shards)
    return splits_and_shards.shard_name(split, index, num_shards), (shuffle_key, track)


def in_order(rows: Iterable[tuple[Any, ...]]) -> list[Track]:
    """Returns the tracks of a shard's rows, (shuffle key, track) each, as the shard has them."""
    return [Track.unpacked(track) for _, track in sorted(rows)]


def input_columns(config: DatasetConfig) -> list[tuple[str, str]]:
    """Returns (kind, name) of each column that is an input."""
    inputs = config.inputs
    kinds = {"categories": inputs.categories, "numbers": inputs.numbers, "texts": inputs.texts}
    return [(kind, name) for kind, names in kinds.items() for name in names]


def known_inputs(row: Row, config: DatasetConfig) -> list[tuple[str, str]]:
    """Returns those of the `input_columns` that a row knows."""
    track = Track(*row[2])
    known = [
        *map(bool, track.categories),
        *(not math.isnan(number) for number in track.numbers),
        *map(bool, track.texts),
    ]
    return list(itertools.compress(input_columns(config), known))


def tracks_by_shard(job: Job) -> dict[str, list[Track]]:
    """Does all that comes before the shards, for a job of a generation, in one process.

    Returns:
        {name of each shard: its tracks, in order}.
    """
    config = job.config
    rows = list(catalogue_rows(job.tracks_csv, config, may_lack_listens=job.is_generation))
    rows_in_split = Counter(split for split, _, _ in rows)
    known = Counter(column for row in rows for column in known_inputs(row, config))
    by_shard: dict[str, list[tuple[Any, ...]]] = {
        name: [] for name in plan_shards(job, rows_in_split, known)
    }
    for row in rows:
        name, keyed = assign_to_shard(row, rows_in_split, config=config)
        by_shard[name].append(keyed)
    return {name: in_order(keyed) for name, keyed in by_shard.items()}


# ---- after them


def totals_of(written: Sequence[WrittenShard]) -> Totals:
    """Returns what is in shards that one process knows of."""
    splits_of: dict[tuple[str, int], set[str]] = {}
    for shard in written:
        for group in shard.groups:
            splits_of.setdefault(group, set()).add(shard.summary.split)
    statistics = [
        (shard.summary.file, shard.statistics) for shard in written if shard.statistics is not None
    ]
    counts: Counter[input_statistics.Counted] = Counter()
    for _, text in statistics:
        counts.update(input_statistics.ShardStatistics.from_json(text).counts)
    return Totals(
        shards=[shard.summary for shard in written],
        rejected=[(line.track_id, line.to_json()) for shard in written for line in shard.rejected],
        artists_in_split=Counter(
            split for (kind, _), splits in splits_of.items() if kind == "artist" for split in splits
        ),
        leaking_groups=Counter(kind for (kind, _), splits in splits_of.items() if len(splits) > 1),
        statistics=statistics,
        most_frequent=input_statistics.most_frequent_of(counts),
    )


def finish(job: Job, thresholds: tuple[float, ...], totals: Totals) -> None:
    """Writes `rejected.jsonl` and, last, `dataset_info.json`.

    Raises:
        UserFacingError: more tracks were rejected than the job allows, or none is left.
    """
    output_folder.write_rejected(job.output_dir, totals.rejected)
    info = describe(job, thresholds, totals)
    num_rejected = sum(info.rejected.values())
    num_tracks = num_rejected + sum(shard.num_tracks for shard in totals.shards)
    too_many = num_rejected > job.max_reject_fraction * num_tracks
    if (too_many or not info.num_examples) and not job.is_generation:
        output_folder.end_unfinished(job.output_dir)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in info.rejected.items())
        listed = files.join(job.output_dir, dataset_info.REJECTED_FILE)
        if not info.num_examples:
            raise UserFacingError(
                f"no track could be used: {num_rejected:,} were rejected ({reasons or 'none'}), "
                f"{info.missing_audio:,} have no file in {job.audio_dir}; {listed} lists those "
                "that were rejected. With --retry_rejected the same command tries all again"
            )
        raise UserFacingError(
            f"{num_rejected:,} of {num_tracks:,} tracks were rejected ({reasons}), more than "
            f"--max_reject_fraction={job.max_reject_fraction:g} allows; they are listed in "
            f"{listed}. With a larger fraction the same command takes the rest; with "
            "--retry_rejected it tries them again"
        )
    output_folder.write_info(job.output_dir, info)


def describe(job: Job, thresholds: tuple[float, ...], totals: Totals) -> dataset_info.DatasetInfo:
    """Returns the description of what the shards hold."""
    config = job.config
    shards = sorted(totals.shards, key=lambda shard: shard.file)
    splits = {}
    for split in SPLITS:
        mine = [shard for shard in shards if shard.split == split]
        splits[split] = dataset_info.Split(
            num_examples=sum(sum(shard.label_counts) for shard in mine),
            class_counts={
                name: sum(shard.label_counts[label] for shard in mine)
                for label, name in enumerate(config.class_names)
            },
            num_artists=totals.artists_in_split.get(split, 0),
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
    info = dataset_info.DatasetInfo.of(
        config,
        splits,
        thresholds=tuple(thresholds),
        rejected={reason: reasons[reason] for reason in rejection.REASONS if reasons[reason]},
        missing_audio=sum(shard.missing_audio for shard in shards),
        torn_groups=totals.leaking_groups.get(groups, 0),
        torn_artists=totals.leaking_groups.get("artist", 0),
        catalog_sha256=job.catalog_sha256,
        versions=library_versions(),
    )
    statistics = input_statistics.statistics_of(
        (input_statistics.ShardStatistics.from_json(text) for _, text in sorted(totals.statistics)),
        totals.most_frequent,
        wanted=config.inputs,
        spectrogram=config.spectrogram,
    )
    return dataclasses.replace(info, statistics=statistics)


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that samples and pictures pass through."""
    names = ("librosa", "numpy", "scipy", "soundfile", "soxr")
    libsndfile = soundfile.__libsndfile_version__
    return {name: metadata.version(name) for name in names} | {"libsndfile": libsndfile}
