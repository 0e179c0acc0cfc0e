"""What a process started, by Linux's /proc."""

import os
import pathlib


def descendants(pid: int) -> set[int]:
    """The processes below one that live, whichever of its threads started them."""
    children: dict[int, set[int]] = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:  # it has just ended
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            children.setdefault(int(parent), set()).add(int(folder.name))
    found, new = set(), {pid}
    while new := set().union(*(children.get(parent, ()) for parent in new)) - found:
        found |= new
    return found


def resident(pid: int) -> int:
    """The bytes of a process in memory; 0 if it has ended."""
    try:
        statm = pathlib.Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return 0
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
