r"""Lets a dataset grow by what is announced: each run writes further generations.

python -m beam_pipelines.stream_dataset --source=announced --audio_dir=music \
    --config=configs/dataset_artist.py --output_dir=dataset --window=5m --once

--source is a folder, local or gs://, of files *.jsonl with an announcement a line, or a topic,
kafka://broker:9092/topic, or a subscription, pubsub://projects/P/subscriptions/S. With --once it
ends when all that was announced is dealt with; without it looks again every --poll, and with
--runner=PrismRunner, FlinkRunner or DataflowRunner it is then one pipeline that has no end. Every
flag that is not listed here is Beam's, as of build_dataset. docs/streaming.md tells the rest.
"""

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Iterator

import apache_beam as beam
from absl import flags
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_pipelines import dataset_job, engines, job_run
from beam_pipelines.stream import (
    driver,
    known,
    metrics,
    plan,
    run,
    sources,
    unbounded,
    written_generation,
)
from common import command, dataset_info, dataset_reader, files, generations, lock
from common.config import differences
from common.dataset_config import DatasetConfig
from common.errors import UserFacingError, require

_CONFIG = command.define_config("configs/dataset_artist.py")
_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Folder of files *.jsonl, an announcement a line, or kafka://broker:9092/topic, or "
    "pubsub://projects/P/subscriptions/S.",
    required=True,
)
_SKIP_EXPIRED = flags.DEFINE_bool(
    "skip_expired", False, "Go on after what a topic has deleted before it was read; it is counted."
)
_AUDIO_DIR = flags.DEFINE_string(
    "audio_dir", None, "Folder that the paths of announcements are relative to.", required=True
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "The dataset that grows; begun where there is none.", required=True
)
_WINDOW = flags.DEFINE_string(
    "window", "5m", "Announcements of so much event time become a generation: 90s, 5m, 6h, 1d."
)
_ALLOWED_LATENESS = flags.DEFINE_string(
    "allowed_lateness", "30d", "What is announced longer after its window is a dead letter."
)
_AUDIO_WAIT = flags.DEFINE_string(
    "audio_wait", "1h", "How long audio that is not there yet is waited for."
)
_LABELS = flags.DEFINE_enum(
    "labels",
    "wait",
    ["wait", "later"],
    "Whether an announcement without listens waits for them, or lands at once without a label, "
    "which follows in a later generation.",
)
_LABEL_WAIT = flags.DEFINE_string(
    "label_wait",
    "30d",
    "How long an announcement without listens waits for one that has them, with --labels=wait.",
)
_MAX_CLIPS = flags.DEFINE_integer(
    "max_clips_per_generation", 10_000, "More of a window are a further generation.", lower_bound=1
)
_ONCE = flags.DEFINE_bool("once", False, "End when all that was announced is dealt with.")
_POLL = flags.DEFINE_string("poll", "10s", "How long to wait between looks, without --once.")
_METRICS_FILE = flags.DEFINE_string(
    "metrics_file", None, "Where to write what Prometheus is to know after each run: a name *.prom."
)
_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)

# How often a line is looked for, where an engine writes generations.
_TELL_SECONDS, _TELL_IN_BUCKET_SECONDS = 0.5, 10.0

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class _OnlyPrepared(Exception):
    """The engine has a job, and was told not to start it; its text is the generation's folder."""


def seconds_in(text: str, *, flag: str, least: int = 0) -> int:
    """Returns the seconds of a duration such as 90s, 5m, 6h or 1d; UserFacingError of any other."""
    found = re.fullmatch(r"(\d{1,7})([smhd])", text, re.ASCII)
    require(
        found is not None and int(found[1]) * _UNITS[found[2]] >= least,
        f"--{flag}={text}: not a duration such as 90s, 5m, 6h or 1d",
    )
    assert found is not None
    return int(found[1]) * _UNITS[found[2]]


def main(argv: list[str]) -> None:
    # A worker of a stream reads the source, one of a bounded run does not.
    options = engines.options(argv[1:], extra="worker" if _ONCE.value else "stream")
    output_dir, audio_dir = _OUTPUT_DIR.value.rstrip("/"), _AUDIO_DIR.value.rstrip("/")
    if engines.is_dataflow(options):
        for flag, path in {"output_dir": output_dir, "audio_dir": audio_dir}.items():
            require(
                files.is_remote(path),
                f"--{flag}={path}: workers of Dataflow don't see this machine; give a gs:// path",
            )
    poll = seconds_in(_POLL.value, flag="poll", least=1)
    if _METRICS_FILE.value is not None:
        metrics.check(_METRICS_FILE.value)
    source = sources.of(_SOURCE.value, once=_ONCE.value, skip_expired=_SKIP_EXPIRED.value)
    require(files.folder_exists(audio_dir), f"{audio_dir}: no such folder; see --audio_dir")
    rules = plan.Rules(
        window=seconds_in(_WINDOW.value, flag="window", least=1),
        allowed_lateness=seconds_in(_ALLOWED_LATENESS.value, flag="allowed_lateness"),
        audio_wait=seconds_in(_AUDIO_WAIT.value, flag="audio_wait"),
        label_wait=seconds_in(_LABEL_WAIT.value, flag="label_wait"),
        unlabelled=_LABELS.value == "later",
    )
    if engines.streams(options) and not _ONCE.value:
        source.close()  # a worker reads it
        stream_on_an_engine(options, output_dir, audio_dir=audio_dir, rules=rules, poll=poll)
        return
    with contextlib.closing(source), lock.hold(output_dir, force=_FORCE_UNLOCK.value):
        config = open_dataset(output_dir)
        rules = with_most_tracks(rules, config)
        # Nobody else changes the dataset, so it is read once.
        there = known.load(output_dir, uri=source.uri)
        num_written, watch = 0, metrics.Watch()
        while True:
            try:
                num_written += grow(
                    source,
                    output_dir,
                    audio_dir=audio_dir,
                    rules=rules,
                    options=options,
                    watch=watch,
                    there=there,
                )
            except _OnlyPrepared as prepared:
                print(f"{prepared}: its job is prepared, and was not started; nothing is read yet")
                return
            if not _ONCE.value:
                time.sleep(poll)
            elif not source.may_have_more:
                break
    if not num_written:
        print("nothing new that could be written")


