"""Runs the dataset job on an engine, and shows a person how far it is."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from beam_pipelines import counters, dataset_job, engines, output_folder, pipeline
from common import command
from common.errors import UserFacingError


class Progress:
    """Prints how many of the planned shards are written, from a thread, while a block runs."""

    def __init__(self, output_dir: str, *, every_seconds: float = 2.0):
        self._output_dir = output_dir
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        shown = None
        while not self._stop.wait(self._every_seconds):
            try:
                progress = output_folder.progress(self._output_dir)
            except (OSError, UserFacingError):  # the job itself says what is wrong
                continue
            if progress is None or progress[0] == shown:
                continue
            shown, plan = progress
            print(
                f"shards done: {shown} of {plan['num_shards']} ({plan['num_rows']:,} tracks)",
                flush=True,
            )


@contextlib.contextmanager
def engine_kept_back() -> Iterator[None]:
    """Keeps stderr back, and after the block all that an engine on this machine still logs.

    What Prism and Flink log comes by way of threads, some of it after the job has ended, and
    Beam's own threads complain as the engine that they talk to goes.
    """
    heard = threading.excepthook

    def hear(raised: threading.ExceptHookArgs) -> None:
        if not isinstance(raised.exc_value, grpc.RpcError):  # the main thread has it too
            heard(raised)

    threading.excepthook = hear
    with command.kept_back_stderr(to_the_end_of_a_failure=True):
        try:
            yield
        finally:
            logging.disable(logging.CRITICAL)
            threading.excepthook = lambda _: None


def run(job: dataset_job.Job, options: PipelineOptions) -> str | None:
    """Runs the job to its end and returns Beam's counters, None if it was only prepared."""
    beam_pipeline = beam.Pipeline(engines.runner(options), options)
    pipeline.build_dataset(beam_pipeline, job)
    with Progress(job.output_dir):
        result = run_to_its_end(beam_pipeline, options)
    return None if result is None else counters.table(result.metrics().query())


def run_to_its_end(beam_pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult | None:
    """Runs a pipeline, and returns None if it was only prepared."""
    quiet = contextlib.nullcontext() if engines.is_dataflow(options) else engine_kept_back()
    with quiet:
        try:
            result = beam_pipeline.run()
            if engines.is_only_prepared(options):
                return None
            result.wait_until_finish()
        except Exception as error:
            if clear := engines.input_error_in(error):
                raise clear from None
            raise
        return result
