"""Isolates the decoding of untrusted files in a process: one that crashes or hangs is one bad file.

Messages go over the process's stdin and stdout: a length of 8 bytes, then that many bytes. First
it says that it is ready. Then it takes a JSON header and the bytes of a file, and answers with a
JSON header and the parts that this announces.
"""

import contextlib
import fcntl
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any

from common.rejection import ClipError

# Keep the memory of one clip for the next: fetching it anew from the system for each large array
# takes a fifth of the time of a clip.
KEEPS_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


# Of the pipe to it. With Linux' 64 kB a song is handed over in a dozen turns of the two processes,
# which takes them three times the time of a processor. Answers are small.
_PIPE_BYTES = 1 << 19

# How long the process may take to load its libraries, on a machine that is very busy too.
START_SECONDS = 60.0


class Crashed(ClipError):
    """What the process was given ended it, or something else did, such as a lack of memory.

    `exit_code` is the process's, below 0 the signal that ended it.
    """

    def __init__(self, message: str, *, exit_code: int):
        super().__init__("undecodable", message)
        self.exit_code = exit_code

    @property
    def is_from_outside(self) -> bool:
        """Returns whether a signal came from outside: the system or a person."""
        return -self.exit_code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class NotStartedError(RuntimeError):
    """The process ended before it was ready, or was not ready in time."""


class ContainedProcess:
    """A process that answers one file at a time, started when it is needed.

    Args:
        command: starts it.
        timeout_seconds: how long a file may take.
        start_seconds: how long its start may take.
        quiet: drops what it writes to stderr, where decoders complain about damaged files.
    """

    def __init__(
        self,
        command: list[str],
        *,
        timeout_seconds: float,
        start_seconds: float = START_SECONDS,
        quiet: bool = False,
    ):
        self._command = command
        self._start_seconds = start_seconds
        self._stderr = subprocess.DEVNULL if quiet else None
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        # Callers may have several threads; the process takes one file at a time.
        self._lock = threading.Lock()

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts the process, so that it loads its libraries while the caller does other things."""
        environment = {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            # A process for each core is all the parallelism there is to have.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **KEEPS_MEMORY,
        }
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # Ctrl-C at a terminal is for whoever started this; a file that is being decoded then
            # is not a bad one.
            start_new_session=True,
        )
        _widen(self._process.stdin)
        self._is_ready, self._deadline = False, _Deadline(self._process)
        return self._process

    def ask(self, header: Any, data: bytes | bytearray) -> tuple[dict[str, Any], list[bytes]]:
        """Returns the header and the parts of the answer about a file.

        Args:
            header: JSON values.
            data: the bytes of the file.

        Raises:
            ClipError: the file can't be used; `undecodable` if it kills the process or takes too
                long.
            NotStartedError: the process can't start; it is tried again when it is next asked.
            RuntimeError: the process has a bug, whose traceback is the message.
        """
        with self._lock:
            process = self._make_ready()
            try:
                with self._deadline.in_seconds(self._timeout_seconds):
                    _send(process.stdin, json.dumps(header).encode(), data)
                    answer = json.loads(_receive(process.stdout))
                    parts = [_receive(process.stdout) for _ in range(answer["num_parts"])]
            except (EOFError, BrokenPipeError):
                code = self._end(process)
                if code == -signal.SIGXCPU:
                    problem = "decoding took too much time of a processor"
                elif self._deadline.has_passed:
                    problem = f"decoding took longer than {self._timeout_seconds:g} s"
                else:
                    message = f"{len(data):,} bytes: the decoder crashed"
                    raise Crashed(message, exit_code=code) from None
                message = f"{len(data):,} bytes: {problem}"
                raise ClipError("undecodable", message, code="too_slow_to_decode") from None
            except BaseException:  # interrupted: its answer would be taken for the next one's
                self._end(process)
                raise
        if "bug" in answer:
            raise RuntimeError(answer["bug"])
        if "reason" in answer:
            raise ClipError(answer["reason"], answer["message"], code=answer["code"])
        return answer, parts

    @property
    def is_running(self) -> bool:
        """Returns whether the process has started, and nothing has ended it since."""
        process = self._process
        return self._is_ready and process is not None and process.poll() is None

    def make_ready(self) -> None:
        """Returns when the process is running, which it starts where it is not.

        Raises:
            NotStartedError: it can't start.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end(self._process)
            self._make_ready()

    def _make_ready(self) -> "subprocess.Popen[bytes]":
        """Waits for its first message: loading its libraries is not the file's time."""
        if self._process is not None and self._deadline.has_passed:  # just as it had answered
            self._end(self._process)
        process = self._process or self.start()
        if self._is_ready:
            return process
        try:
            with self._deadline.in_seconds(self._start_seconds):
                _receive(process.stdout)
            self._is_ready = True
            return process
        except EOFError:
            problem = f"did not start (exit code {self._end(process)})"
            if self._deadline.has_passed:
                problem = f"did not start within {self._start_seconds:g} s"
            raise NotStartedError(f"the decoder process {problem}") from None
        except BaseException:
            self._end(process)
            raise

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        """Ends the process; its exit code, which is its own if it had ended already."""
        process.kill()
        code = process.wait()
        self._deadline.close()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(BrokenPipeError):  # what it has not read is still in stdin
                pipe.close()
        self._process, self._is_ready = None, False
        return code

    def __del__(self) -> None:
        # It ends when its stdin does, which Python keeps open for a process that still runs.
        if self._process is not None and self._process.stdin is not None:
            self._deadline.close()
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def close(self) -> None:
        """Ends the process, which stops when its stdin does; at once where it is starting."""
        process = self._process
        if process is not None and not self._is_ready:
            process.kill()
        with self._lock:
            if self._process is not None:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.wait()
                self._deadline.close()
                self._process = None


