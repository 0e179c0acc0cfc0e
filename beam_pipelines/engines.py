"""The engines that run the dataset job, and what each has to be told that a person need not know.

DirectRunner    this machine, with a process for each core
PrismRunner     this machine; a binary that Beam downloads hands the work to this process
FlinkRunner     the same with Flink, as a jar that Beam downloads, or with --flink_master a cluster
DataflowRunner  Google Cloud; its workers install the package from this checkout, or have it in
                the image that beam_pipelines/Dockerfile makes
"""

import atexit
import itertools
import logging
import os
import pathlib
import shutil
import tempfile
from importlib import metadata

import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from beam_pipelines import engine_process
from common.errors import UserFacingError, one_line, user_error_in

# Of requests to the job server. Beam 2.77 watches a job on Prism by one of these requests, so with
# the default of 300 s a job that takes longer fails.
_TIMEOUT, _YEARS = "--job_server_timeout", 10 * 365 * 86_400

# What Flink and Dataflow say of a job that has ended, and what that is.
_CANCELLED = "the job was cancelled"
_LOST = "a worker of the engine has ended, perhaps for want of memory"
_ENDS = {
    "JobCancellationException": _CANCELLED,
    "State: CANCELLED": _CANCELLED,
    "CANCELLED: client cancelled": _LOST,
    "RemoteTransportException": _LOST,
    "Heartbeat of TaskManager": _LOST,
    "is no longer reachable": _LOST,
    "NoResourceAvailableException": "the cluster has fewer free slots than --parallelism asks for",
    "java.net.ConnectException": "nothing answers where --flink_master says that the cluster is, "
    "or --environment_config that its workers are",
}

_SETUP_FILE = pathlib.Path(__file__).resolve().parent.parent / "setup.py"


def options(arguments: list[str], *, extra: str = "worker") -> PipelineOptions:
    """Beam's options: what was asked for, and the rest as the engine needs it.

    Args:
        arguments: flags of Beam.
        extra: of the package, which workers of Dataflow install.

    Raises:
        UserFacingError: a flag is neither the command's nor Beam's, something is no flag, or the
            engine can't run so.
    """
    for before, word in itertools.pairwise(["", *arguments]):
        # Beam takes the value of a flag after a space as well, and passes over any other word.
        if not word.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UserFacingError(f"{word}: flags only, such as --runner=PrismRunner")
    # It says in lines of its own what is refused below, and where it starts Flink or Prism.
    for module in ("options.pipeline_options", "utils.subprocess_server"):
        logging.getLogger(f"apache_beam.{module}").setLevel(logging.ERROR)
    asked = PipelineOptions(arguments)
    known = asked.get_all_options()
    for name in asked.get_all_options(retain_unknown_options=True):
        if name not in known:
            raise UserFacingError(f"--{name}: neither this command nor Beam has such a flag")
    if known["runner"] in (None, "DirectRunner", "FnApiRunner"):
        return PipelineOptions([*arguments, *_direct(arguments)])
    if known["runner"] == "FlinkRunner":
        _check_flink(asked)
    if known["runner"] == "PrismRunner" and not any(a.startswith(_TIMEOUT) for a in arguments):
        return PipelineOptions([*arguments, f"{_TIMEOUT}={_YEARS}"])
    if is_dataflow(asked):
        return PipelineOptions([*arguments, *_dataflow(asked, extra)])
    return asked


def runner(options: PipelineOptions) -> PipelineRunner | str:
    """Returns what runs a pipeline with these options, as `beam.Pipeline` takes it."""
    name = str(options.view_as(StandardOptions).runner)
    if name == "FlinkRunner":
        return engine_process.FlinkRunner()
    if name == "PrismRunner":
        return engine_process.PrismRunner()
    return name


def is_dataflow(options: PipelineOptions) -> bool:
    return bool(options.view_as(StandardOptions).runner == "DataflowRunner")


def streams(options: PipelineOptions) -> bool:
    """Returns whether the engine runs a pipeline that has no end, as DirectRunner does not."""
    return options.view_as(StandardOptions).runner in (
        "PrismRunner",
        "FlinkRunner",
        "DataflowRunner",
        "PortableRunner",
    )


