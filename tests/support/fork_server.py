"""Commands without the seconds of their imports: a process that has imported forks for each.

Importing TensorFlow costs some 6 CPU-seconds, Beam 2. `python -m tests.support.fork_server`
waits at a socket; with the first command it imports what the commands of some packages do, and for
each command it forks a process that goes on as `python -m` does: as `__main__`, with arguments,
environment, streams, exit code and clearing away of its own. Importing starts no threads that a
command needs, and no runtime of TensorFlow; what libraries draw at random is drawn anew.

All commands of a server have one seed for Python's `hash`: where two runs must write the same
bytes, one of them is a process of its own (`run_module(fresh=True)`).
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

from tests.support.paths import ROOT

# What commands import: the heavy of it, and no module that defines flags.
_IMPORTED = {
    "beam": ["beam_pipelines.pipeline", "beam_pipelines.engines", "beam_pipelines.card.summary"],
    "tensorflow": ["trainer.run.session", "serving.model.verification"],
}
_SERVER_OF = {"beam_pipelines": "beam", "trainer": "tensorflow", "serving": "tensorflow"}
# Names the folder of the sockets to the processes that pytest starts.
_FOLDER = "FORK_SERVERS"


# ------------------------------------------------------------------ where commands are asked for


@contextlib.contextmanager
def started() -> Iterator[None]:
    """Has the servers wait for the commands of this process, and of those that it starts."""
    folder = tempfile.mkdtemp(prefix="fork-")
    servers = []
    try:
        for name in _IMPORTED:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.join(folder, name))
                listening.listen(100)
                servers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", __name__, name, str(listening.fileno())],
                        cwd=ROOT,
                        stdin=subprocess.PIPE,  # when this process ends, so do they
                        stdout=subprocess.DEVNULL,
                        pass_fds=[listening.fileno()],
                        start_new_session=True,  # Ctrl-C is for this process
                    )
                )
        os.environ[_FOLDER] = folder
        yield
    finally:
        os.environ.pop(_FOLDER, None)
        for server in servers:
            server.stdin.close()
            server.wait()
        shutil.rmtree(folder)


def has(module: str) -> bool:
    """Returns whether there is a server for a command."""
    return _FOLDER in os.environ and module.partition(".")[0] in _SERVER_OF


def run(module: str, *arguments: str, timeout: float) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m` with the arguments, as subprocess.run does with its output captured."""
    streams = [os.pipe(), os.pipe()]
    texts = ["", ""]

    def read(number: int) -> None:
        with open(streams[number][0]) as file:
            texts[number] = file.read()

    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in (0, 1)]
    for reader in readers:
        reader.start()
    writing = [stream[1] for stream in streams]
    request = {"module": module, "arguments": arguments, "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(os.environ[_FOLDER], _SERVER_OF[module.partition(".")[0]]))
        try:
            socket.send_fds(connection, [b"\n"], writing)
            connection.sendall(json.dumps(request).encode())
            connection.shutdown(socket.SHUT_WR)
        finally:
            for number in writing:
                os.close(number)
        with connection.makefile() as answers:
            pid = int(answers.readline())
            connection.settimeout(timeout)
            try:
                code = int(answers.readline())
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired([module, *arguments], timeout) from None
                raise
    for reader in readers:
        reader.join(timeout)
    return subprocess.CompletedProcess([module, *arguments], code, *texts)


# --------------------------------------------------------------------------------- the processes


def main(name: str, listening: socket.socket) -> list[str]:
    """Serves until stdin ends.

    Returns:
        in a process that was forked for a command, and there alone, its module and arguments.
    """
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        with connection:
            _, streams, *_ = socket.recv_fds(connection, 1, 2)
            with connection.makefile() as file:
                request = json.load(file)
            _import(name)
            if _fork() == 0:
                child = _fork()
                if child == 0:
                    _become(streams, request["environment"])
                    return [request["module"], *request["arguments"]]
                for stream in streams:
                    os.close(stream)
                connection.sendall(f"{child}\n".encode())
                _, status = os.waitpid(child, 0)
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                os._exit(0)
        for stream in streams:
            os.close(stream)
        _reap(os.WNOHANG)
    _reap(0)
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


def _become(streams: list[int], environment: dict[str, str]) -> None:
    """Makes this process what a shell would have started."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    if "numpy" in sys.modules:  # Python's own does so by itself
        sys.modules["numpy"].random.seed()


if __name__ == "__main__":
    name, number = sys.argv[1:]
    with socket.socket(fileno=int(number)) as listening:
        command = main(name, listening)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
