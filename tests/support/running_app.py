"""The web app as a process of its own, and a client that speaks plain HTTP to it."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support import fork_client, fork_server, processes
from tests.support.paths import ROOT


class Answer(NamedTuple):
    """Of an HTTP server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningApp:
    """A server that was started; `lines` is what it printed so far."""

    def __init__(self, process: subprocess.Popen, url: str, lines: list[str]):
        self.process, self.url, self.lines = process, url, lines
        self.port = urllib.parse.urlsplit(url).port

    @property
    def pid(self) -> int:
        forked = isinstance(self.process, fork_server.Started)
        return self.process.pids()[0] if forked else self.process.pid

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def predict(self, data: bytes, *, query: str = "", kind: str = "audio/mpeg") -> Answer:
        return self.ask("POST", f"/v1/predict{query}", data, content_type=kind)

    def metric(self, name: str) -> float:
        """A value of /metrics, by its name with labels."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def memory(self) -> int:
        """Resident bytes of the server and of all that it started."""
        pids = [self.pid, *processes.descendants(self.pid)]
        return sum(map(processes.resident, pids))


def running_app(export_dir, *arguments: str, fresh: bool = False):
    """Starts `python -m serving.app` on a free port; see `until_ended`.

    It is forked as `run_module` does, unless it is to be `fresh`: to have the memory that it needs.
    """
    module = ["-m", "serving.app", f"--export_dir={export_dir}", "--port=0", *arguments]
    if fresh or not fork_client.serves("serving.app"):
        return started([sys.executable, *module], cwd=ROOT)
    process = fork_server.Started(
        module, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return until_ended(process)


def started(command: list[str], *, cwd):
    """Starts the app as a person would; see `until_ended`."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    return until_ended(process)


@contextlib.contextmanager
def until_ended(process: subprocess.Popen) -> Iterator[RunningApp]:
    """Waits until the app serves, and in the end stops it as the system does."""
    lines = []
    reading = threading.Thread(
        target=lambda: lines.extend(line.rstrip() for line in process.stdout), daemon=True
    )
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if " at http" in line:
                break
        else:
            raise AssertionError("\n".join(lines))
        url = lines[-1].partition(" at ")[2].split()[0]
        reading.start()
        yield RunningApp(process, url, lines)
    finally:
        process.terminate()
        try:
            process.wait(40)
        finally:
            process.kill()
        if reading.ident is not None:
            reading.join(10)  # so that `lines` has all


def multipart(data: bytes, *, name: str = "file", filename: str = "song.mp3") -> tuple[bytes, str]:
    """A form with one file, and its content type."""
    boundary = "----------------------------boundary"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        "Content-Type: audio/mpeg\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
