"""The dataset job in processes that are forked where Beam is imported already: each costs a second.

A process of its own all the same, which may be killed at any moment.
"""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import time
from typing import NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["beam_pipelines.build_dataset", __name__])


class Ended(NamedTuple):
    """How a job ended: its exit code, −9 where it was killed, and what it printed."""

    code: int
    out: str
    errors: str


def run(arguments: list[str], folder: pathlib.Path, *, kill_after: float | None = None) -> Ended:
    """Runs the job to its end, or kills it and all that it started after so many seconds.

    Args:
        arguments: its flags.
        folder: where what it prints goes.
        kill_after: counted from its start.
    """
    out, errors = folder / "stdout", folder / "stderr"
    for path in (out, errors):
        path.unlink(missing_ok=True)
    process = _CONTEXT.Process(target=_job, args=(arguments, str(out), str(errors)))
    process.start()
    if kill_after is not None:
        while process.exitcode is None and not out.exists():  # then it has a group of its own
            time.sleep(0.01)
        process.join(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return Ended(process.exitcode, out.read_text(), errors.read_text())


def _job(arguments: list[str], out: str, errors: str) -> None:
    os.setsid()
    for number, path in ((2, errors), (1, out)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)
    sys.argv = ["build_dataset", *arguments]
    from absl import flags

    from beam_pipelines import build_dataset
    from common import command

    command.run(build_dataset.main, flags_parser=lambda a: flags.FLAGS(a, known_only=True))
