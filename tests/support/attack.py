"""Runs a command, does something to it, and looks at what it leaves."""

import dataclasses
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from tests.support import fork_client
from tests.support.paths import ROOT

# How long a command may take to end once it is told to, on a machine that has time for it.
SECONDS_TO_END = 30.0
# Python itself takes a fifth of this to start. Ctrl-C before that meets no line of the project, and
# Python answers it with a traceback of its own.
CPU_SECONDS_TO_BEGIN = 0.15
_MARK = "TEST_ATTACK"
_LOGGED = re.compile(r"[IW]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\] ")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit code, of a signal as Popen has it.
        out, errors: what it printed.
        seconds: how long it took to end, from the last signal on.
        left: the command lines of processes that it left behind.
    """

    code: int
    out: str
    errors: str
    seconds: float
    left: list[str]

    def check(self) -> None:
        """Raises AssertionError for a traceback, several lines of errors, or what is left."""
        text = f"exit code {self.code}\n{self.out}\n{self.errors}"
        assert "Traceback" not in text, text
        assert not self.left, f"left behind: {self.left}\n{text}"
        # Warnings are logged, such as that the input is slower than the network.
        lines = [line for line in self.errors.splitlines() if line and not _LOGGED.match(line)]
        assert len(lines) <= 1, text
        # An error that is not told, or a line without one.
        assert (self.code == 1) == any(line.startswith("error: ") for line in lines), text


def attack(
    module: str,
    arguments: Sequence[str],
    *,
    signals: Sequence[tuple[float, int]] = (),
    env: Mapping[str, str] | None = None,
    limit: str = "",
    ready: Callable[[], bool] | None = None,
    seconds: float = 600.0,
    fresh: bool = True,
) -> Outcome:
    """Runs `python -m module` to its end.

    Args:
        module: of the command.
        arguments: its flags.
        signals: (seconds to wait, signal) one after the other, each for the first process alone,
            from when Python has started on.
        env: added to the environment.
        limit: a shell's command before it, such as `ulimit -n 64`.
        ready: waited for before the first signal.
        seconds: how long it may take where there is no signal.
        fresh: whether it starts from nothing, or is forked from what has imported.
    """
    mark = uuid.uuid4().hex
    python = sys.executable if fresh else fork_client.python()
    command = [python, "-m", module, *map(str, arguments)]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "bash", *command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | dict(env or {}) | {_MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_take_signals,
        )
        try:
            end = time.monotonic() + seconds
            while ready and not ready() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            while signals and _cpu_seconds(process.pid) < CPU_SECONDS_TO_BEGIN:
                time.sleep(0.01)
            for delay, number in signals:
                _wait(process, delay)
                process.send_signal(number)
            started = time.monotonic()
            to_end = SECONDS_TO_END * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
            process.wait(timeout=to_end if signals else seconds)
            took = time.monotonic() - started
            end = time.monotonic() + to_end
            while (left := _marked(mark)) and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            for pid in _marked(mark):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
        out.seek(0)
        errors.seek(0)
        return Outcome(
            process.returncode, out.read(), errors.read(), took, [_command_line(p) for p in left]
        )


def _take_signals() -> None:
    """Takes them as in a terminal.

    Shells ignore SIGINT for what they start in the background, nohup SIGHUP, and so would a command
    of a test that was started so.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _cpu_seconds(pid: int) -> float:
    """How much processor time a process has had; infinite if it has ended."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    if stat[0] == "Z":
        return math.inf
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def _marked(mark: str) -> list[int]:
    """The processes that have a mark in their environment, wherever they hang."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{_MARK}={mark}".encode() in environ.split(b"\0") and state != "Z":
            found.append(int(folder.name))
    return found


def _command_line(pid: int) -> str:
    try:
        line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "ended"
    return line.replace(b"\0", b" ").decode(errors="replace")
