"""Asks the servers of `fork_server` for commands; as a script it is a Python that does so.

That Python stands where `sys.executable` does, so that a test can start a command with Popen, and a
command its workers, without the seconds of their imports. It has the pid, the signals, the streams
and the exit code of the command, which is forked for it and dies with it. What no server has
imported, or what the environment would have imported otherwise, it leaves to the real Python.

It imports little, since it is started often.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

# By package, or by module.
SERVER_OF = {
    "apache_beam.runners.worker.sdk_worker_main": "beam",
    "beam_pipelines": "beam",
    "examples.demo": "tensorflow",
    "trainer": "tensorflow",
    "serving": "tensorflow",
    "tests.support.steps_of_a_worker": "tensorflow",
    "tests.support.training_on_two_devices": "tensorflow",
    "tests.support.xdist_worker": "tests",
    "tests.trainer.test_augment": "tensorflow",
}
# These import little, and must; each is started by a command as a process of its own.
_LIGHT = ("beam_pipelines.decoder_process", "serving.model.song_process")
# By which execnet starts a worker of pytest-xdist.
_WORKER = ("-u", "-c", "import sys;exec(eval(sys.stdin.readline()))")
# Names the folder of the servers' sockets to the processes that pytest starts.
FOLDER = "FORK_SERVERS"
# Names a folder that has a copy of the code, where commands are forked too.
COPY = "FORK_COPY"
# What a person or a test sends to a command.
SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def serves(module: str) -> bool:
    """Returns whether there is a server for a command."""
    return FOLDER in os.environ and _server_of(module) is not None


def _server_of(module: str) -> str | None:
    if module in _LIGHT:
        return None
    return SERVER_OF.get(module, SERVER_OF.get(module.partition(".")[0]))


def python() -> str:
    """Returns the path of the Python that asks the servers."""
    return os.path.join(os.environ[FOLDER], "python")


class Forked:
    """A command that a server has forked for this process; killed when this process ends.

    Args:
        module, arguments: of the command.
        streams: its stdin, stdout and stderr.
        environment: its own.
        folder: in which it runs.
        ignored: the signals that it ignores from its start.
        executable: its `sys.executable`, by which it starts others; `python()` unless given.

    Attributes:
        pid: None where Python itself is to run it, since it would import something else.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        streams: Sequence[int],
        environment: Mapping[str, str],
        folder: str = ROOT,
        ignored: Sequence[int] = (),
        executable: str | None = None,
    ):
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.path.join(os.environ[FOLDER], str(_server_of(module))))
        socket.send_fds(self._connection, [b"\n"], list(streams))
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": folder,
            "ignored": list(ignored),
            "executable": executable or python(),
        }
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile()
        self.pid: int | None = int(self._answers.readline()) or None

    def wait(self, timeout: float | None = None) -> int:
        """Returns its exit code, of a signal as Popen has it; TimeoutError if it takes longer."""
        self._connection.settimeout(timeout)
        return int(self._answers.readline())

    def close(self) -> None:
        """Kills it if it still runs."""
        self._answers.close()
        self._connection.close()


def main(arguments: Sequence[str]) -> None:
    module, flags, executable = "", arguments[2:], None
    if len(arguments) > 1 and arguments[0] == "-m":
        module = arguments[1]
    elif tuple(arguments) == _WORKER:
        # Its tests start Python itself, where they do not ask for a command that is forked.
        module, flags, executable = "tests.support.xdist_worker", [], sys.executable
    if serves(module) and os.getcwd() in (ROOT, os.environ.get(COPY)):
        ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        forked = Forked(
            module,
            flags,
            streams=(0, 1, 2),
            environment=os.environ,
            folder=os.getcwd(),
            ignored=ignored,
            executable=executable,
        )
        if forked.pid is not None:
            pid = forked.pid
            for number in set(SIGNALS) - set(ignored):
                signal.signal(number, lambda number, _: os.kill(pid, number))
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            end_as(forked.wait())
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.execv(sys.executable, [sys.executable, *arguments])


def end_as(code: int) -> None:
    """Ends this process with an exit code or by a signal, as another one has ended."""
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
