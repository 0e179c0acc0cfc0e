"""Commands without the seconds of their imports: a process that has imported forks for each.

Importing TensorFlow costs some 6 CPU-seconds, Beam 2. `python -m tests.support.fork_server`
waits at a socket; with the first command it imports what the commands of some packages do, and for
each command it forks a process that goes on as `python -m` does: as `__main__`, with arguments,
environment, streams, exit code and clearing away of its own. Importing starts no threads that a
command needs, and no runtime of TensorFlow; what libraries draw at random is drawn anew.

The processes of pytest-xdist are forked as well, from a server that begins as a copy of another one
and imports what the files of the tests do. What is forked ends without Python's clearing away of
modules.

What such a command starts by `sys.executable`, it starts by `fork_client.python`, so its workers
are forked too. A process beside each command waits for its end; it kills it when who asked is gone.

All commands of a server have one seed for Python's `hash`: where two runs must write the same
bytes, one of them is a process of its own (`run_module(fresh=True)`).
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support import fork_client
from tests.support.paths import ROOT

# What commands import: the heavy of it, and no module that defines flags.
_IMPORTED = {
    "beam": ["beam_pipelines.pipeline", "beam_pipelines.engines", "beam_pipelines.card.summary"],
    "tensorflow": [
        "trainer.run.session",
        "serving.model.verification",
        "serving.web.application",
    ],
    # What the files of the tests import beside that; every process of the tests loads all of them.
    "tests": [
        "beam_pipelines.pipeline",
        "beam_pipelines.engines",
        "beam_pipelines.card.summary",
        "beam_pipelines.stream.kafka",
        "google.cloud.aiplatform_v1.types",
        "hypothesis.stateful",
        "kubernetes_validate",
        "markdown_it",
        "nbclient",
        "optuna",
        "pytest",
        "tensorboard.backend.event_processing.event_accumulator",
        "tensorflow_serving.apis.prediction_log_pb2",
        "uvicorn",
    ],
}
# The server whose process one begins with as a copy, instead of importing the same again.
_BEGINS_AS = {"tests": "tensorflow"}
# What Python and the linker read of the environment before the first import.
_READ_BEFORE = ("PYTHON", "LD_")
# Names a folder to a command and to those that it starts, in which each has a file while it lives.
_LIVING = "FORK_LIVING"
# Of what was killed, on a machine that others use too.
_SECONDS_TO_DIE = 60.0


# ------------------------------------------------------------------ where commands are asked for


@contextlib.contextmanager
def started() -> Iterator[None]:
    """Has the servers wait for the commands of this process, and of those that it starts."""
    folder = tempfile.mkdtemp(prefix="fork-")
    servers = []
    try:
        for first in _IMPORTED:
            if first in _BEGINS_AS:
                continue
            with contextlib.ExitStack() as ours:
                numbers = {}
                for name in (first, *(n for n, of in _BEGINS_AS.items() if of == first)):
                    listening = ours.enter_context(socket.socket(socket.AF_UNIX))
                    listening.bind(os.path.join(folder, name))
                    listening.listen(100)
                    numbers[name] = listening.fileno()
                servers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", __name__, json.dumps(numbers)],
                        cwd=ROOT,
                        stdin=subprocess.PIPE,  # when this process ends, so do they
                        stdout=subprocess.DEVNULL,
                        pass_fds=numbers.values(),
                        start_new_session=True,  # Ctrl-C is for this process
                    )
                )
        launcher = os.path.join(folder, "python")
        with open(launcher, "w") as file:
            command = shlex.join([sys.executable, "-I", "-S", fork_client.__file__])
            file.write(f'#!/bin/sh\nexec {command} "$@"\n')
        os.chmod(launcher, 0o700)
        os.environ[fork_client.FOLDER] = folder
        yield
    finally:
        os.environ.pop(fork_client.FOLDER, None)
        for server in servers:
            server.stdin.close()
            server.wait()
        shutil.rmtree(folder)


def run(
    module: str, *arguments: str, timeout: float, env: Mapping[str, str]
) -> "subprocess.CompletedProcess[str] | None":
    """Runs `python -m` with the arguments, as subprocess.run does with its output captured.

    Returns:
        None where the command has to be a process of its own, since its environment changes what is
        imported.
    """
    streams = [os.pipe(), os.pipe()]
    texts = ["", ""]

    def read(number: int) -> None:
        with open(streams[number][0]) as file:
            texts[number] = file.read()

    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in (0, 1)]
    for reader in readers:
        reader.start()
    writing = [stream[1] for stream in streams]
    try:
        with open(os.devnull) as nothing:
            forked = fork_client.Forked(
                module, arguments, streams=[nothing.fileno(), *writing], environment=env
            )
    finally:
        for number in writing:
            os.close(number)
    with contextlib.closing(forked):
        if forked.pid is None:
            return None
        try:
            code = forked.wait(timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired([module, *arguments], timeout) from None
    for reader in readers:
        reader.join(timeout)
    return subprocess.CompletedProcess([module, *arguments], code, *texts)


class Started(subprocess.Popen):
    """A command that runs beside the test, forked; started as Popen starts `python` (`-m` …)."""

    def __init__(self, arguments: Sequence[str], *, env: Mapping[str, str], **streams):
        self._living = tempfile.mkdtemp(dir=os.environ[fork_client.FOLDER])
        super().__init__(
            [fork_client.python(), *arguments],
            cwd=ROOT,
            env={**env, _LIVING: self._living},
            **streams,
        )

    def pids(self) -> list[int]:
        """Returns the pids of what was forked: the command's, then of those that it started."""
        notes = [(os.stat(entry).st_mtime_ns, int(entry.name)) for entry in self._notes()]
        return [pid for _, pid in sorted(notes)]

    def kill(self) -> None:
        """Kills it, and returns when it has gone, and with it what ends with it."""
        super().kill()
        end = time.monotonic() + _SECONDS_TO_DIE
        while left := self._notes():
            assert time.monotonic() < end, f"still there: {[note.name for note in left]}"
            time.sleep(0.005)

    def _notes(self) -> list[os.DirEntry]:
        return list(os.scandir(self._living))


