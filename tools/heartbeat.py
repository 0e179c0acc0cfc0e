"""Runs a command and shows that it is alive: whoever waits sees something every few seconds.

Needs Python alone, since the environment is installed with it.
"""

from __future__ import annotations  # so that an older Python comes as far as being told

import fcntl
import os
import pty
import selectors
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence

SILENCE = 4.0  # seconds


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Runs a command, copies what it prints, and returns its exit code.

    When the command prints nothing for `SILENCE` seconds, the seconds since its start are shown:
    on a terminal in a line that the command's next output replaces, elsewhere in lines of their
    own. On a terminal the command believes itself on one too, so that it draws its progress.
    """
    terminal = sys.stdout.isatty()
    ours, its = pty.openpty() if terminal else os.pipe()
    if terminal:
        size = fcntl.ioctl(sys.stdout, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(its, termios.TIOCSWINSZ, size)
        settings = termios.tcgetattr(its)
        settings[1] &= ~termios.OPOST  # line ends are made by the terminal that shows them
        termios.tcsetattr(its, termios.TCSANOW, settings)
    started = time.monotonic()
    sys.stdout.flush()
    try:
        with subprocess.Popen(
            command, stdout=its, stderr=its, env=os.environ | dict(environment or {})
        ) as process:
            os.close(its)
            _copy(ours, started=started, terminal=terminal)
            return process.wait()
    finally:
        os.close(ours)


def _copy(source: int, *, started: float, terminal: bool) -> None:
    """Copies a file descriptor to the standard output until its end."""
    output = sys.stdout.buffer
    at_line_start, shown = True, False
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=SILENCE):
                if at_line_start:  # never into the middle of a line
                    text = f"  … {time.monotonic() - started:.0f} s"
                    output.write((f"\r{text}" if terminal else f"{text}\n").encode())
                    output.flush()
                    shown = terminal
                continue
            try:
                data = os.read(source, 65_536)
            except OSError:  # how a pseudo-terminal ends on Linux
                data = b""
            if shown:
                output.write(b"\r\x1b[K")
                shown = False
            if not data:
                output.flush()
                return
            output.write(data)
            output.flush()
            at_line_start = data.endswith((b"\n", b"\r"))
