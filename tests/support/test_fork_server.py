"""Commands that are forked are as those that start from nothing."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support import fork_client
from tests.support.commands import start_module
from tests.support.paths import ROOT
from trainer.launch import free_ports


def run(python: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a Python."""
    command = [python, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_it_ends_and_prints_as_python_does():
    command = ("-m", "beam_pipelines.inspect_dataset", "--dataset_dir=none")
    forked = run(fork_client.python(), *command)
    assert forked == run(sys.executable, *command)
    assert forked[0] == 1 and "none: no such folder" in forked[2]


def test_tests_start_python_itself():
    """As well where pytest-xdist's processes, which run them, are forked."""
    assert os.path.dirname(sys.executable) == os.path.join(sys.prefix, "bin")


def test_what_no_server_has_imported_is_left_to_python():
    code = ("-c", "import sys; print(sys.executable, sys.argv)", "argument")
    expected = f"{sys.executable} ['-c', 'argument']\n"
    assert run(fork_client.python(), *code) == (0, expected, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_signal_is_the_command_s(dataset_dir, tmp_path, number, code):
    """Here of a worker that waits for another one."""
    own, missing = (f"localhost:{port}" for port in free_ports(2))
    place = {"cluster": {"worker": [own, missing]}, "task": {"type": "worker", "index": 0}}
    process = start_module(
        "trainer.train",
        "--config=configs/six_conv_rgb.py",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={tmp_path / 'model'}",
        env={"TF_CONFIG": json.dumps(place)},
    )
    assert process.stdout.readline() == "waiting for 2 workers\n"
    (pid,) = process.pids()
    if number == signal.SIGKILL:
        process.kill()
    else:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not os.path.exists(f"/proc/{pid}")
