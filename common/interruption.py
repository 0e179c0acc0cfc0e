"""Ctrl-C, SIGTERM and SIGHUP at any moment of a command: no traceback, no process left behind.

While its modules are imported there is nothing to put away, so the process ends at once. From then
on the first signal unwinds it, as KeyboardInterrupt; a second one, or an unwinding that takes too
long, ends it and every process below it. It imports nothing that takes time.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import sys
import threading
import time
import types
from typing import NoReturn

LINE = "interrupted; the same command goes on"
# For what is cleared away on the way out.
SECONDS_TO_END = 8.0
# A process in an uninterruptible call of the kernel does not die while that lasts.
SECONDS_TO_KILL = 2.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h

# Where the last line goes, while what others print to stderr may be kept back.
_stderr = 2
# Held by the thread that ends the process.
_ending = threading.RLock()


class Interruption:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def listen(self) -> None:
        """Takes the signals; those that the parent has ignored, as nohup does, stay ignored."""
        global _stderr
        with contextlib.suppress(OSError):  # it is closed
            _stderr = os.dup(2)
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)
        if sys.platform == "linux":
            # So that a process whose parent dies is still below this one, and is found.
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def end(self) -> NoReturn:
        """Ends this process, and all below it, as the signal that has come does."""
        assert self.signal is not None
        end_now(self.signal)

    def _take(self, number: int, _: types.FrameType | None) -> None:
        if self.signal is None:  # else the watching thread ends all
            self.signal = number
            raise KeyboardInterrupt

    def _watch(self, reading: int) -> None:
        """Sees the signals in a thread: the main one may be in a call that takes no notice."""
        has_come: int | None = None
        while numbers := os.read(reading, 100):
            for number in numbers:
                if signal.getsignal(number) != self._take:  # a command has its own way with it
                    continue
                if has_come is not None:
                    end_now(has_come)
                has_come = number
                threading.Thread(target=self._end_later, args=(number,), daemon=True).start()

    def _end_later(self, number: int) -> None:
        time.sleep(SECONDS_TO_END)
        end_now(number)


def end_at_once_while_importing() -> None:
    """What a package does first: where it is imported for a command, Ctrl-C ends that with a line.

    `python -m` has "-m" for the command's name until it has found the module to run.
    """
    if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, _: end_now(number))


def end_now(number: int) -> NoReturn:
    """Ends this process, and all that it has started, for a signal.

    Ctrl-C is answered with a line and exit code 130; of any other signal the process dies.
    """
    if number == signal.SIGINT:
        end_with_line(f"\n{LINE}", exit_code=128 + number)
    _ending.acquire()
    kill_descendants()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(128 + number)


def end_with_line(line: str, *, exit_code: int) -> NoReturn:
    """Says a line on stderr and ends this process, from whatever thread, and all below it."""
    _ending.acquire()
    kill_descendants()
    with contextlib.suppress(OSError):
        os.write(_stderr, f"{line}\n".encode(errors="backslashreplace"))
    os._exit(exit_code)


def kill_descendants() -> None:
    """Kills every process below this one, where Linux tells which they are.

    Looks again until none is left: one that was starting another while it was killed leaves a
    child that the first look did not find, and that is this process's own from then on.
    """
    own = os.getpid()
    give_up_at = time.monotonic() + SECONDS_TO_KILL
    while (found := _descendants(own)) and time.monotonic() < give_up_at:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _descendants(pid: int) -> list[int]:
    """Process IDs below `pid`, without those that are dead and only wait to be reaped."""
    children: dict[int, list[int]] = {}
    dead = set()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            children.setdefault(int(parent), []).append(int(folder.name))
            if state in "ZX":
                dead.add(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return [pid for pid in found if pid not in dead]