def elements_a_bundle(options: PipelineOptions) -> int:
    """Returns how many elements of a source, each minutes of work, go into a bundle at most.

    Prism has a thread do all that a source gave in one bundle, also behind a Reshuffle: 3 times as
    long as with 4. Flink spreads them, and pauses after each bundle: 5 times as long with 1.
    """
    return 4 if options.view_as(StandardOptions).runner == "PrismRunner" else 10_000


def is_only_prepared(options: PipelineOptions) -> bool:
    """Returns whether nothing runs: a dry run on Dataflow, or a template for later."""
    return is_dataflow(options) and bool(
        options.view_as(TestOptions).dry_run
        or options.view_as(GoogleCloudOptions).template_location
    )


def input_error_in(error: Exception) -> UserFacingError | None:
    """Returns what to do if Beam could not download an engine, or a part of one has gone."""
    if "Unable to fetch remote" in str(error):
        return UserFacingError(
            f"{one_line(error)} (--flink_job_server_jar or --prism_location names one "
            "that is here already)"
        )
    if isinstance(error, grpc.RpcError):
        return UserFacingError("the engine does not answer any more; the same command goes on")
    if user_error_in(error) is not None:
        return None
    for said, line in _ENDS.items():
        if said in str(error):
            return UserFacingError(f"{line}; the same command goes on")
    return None


def _direct(arguments: list[str]) -> list[str]:
    """DirectRunner may hand the job to Prism; FnApiRunner is what it uses otherwise."""
    given = {argument.partition("=")[0] for argument in arguments}
    defaults = {"--direct_running_mode": "multi_processing", "--direct_num_workers": "0"}
    more = [f"{flag}={value}" for flag, value in defaults.items() if flag not in given]
    return [*more, "--runner=FnApiRunner"]


def _check_flink(options: PipelineOptions) -> None:
    portable, flink = options.view_as(PortableOptions), options.view_as(FlinkRunnerOptions)
    if not flink.flink_master.startswith("[") and not portable.environment_type:
        raise UserFacingError(
            f"--flink_master={flink.flink_master} is a cluster: --environment_type=DOCKER "
            "--environment_config=IMAGE name what its workers run (beam_pipelines/Dockerfile)"
        )
    java_home = os.environ.get("JAVA_HOME")
    java = os.path.join(java_home, "bin", "java") if java_home else "java"
    if not portable.job_endpoint and not shutil.which(java):
        raise UserFacingError(f"{java}: no such program; Flink needs Java 11 or 17")


def _dataflow(options: PipelineOptions, extra: str) -> list[str]:
    """Returns what a worker installs as it starts, unless its image or the user's flags have it."""
    # The command's own module is not what workers run.
    more = ["--no_save_main_session"]
    setup = options.view_as(SetupOptions)
    if (
        options.view_as(WorkerOptions).sdk_container_image
        or setup.setup_file
        or setup.requirements_file
        or setup.extra_packages
    ):
        return more
    if not _SETUP_FILE.exists():
        raise UserFacingError(
            "--sdk_container_image is not given, and there is no checkout whose package workers "
            "could install (beam_pipelines/Dockerfile makes the image)"
        )
    folder = tempfile.mkdtemp(prefix="worker-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    requirements = pathlib.Path(folder, "requirements.txt")
    requirements.write_text("".join(f"{line}\n" for line in requirements_of(extra)))
    # A source package brings along what it always needs, and no extra.
    more += [f"--setup_file={_SETUP_FILE}", f"--requirements_file={requirements}"]
    if setup.requirements_cache is None:
        more.append("--requirements_cache=skip")  # workers fetch them, not each launch
    return more


def requirements_of(extra: str) -> list[str]:
    """Lists what an extra needs, but for Beam, at the versions that are installed here.

    The same versions as here since they are part of what a dataset is made of.
    """
    pinned = {}
    queue = [Requirement(f"fma-popularity[{extra}]")]
    while queue:
        package = queue.pop()
        for text in metadata.requires(package.name) or ():
            needed = Requirement(text)
            extras = ("", *package.extras)
            name = canonicalize_name(needed.name)
            if name == "apache-beam" or name in pinned:
                continue
            if needed.marker and not any(needed.marker.evaluate({"extra": e}) for e in extras):
                continue
            pinned[name] = metadata.version(name)
            queue.append(needed)
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]