def _widen(pipe: IO[bytes] | None) -> None:
    """Has a pipe hold more, where the system can (Linux) and has not given out all it gives."""
    assert pipe is not None  # `start` asked for it
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class _Deadline:
    """Kills a process that takes longer for something than it may.

    Its thread lives as long as the process: one that is started for each file is waited for until
    it runs, which a busy machine takes milliseconds for.

    Attributes:
        has_passed: whether it has; a process that a busy machine looks at late has not been killed
            by somebody else.
    """

    def __init__(self, process: "subprocess.Popen[bytes]"):
        self.has_passed = False
        self._process = process
        self._end = self._wakes_at = math.inf
        self._is_over = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    @contextlib.contextmanager
    def in_seconds(self, seconds: float) -> Iterator[None]:
        """Kills the process unless the block ends before so many seconds have passed."""
        self._put_at(time.monotonic() + seconds)
        try:
            yield
        finally:
            self._put_at(math.inf)

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def _put_at(self, end: float) -> None:
        with self._changed:
            self._end = end
            if end < self._wakes_at:  # else it will see that by itself
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_over:
                left = self._end - time.monotonic()
                if left <= 0:
                    self.has_passed = True
                    self._process.kill()
                    return
                self._wakes_at = self._end
                self._changed.wait(min(left, threading.TIMEOUT_MAX))


def answer_requests(answer: Callable[[Any, bytes], tuple[dict[str, Any], list[bytes]]]) -> None:
    """Answers requests until stdin ends, each with `answer(header, data)`.

    A ClipError that it raises is the answer; any other error is a bug, told with its traceback.
    """
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    _send(answers, b"ready")
    while True:
        try:
            header = json.loads(_receive(requests))
            data = _receive(requests)
        except EOFError:
            return
        try:
            reply, parts = answer(header, data)
        except ClipError as error:
            reply = {"reason": error.reason, "message": str(error), "code": error.code}
            parts = []
        except Exception:
            reply, parts = {"bug": traceback.format_exc()}, []
        _send(answers, json.dumps(reply | {"num_parts": len(parts)}).encode(), *parts)


def allow_processor_seconds(seconds: float) -> None:
    """Has the system end this process when it has computed for so long from now on.

    Unlike a limit of time, it does not depend on what else the machine does.
    """
    used, (_, most) = time.process_time(), resource.getrlimit(resource.RLIMIT_CPU)
    allowed = math.ceil(used + seconds)
    if most != resource.RLIM_INFINITY:
        allowed = min(allowed, most)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, most))


def _end_with(parent: int) -> None:
    """Ends this process when its parent has, even if a file hangs it, so that stdin is not read."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _send(file: IO[bytes] | None, *parts: bytes | bytearray) -> None:
    assert file is not None  # it is a pipe that `start` asked for
    for part in parts:
        file.write(struct.pack("<Q", len(part)))
        file.write(part)
    file.flush()


def _receive(file: IO[bytes] | None) -> bytes:
    assert file is not None  # it is a pipe that `start` asked for
    header = file.read(8)
    if len(header) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", header)
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data