def with_most_tracks(rules: plan.Rules, config: DatasetConfig) -> plan.Rules:
    most = max(1, _MAX_CLIPS.value // config.clips_per_track)
    return dataclasses.replace(rules, max_tracks=most)


def stream_on_an_engine(
    options: PipelineOptions, output_dir: str, *, audio_dir: str, rules: plan.Rules, poll: int
) -> None:
    """Runs the stream as one pipeline, until it fails or is interrupted; says what it writes."""
    with lock.hold(output_dir, force=_FORCE_UNLOCK.value):
        config = open_dataset(output_dir)
    stream = driver.Stream(
        uri=_SOURCE.value.rstrip("/"),
        skip_expired=_SKIP_EXPIRED.value,
        output_dir=output_dir,
        audio_dir=audio_dir,
        rules=with_most_tracks(rules, config),
        poll=float(poll),
        metrics_file=_METRICS_FILE.value,
    )
    options.view_as(StandardOptions).streaming = True
    beam_pipeline = beam.Pipeline(engines.runner(options), options)
    unbounded.add(beam_pipeline, stream, config, orders_a_bundle=engines.elements_a_bundle(options))
    try:
        with each_generation_told(output_dir):
            if job_run.run_to_its_end(beam_pipeline, options) is None:
                print("the job of the stream is prepared, and was not started")
    finally:
        driver.stop_all()  # where the engine has this process for its worker


@contextlib.contextmanager
def each_generation_told(output_dir: str) -> Iterator[None]:
    """Prints a line for each generation that is written, by whomever, while a block runs."""
    last = max(generations.numbers_in(generations.sizes_below(output_dir)), default=0)
    seconds = _TELL_IN_BUCKET_SECONDS if files.is_remote(output_dir) else _TELL_SECONDS
    stop = threading.Event()

    def tell() -> None:
        nonlocal last
        with contextlib.suppress(OSError, UserFacingError):  # the stream itself says what is wrong
            while files.exists(_manifest_of(output_dir, last + 1)):
                (manifest,) = generations.load(output_dir, [last + 1])
                print(run.in_words(manifest), flush=True)
                last += 1

    def keep_telling() -> None:
        while not stop.wait(seconds):
            tell()

    teller = threading.Thread(target=keep_telling, daemon=True)
    teller.start()
    try:
        yield
    finally:
        stop.set()
        teller.join()
        tell()


def _manifest_of(output_dir: str, number: int) -> str:
    return files.join(generations.folder_of(output_dir, number), generations.MANIFEST_FILE)


def open_dataset(output_dir: str) -> DatasetConfig:
    """Begins a dataset where there is none, and returns the config of the one in the folder.

    Raises:
        UserFacingError: --config is that of another, or the dataset can't grow.
    """
    asked = None
    if _CONFIG.value is not None or not files.exists(
        files.join(output_dir, dataset_info.FILE_NAME)
    ):
        asked = DatasetConfig.from_dict(command.config_values(_CONFIG))
    if not files.exists(files.join(output_dir, dataset_info.FILE_NAME)):
        assert asked is not None
        written_generation.begin_dataset(output_dir, asked)
    first = dataset_reader.first_info(output_dir)
    if asked is not None:
        found = differences(first.config.to_dict(), asked.to_dict())
        require(
            not found,
            f"{output_dir} holds another dataset: {'; '.join(found)}; leave --config away, or take "
            "another --output_dir",
        )
    return written_generation.config_of(first)


def grow(
    source: sources.Source,
    output_dir: str,
    *,
    audio_dir: str,
    rules: plan.Rules,
    options: PipelineOptions,
    watch: metrics.Watch,
    there: known.Known,
) -> int:
    """Deals with what was announced since the last manifest, and says what became of it.

    What is known of the dataset, `there`, is kept up to date.

    Returns:
        How many generations it wrote.
    """

    def run_job(job: dataset_job.Job) -> None:
        if job_run.run(job, options) is None:
            raise _OnlyPrepared(job.output_dir)

    began, num_written = time.time(), 0
    for manifest in run.run(
        source,
        output_dir,
        run_job,
        audio_dir=audio_dir,
        rules=rules,
        now=int(began),
        watch=watch,
        there=there,
    ):
        num_written += 1
        print(run.in_words(manifest), flush=True)
    if _METRICS_FILE.value is not None:
        watch.ended(began=began, now=time.time())
        metrics.write(_METRICS_FILE.value, watch, now=time.time())
    return num_written


if __name__ == "__main__":
    command.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
