"""The dataset job without an engine: the job's own steps, one after the other, in this process.

For tests of what is around the job, in a moment; that the engines do the same is tested elsewhere.
"""

from beam_pipelines import dataset_job, pipeline
from beam_pipelines.dataset_job import Job
from beam_pipelines.shard_writer import ShardWriter, Songs


def run(job: Job) -> None:
    """Runs a job whose thresholds are given and whose rows need no others."""
    decoder = pipeline.Decoder(job.config)  # where tests put another
    decoder.start()
    songs = Songs(job.config, job.audio_dir, decoder)
    writer = ShardWriter(job.config, job.output_dir, songs.records_of, attempt=job.work.attempt)
    written = [
        writer.written(name, tracks, job.config.thresholds)
        for name, tracks in dataset_job.tracks_by_shard(job).items()
    ]
    dataset_job.finish(job, job.config.thresholds, dataset_job.totals_of(written))
