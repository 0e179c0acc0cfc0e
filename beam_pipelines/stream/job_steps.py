"""The steps of the dataset job that come before and after its shards, in one process.

For jobs whose shards are made elsewhere than in the job's own graph, and whose config is that of a
dataset that grows: every step but the shards themselves needs no more than the rows of a
generation.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from beam_pipelines import pipeline
from beam_pipelines.track_rows import ReadCatalogue
from beam_pipelines.written_shard import WrittenShard
from common import input_statistics
from common.catalogue import Track


def planned(job: pipeline.Job) -> dict[str, list[Track]]:
    """Makes the folder of a job ready, and returns {name of each shard: its tracks, in order}."""
    config = job.config
    rows = list(ReadCatalogue(config, may_lack_listens=job.is_generation).process(job.tracks_csv))
    rows_in_split = dict(Counter(split for split, _, _ in rows))
    names = pipeline.PlanShards(job).process(None, rows_in_split, config.thresholds, {})
    by_shard: dict[str, list[tuple[Any, ...]]] = {name: [] for name, _ in names}
    for row in rows:
        name, keyed = pipeline.assign_to_shard(row, rows_in_split, config=config)
        by_shard[name].append(keyed)
    return {
        name: [Track.unpacked(track) for _, track in sorted(mine)]
        for name, mine in by_shard.items()
    }


def finish(job: pipeline.Job, written: Sequence[WrittenShard]) -> None:
    """Writes `rejected.jsonl` and, last, `dataset_info.json` of a job whose shards are written."""
    splits_of: dict[tuple[str, int], set[str]] = {}
    for shard in written:
        for group in shard.groups:
            splits_of.setdefault(group, set()).add(shard.summary.split)
    artists = Counter(
        split for (kind, _), splits in splits_of.items() if kind == "artist" for split in splits
    )
    leaking = Counter(kind for (kind, _), splits in splits_of.items() if len(splits) > 1)
    counts: Counter[input_statistics.Counted] = Counter()
    statistics = []
    for shard in written:
        if shard.statistics is not None:
            counts.update(input_statistics.ShardStatistics.from_json(shard.statistics).counts)
            statistics.append((shard.summary.file, shard.statistics))
    pipeline.Finish(job).process(
        None,
        [shard.summary.packed() for shard in written],
        [(line.track_id, line.to_json()) for shard in written for line in shard.rejected],
        dict(artists),
        dict(leaking),
        job.config.thresholds,
        statistics,
        input_statistics.most_frequent_of(counts),
    )
