"""A child process whose lines are printed with its name, and how it is asked to stop."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from common import interruption
from common.parent_death import end_with_parent

_TAIL_LINES = 15
_SECONDS_TO_DIE = 10


class Child:
    """Starts a process and prints its stdout and stderr line by line.

    Args:
        argv: of the process.
        name: shown in brackets before each of its lines.
        env: what differs from this process's environment.
    """

    def __init__(self, argv: Sequence[str], *, name: str, env: Mapping[str, str]):
        self.name = name
        self._tail = collections.deque[str](maxlen=_TAIL_LINES)
        self._process = subprocess.Popen(
            argv,
            env=os.environ | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A Ctrl-C of the terminal comes to this process alone, and is passed on once.
            start_new_session=True,
            # Else it would go on writing into a folder that the same command, given again, writes
            # into too.
            preexec_fn=end_with_parent,
        )
        self._printer = threading.Thread(target=self._forward)
        self._printer.start()

    def code(self) -> int | None:
        """Returns its exit code, None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Sends SIGTERM, on which a training run writes a checkpoint and ends."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Kills it if it still runs; returns when its last line is printed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(timeout=_SECONDS_TO_DIE)
        self._printer.join()

    def tail(self) -> str:
        """Returns the last lines that it printed."""
        return "\n".join(self._tail)

    def _forward(self) -> None:
        assert self._process.stdout is not None  # a pipe, as it was asked for
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            self._tail.append(text)
            print(f"[{self.name}] {text}", flush=True)


def share_of_cores(size: int) -> dict[str, str]:
    """Returns the environment of one of `size` processes that compute on this machine's cores.

    TensorFlow starts a thread for each core in each of them, and more threads than cores wait for
    one another. A number that the environment has already holds.
    """
    name = "TF_NUM_INTRAOP_THREADS"
    if size < 2 or name in os.environ:
        return {}
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return {name: str(max(1, num_cores // size))}


def on_signals_to_stop(stop: Callable[[], None]) -> None:
    """Calls `stop` on SIGTERM and Ctrl-C; a second Ctrl-C ends the command and all its children."""
    asked = False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            interruption.end_now(number)
        asked = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
