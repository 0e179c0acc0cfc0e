"""The command's stdout and stderr, which may be closed, a pipe that nobody reads, or a full disk.

As Unix tools do, a command ends quietly, of SIGPIPE, where its reader has gone; says in one line
that stdout can't be written; and prints what a terminal's encoding can't show as an escape.
"""

import io
import os
import signal
import sys
import threading
from typing import Any, TextIO


class OutputClosed(BaseException):
    """Nobody reads stdout any more, or it can't be written; `error` says which."""

    def __init__(self, error: OSError):
        super().__init__(str(error))
        self.error = error


class _Stdout(io.FileIO):
    """File descriptor 1, whose failure ends the main thread and none of the others.

    After it, what is printed goes nowhere, so that the way out may print.
    """

    def __init__(self) -> None:
        super().__init__(1, "wb", closefd=False)
        self.error: OSError | None = None
        self._was_raised = False

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.error = error
        if threading.current_thread() is threading.main_thread() and not self._was_raised:
            self._was_raised = True
            raise OutputClosed(self.error)
        return len(data)


class Output:
    """Has stdout and stderr as a command needs them, from `take` on."""

    def __init__(self) -> None:
        self._raw: _Stdout | None = None

    def take(self) -> None:
        """Opens what is closed, or the next file would be taken for it; then watches stdout."""
        for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            try:
                os.fstat(number)
            except OSError:
                null = os.open(os.devnull, mode)
                if null != number:
                    os.dup2(null, number)
                    os.close(null)
        for name in ("stdin", "stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        if not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout.fileno() != 1:
            return  # a test's, or a notebook's
        before: TextIO = sys.stdout
        before.flush()
        self._raw = _Stdout()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(self._raw),
            encoding=before.encoding,
            errors="backslashreplace",
            line_buffering=bool(before.line_buffering),
        )

    def flush(self) -> None:
        """Writes what is printed; OutputClosed where that can't be."""
        sys.stdout.flush()
        if self._raw is not None and self._raw.error is not None and not self._raw._was_raised:
            self._raw._was_raised = True
            raise OutputClosed(self._raw.error)


def end_of_broken_pipe() -> None:
    """Ends this process as one that has no handler ends when nobody reads its pipe."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
