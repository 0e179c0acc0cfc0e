"""A program that ends with the process which started it."""

import subprocess
import sys
import time

import pytest

from common import parent_death
from tests.support.paths import ROOT
from tests.support.processes import command_line, wait_until_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that sees to it")


def test_a_program_ends_when_its_parent_is_killed():
    start = (
        "import subprocess; from common import parent_death\n"
        "program = subprocess.Popen(parent_death.command(['sleep', '600']))\n"
        "print(program.pid, flush=True); program.wait()"
    )
    command = [sys.executable, "-c", start]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        end = time.monotonic() + 60
        while command_line(pid) != "sleep 600 ":
            assert time.monotonic() < end
            time.sleep(0.01)
        parent.kill()
    wait_until_ended({pid}, seconds=60)


def test_a_program_whose_parent_was_killed_before_does_not_start():
    command = parent_death.command(["echo", "started"])
    command[-3] = str(1 << 30)  # of a process that can't be
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (1, "")
