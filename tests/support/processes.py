"""What a process started, by Linux's /proc."""

import os
import pathlib
import time


def descendants(pid: int) -> set[int]:
    """The processes below one that live, whichever of its threads started them."""
    children: dict[int, set[int]] = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        state, parent = _state_and_parent(int(folder.name))
        if state != "ended":
            children.setdefault(parent, set()).add(int(folder.name))
    found, new = set(), {pid}
    while new := set().union(*(children.get(parent, ()) for parent in new)) - found:
        found |= new
    return found


def wait_until_ended(pids: set[int], *, seconds: float = 5.0) -> None:
    """Returns when none of them lives; AssertionError where one still does after a while."""
    end = time.monotonic() + seconds
    while left := {pid for pid in pids if _state_and_parent(pid)[0] != "ended"}:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.05)


def command_line(pid: int) -> str:
    """What a process was started with; empty if it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def resident(pid: int) -> int:
    """The bytes of a process in memory; 0 if it has ended."""
    try:
        statm = pathlib.Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return 0
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "ended", 0
    state, parent = stat.rpartition(")")[2].split()[:2]
    return ("ended" if state == "Z" else state), int(parent)
