"""Ends a process when its parent dies, by whatever it does: Linux sees to that.

As a script it becomes another program, for a parent that has no say in how that is started:

python common/parent_death.py PARENT PROGRAM ARGUMENT…

Elsewhere than on Linux nothing is done. It imports nothing that takes time.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Asks Linux to kill this process when the thread that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def command(program: Sequence[str]) -> list[str]:
    """Returns the command of a program that ends with this process, if its main thread starts it.

    Args:
        program: the command of the program alone.
    """
    if _LIBC is None:
        return list(program)
    # Isolated, and without site-packages, it takes a hundredth of a second.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *program]


def main(argv: Sequence[str]) -> None:
    parent, *program = argv[1:]
    end_with_parent()
    if os.getppid() != int(parent):  # it has died before
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv)