# --------------------------------------------------------------------------------- the processes


def main(sockets: Mapping[str, socket.socket]) -> list[str]:
    """Serves until stdin ends.

    Args:
        sockets: that of its own name first, then those of servers that begin as its copies.

    Returns:
        in a process that was forked for a command, and there alone, its module and arguments.
    """
    before = _read_before(os.environ)
    (name, own), *others = sockets.items()
    waiting = dict(others)
    while sys.stdin not in (asked := select.select([sys.stdin, own, *waiting.values()], [], [])[0]):
        for other in [other for other in waiting if waiting[other] in asked]:
            _import(name)
            if _fork() == 0:
                own.close()
                return main({other: waiting[other]})
            waiting.pop(other).close()
        if own not in asked:
            continue
        connection, _ = own.accept()
        with connection:
            _, streams, *_ = socket.recv_fds(connection, 1, 3)
            with connection.makefile() as file:
                line = file.readline()
            if not line:  # who asks was killed meanwhile
                continue
            request = json.loads(line)
            if _read_before(request["environment"]) != before:
                connection.sendall(b"0\n")
            else:
                _import(name)
                if _fork() == 0:
                    child = _fork()
                    if child == 0:
                        os.chdir(request["folder"])
                        _become(streams, request)
                        return [request["module"], *request["arguments"]]
                    for stream in streams:
                        os.close(stream)
                    _wait(child, connection, request["environment"].get(_LIVING))
        for stream in streams:
            os.close(stream)
        _reap(os.WNOHANG)
    _reap(0)
    os._exit(0)


def _read_before(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_BEFORE)}


def _wait(child: int, connection: socket.socket, living: str | None) -> None:
    """Tells who asked for a process its pid and then its exit code, and ends this one."""
    note = os.path.join(living, str(child)) if living else None
    if note:
        with open(note, "w"):
            pass

    def kill_it_where_nobody_waits() -> None:
        with contextlib.suppress(ProcessLookupError):
            if not connection.recv(1):
                os.kill(child, signal.SIGKILL)

    threading.Thread(target=kill_it_where_nobody_waits, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    if note:
        os.unlink(note)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _import(name: str) -> None:
    """Imports what the commands do, without the notes that TensorFlow prints to stderr."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        for module in _IMPORTED[name]:
            importlib.import_module(module)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    # A collection would write to, and so copy, each page of what was imported.
    gc.collect()
    gc.freeze()


def _reap(flags: int) -> None:
    with contextlib.suppress(ChildProcessError):  # there are no more
        while os.waitpid(-1, flags)[0]:
            pass


def _fork() -> int:
    with warnings.catch_warnings():  # of threads: OpenBLAS has some, and sees to them
        warnings.simplefilter("ignore")
        return os.fork()


def _become(streams: list[int], request: Mapping[str, Any]) -> None:
    """Makes this process what a shell would have started."""
    os.setsid()
    for number in fork_client.SIGNALS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = request["executable"]
    if "numpy" in sys.modules:  # Python's own does so by itself
        sys.modules["numpy"].random.seed()


def _end(code: int) -> None:
    """Ends a command as Python does, but for the last step of that.

    Clearing away every module writes to, and so copies, each page of what was imported: 0.25
    CPU-seconds of the 0.3 that a refused flag takes.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it is None, or closed
            stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    numbers = json.loads(sys.argv[1])
    with contextlib.ExitStack() as listening:
        command = main(
            {
                name: listening.enter_context(socket.socket(fileno=number))
                for name, number in numbers.items()
            }
        )
    sys.argv = command
    code = 0
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    _end(code)
