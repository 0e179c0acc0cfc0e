"""Every engine that runs the job gives the same bytes, also when a bundle fails and is retried."""

import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import PortableOptions

from beam_pipelines import engines
from common.errors import UserFacingError
from tests.support.commands import assert_refused, build, counted, files_of, run_module
from tests.support.paths import ROOT

SPLIT = "--config.split_sizes=(0.5,0.25,0.25)"


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["prism", "flink"])
def test_the_bytes_are_those_of_directrunner(engine, request, dataset_dir, library, tmp_path):
    flags = request.getfixturevalue(engine)
    result = build(library.tracks_csv, library.audio_dir, tmp_path, SPLIT, *flags)
    assert result.returncode == 0, result.stderr
    assert files_of(tmp_path) == files_of(dataset_dir)
    tracks = counted(result.stdout, "tracks: decoded")
    shards = counted(result.stdout, "shards: written")
    if engine == "prism":  # which sometimes ends before it has heard of the last counts
        assert 0 < tracks <= library.num_examples and 0 < shards <= 3
    else:
        assert (tracks, shards) == (library.num_examples, 3)
    assert "milliseconds a track: decode" in result.stdout
    assert "beam" not in result.stdout
    assert result.stderr == ""


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["prism", "flink"])
def test_a_mistake_is_named_in_one_line(engine, request, library, tmp_path):
    flags = [*request.getfixturevalue(engine), "--max_reject_fraction=0"]
    result = build(library.tracks_csv, library.audio_dir, tmp_path, *flags)
    assert_refused(result, "tracks were rejected", "--max_reject_fraction=0", "rejected.jsonl")


def test_an_engine_that_talks_on_after_the_job_is_not_heard():
    script = (
        "import logging, threading, time\n"
        "from beam_pipelines import job_run\n"
        "from common.errors import UserFacingError\n"
        "def late():\n"
        "    time.sleep(0.5)\n"
        "    logging.error('job failed')\n"
        "    raise OSError('the engine is gone')\n"
        "try:\n"
        "    with job_run.engine_kept_back():\n"
        "        threading.Thread(target=late).start()\n"
        "        raise UserFacingError('this is heard')\n"
        "except UserFacingError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("this is heard\n", "")


@pytest.mark.integration
def test_a_retried_bundle_leaves_nothing_twice(flink, dataset_dir, library, tmp_path):
    """A worker fails when its first shard is whole and nobody knows of it; Flink tries again."""
    fault = tmp_path / "fault"
    fault.mkdir()
    (fault / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "rename, failed = os.replace, pathlib.Path(__file__).with_name('failed')\n"
        "def fail_once(source, target):\n"
        "    rename(source, target)\n"
        "    if '.tfrecord-' in str(target) and not failed.exists():\n"
        "        failed.touch()\n"
        "        raise OSError('the disk went away')\n"
        "os.replace = fail_once\n"
    )
    (fault / "flink-conf.yaml").write_text(
        "restart-strategy: fixed-delay\n"
        "restart-strategy.fixed-delay.attempts: 2\n"
        "restart-strategy.fixed-delay.delay: 1 s\n"
    )
    env = {"PYTHONPATH": str(fault), "FLINK_CONF_DIR": str(fault)}
    arguments = (library.tracks_csv, library.audio_dir, tmp_path / "out", SPLIT, *flink)
    result = build(*arguments, env=env)
    assert result.returncode == 0, result.stderr
    assert (fault / "failed").exists()
    assert files_of(tmp_path / "out") == files_of(dataset_dir)


def test_a_job_on_prism_may_take_longer_than_a_request():
    """By which Beam watches it: after the default of 300 s it was taken for failed."""
    given = ["--runner=PrismRunner", "--job_server_timeout=7"]
    seconds = [
        engines.options(flags).view_as(PortableOptions).job_server_timeout
        for flags in (given[:1], given)
    ]
    assert seconds[0] > 365 * 86_400 and seconds[1] == 7


def test_words_that_are_no_flags_are_refused():
    """Beam passes over them, as over the `true` that is left of `--overwrite true`."""
    assert engines.options(["--direct_num_workers", "3"]).get_all_options()["runner"]
    for arguments in (["true"], ["--direct_num_workers=3", "config.salt=other"]):
        with pytest.raises(UserFacingError, match=f"^{arguments[-1]}: flags only"):
            engines.options(arguments)


@pytest.mark.parametrize("command", ["inspect_dataset", "compact", "upload_library"])
def test_a_command_without_an_engine_takes_flags_only(command):
    needed = {"upload_library": ["--source=a", "--destination=gs://b"]}
    flags = needed.get(command, ["--dataset_dir=none"])
    result = run_module(f"beam_pipelines.{command}", *flags, "verify")
    assert_refused(result, "verify: flags only")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (  # as Flink says it
            "Pipeline job_1 failed in state FAILED: org.apache.flink.runtime.client."
            "JobCancellationException: Job was cancelled.",
            "the job was cancelled",
        ),
        (
            "Pipeline job_1 failed in state FAILED: org.apache.flink.runtime.io.network.netty."
            "exception.RemoteTransportException: Connection unexpectedly closed by remote task "
            "manager 'localhost/127.0.0.1:39509'. This might indicate that the remote task manager "
            "was lost.",
            "a worker of the engine has ended",
        ),
        (
            "Pipeline job_1 failed in state FAILED: java.net.ConnectException: "
            "java.net.ConnectException: finishConnect(..) failed: Connection refused",
            "nothing answers where --flink_master says",
        ),
        (
            "Pipeline job_1 failed in state FAILED: org.apache.flink.runtime.jobmanager.scheduler."
            "NoResourceAvailableException: Could not acquire the minimum required resources.",
            "the cluster has fewer free slots than --parallelism",
        ),
        (  # and Dataflow
            "Dataflow pipeline failed. State: CANCELLED, Error:\nNone",
            "the job was cancelled",
        ),
    ],
)
def test_a_job_that_a_person_or_a_machine_ended_goes_on(said, words):
    line = str(engines.input_error_in(RuntimeError(said)))
    assert line.startswith(words) and line.endswith("; the same command goes on")


def test_an_engine_that_can_not_run_says_what_it_needs(library, tmp_path):
    arguments = (library.tracks_csv, library.audio_dir, tmp_path / "out", "--runner=FlinkRunner")
    result = build(*arguments, "--flink_master=localhost:8081")
    assert_refused(result, "--flink_master=localhost:8081", "--environment_type=DOCKER")
    result = build(*arguments, env={"JAVA_HOME": str(tmp_path)})
    assert_refused(result, tmp_path / "bin" / "java", "Flink needs Java")


def test_the_image_of_a_worker_has_the_beam_of_the_lock():
    (base,) = (
        line.split(":")[-1]
        for line in (ROOT / "beam_pipelines" / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM ")
    )
    assert f"apache-beam=={base}" in (ROOT / "constraints.txt").read_text().splitlines()
