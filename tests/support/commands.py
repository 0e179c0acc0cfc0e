"""The commands of the project as a person runs them, and what they leave."""

import csv
import os
import subprocess
import sys

from tests.support import fork_client, fork_server
from tests.support.paths import ROOT

# Flags of the dataset job for one process instead of one for each core: half the CPU-seconds where
# a test is about what both do.
IN_MEMORY = ("--direct_running_mode=in_memory", "--direct_num_workers=1")


def run_module(*arguments, env=None, timeout=300, fresh=False):
    """Runs `python -m …` as a person would; its CompletedProcess with text.

    It is forked from a process that has imported TensorFlow or Beam, where there is one; `fresh`
    has it start from nothing.
    """
    module, *flags = map(str, arguments)
    env = os.environ | (env or {})
    if not fresh and fork_client.serves(module):
        result = fork_server.run(module, *flags, timeout=timeout, env=env)
        if result is not None:
            return result
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_module(*arguments, env=None, stderr=subprocess.STDOUT) -> subprocess.Popen:
    """Starts `python -m …` beside the test, forked where it can be; a Popen with text.

    Its pid, signals and exit code are the command's; `kill` waits for all that ends with it.
    """
    return fork_server.Started(
        ["-m", *map(str, arguments)],
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def build(tracks_csv, audio_dir, output_dir, *arguments, env=None, fresh=False):
    """Runs the dataset job."""
    return run_module(
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        f"--tracks_csv={tracks_csv}",
        f"--audio_dir={audio_dir}",
        f"--output_dir={output_dir}",
        "--max_reject_fraction=0.2",  # four of two dozen clips are bad
        *arguments,
        env=env,
        fresh=fresh,
    )


def counted(stdout: str, name: str) -> int:
    """The value of a counter in what a run printed, 0 where it is not."""
    for line in stdout.splitlines():
        if line.startswith(name):
            return int(line.split()[-1].replace(",", ""))
    return 0


def assert_refused(result, *fragments):
    """Exit code 1 and one line on stderr that names the fragments."""
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    for fragment in fragments:
        assert str(fragment) in line


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_csv(path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_csv(path, rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
