"""The time and memory of a command and everything it starts, as Linux counts them in /proc."""

import pathlib
import subprocess
import tempfile
import time
from typing import NamedTuple

_SAMPLE_SECONDS = 0.2
# What tells the processes of a dataset job apart, in their command lines.
_ROLES = {"sdk_worker_main": "worker", "decoder_process": "decoder"}


class Usage(NamedTuple):
    """What a command used.

    Attributes:
        seconds: from its start to its end.
        tree_peak: the most bytes that it had at a moment in all its processes, where pages that
            several share, such as libraries, count once (the sum of their PSS).
        peaks: {`launcher`, `worker` or `decoder`: the most bytes that one such process had
            resident}, kept by the kernel, so no peak falls between two samples.
        stdout: what it printed.
    """

    seconds: float
    tree_peak: int
    peaks: dict[str, int]
    stdout: str


def run(command: list[str]) -> Usage:
    """Runs a command to its end; RuntimeError with what it printed if it fails."""
    started = time.perf_counter()
    tree_peak, peaks = 0, {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        while process.poll() is None:
            in_all = 0
            for pid in _tree(process.pid):
                role, share, peak = _memory(pid)
                in_all += share
                peaks[role] = max(peaks.get(role, 0), peak)
            tree_peak = max(tree_peak, in_all)
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        out.seek(0)
        err.seek(0)
        stdout = out.read()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{stdout}{err.read()}")
    return Usage(seconds, tree_peak, peaks, stdout)


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    children = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _memory(pid: int) -> tuple[str, int, int]:
    """(role, bytes now, most bytes resident so far) of a process, zeros if it has ended."""
    folder = pathlib.Path(f"/proc/{pid}")
    try:
        command = (folder / "cmdline").read_text()
        now = _kilobytes(folder / "smaps_rollup", "Pss")
        peak = _kilobytes(folder / "status", "VmHWM")
    except (FileNotFoundError, ProcessLookupError):
        return "launcher", 0, 0
    role = next((role for mark, role in _ROLES.items() if mark in command), "launcher")
    return role, now << 10, peak << 10


def _kilobytes(path: pathlib.Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0  # of a process that is ending
