"""The dataset job without an engine: the job's own steps, one after the other, in this process.

For tests of what is around the job, in a moment; that the engines do the same is tested elsewhere.
"""

import contextlib
from collections import Counter

from apache_beam.pvalue import TaggedOutput

from beam_pipelines import pipeline, track_rows
from beam_pipelines.pipeline import Job


def run(job: Job) -> None:
    """Runs a job whose thresholds are given and whose inputs have no categories or texts."""
    thresholds = job.config.thresholds
    read = track_rows.ReadCatalogue(job.config, may_lack_listens=job.is_generation)
    rows = list(read.process(job.tracks_csv))
    rows_in_split = Counter(split for split, _, _ in rows)
    planned = pipeline.PlanShards(job).process(None, rows_in_split, thresholds, {})
    by_shard = {name: [] for name, _ in planned}
    for row in rows:
        name, keyed = pipeline.assign_to_shard(row, rows_in_split, config=job.config)
        by_shard[name].append(keyed)
    outputs = {"shards": [], "rejected": [], "groups": [], "statistics": [], "counts": []}
    writer = pipeline.WriteShard(job)
    with contextlib.ExitStack() as stack:
        writer.setup()
        stack.callback(writer.teardown)
        for element in by_shard.items():
            for output in writer.process(element, thresholds):
                if isinstance(output, TaggedOutput):
                    outputs[output.tag].append(output.value)
                else:
                    outputs["shards"].append(output)
    splits_of: dict[tuple[str, int], set[str]] = {}
    for group, split in outputs["groups"]:
        splits_of.setdefault(group, set()).add(split)
    artists = Counter(
        split for (kind, _), splits in splits_of.items() if kind == "artist" for split in splits
    )
    leaking = Counter(kind for (kind, _), splits in splits_of.items() if len(splits) > 1)
    pipeline.Finish(job).process(
        None,
        outputs["shards"],
        outputs["rejected"],
        artists,
        leaking,
        thresholds,
        outputs["statistics"],
        {},
    )
