"""Engines that run the dataset job on this machine, downloaded or built once in build/engines."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator

import apache_beam
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from tests.support.paths import ROOT

ENGINES = ROOT / "build" / "engines"
_POM = ROOT / "tests" / "support" / "flink_job_server.pom.xml"


def _make(*command, **env) -> str | None:
    """Runs what downloads or builds an engine; the end of what it printed if it failed."""
    result = subprocess.run(
        command,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    return result.stdout[-400:] or "failed" if result.returncode else None


def _need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not on this machine")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lets one process of the tests at a time download and build."""
    ENGINES.mkdir(parents=True, exist_ok=True)
    with open(ENGINES / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@_alone()
def prism() -> list[str]:
    """The flags for Prism, built from its Go module."""
    binary = ENGINES / f"prism-{apache_beam.__version__}" / "prism"
    if not binary.exists():
        _need("go")
        module = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{apache_beam.__version__}"
        problem = _make("go", "install", module, GOBIN=str(binary.parent))
        if problem:
            pytest.skip(f"Prism could not be built: {problem}")
    return ["--runner=PrismRunner", f"--prism_location={binary}"]


@_alone()
def flink() -> list[str]:
    """The flags for a Flink on this machine: the jar that Beam would take, or else the pom's."""
    _need("java", "mvn")
    name = f"beam-runners-flink-{FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS[-1]}-job-server"
    whole = ENGINES / f"{name}-{apache_beam.__version__}.jar"
    parts = ENGINES / "flink" / "flink-starter.jar"
    if not (whole.exists() or parts.exists()):
        maven = ("mvn", "--quiet", "--batch-mode", "--strict-checksums")
        problem = _make(
            *maven,
            "dependency:copy",
            f"-Dartifact=org.apache.beam:{name}:{apache_beam.__version__}",
            f"-DoutputDirectory={ENGINES}",
        ) and _make(*maven, "--file", str(_POM), f"-Doutput={parts.parent}", "package")
        if problem:
            pytest.skip(f"Flink could not be downloaded: {problem}")
    jar = whole if whole.exists() else parts
    # Half the CPU-seconds of so short a life.
    os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    return ["--runner=FlinkRunner", f"--flink_job_server_jar={jar}"]
