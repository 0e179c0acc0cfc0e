"""One run at a time in a folder, local or in a bucket.

A local folder has a file `.lock` that its run has locked (flock): the system lets go of it however
the run ends, so one that is dead refuses nobody. A bucket knows no such thing: the run that made
the object `.lock` holds a lease on it, which it renews. Whoever comes later watches whether it is
still renewed, so that no two clocks need agree, and takes over a lease that is not.

A run that was taken for dead, and lives, notices that it has lost its folder and ends.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol

from common import files, interruption
from common.errors import UserFacingError

FILE_NAME = ".lock"

# What the flag --force_unlock of a command does.
FORCE_UNLOCK = "Take the folder from the run that is at work there, which then ends, if it lives."

# How often a lease is renewed, and how long one that is not renewed is watched.
RENEW_SECONDS = 15.0
EXPIRE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
# File systems that have no locks say one of these.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class LeaseObject(Protocol):
    """An object of which each writing has another version, as `common.files` has them."""

    def read(self) -> tuple[bytes, int] | None:
        """What is in it and its version, None if it is not there."""

    def replace(self, data: bytes, version: int) -> int | None:
        """Writes it anew, 0 where it is not there; None if it is not of that version any more."""

    def delete(self, version: int) -> None:
        """Deletes it if it is of that version still."""


class _BucketObject:
    def __init__(self, path: str):
        self._path = path

    def read(self) -> tuple[bytes, int] | None:
        return files.read_version(self._path)

    def replace(self, data: bytes, version: int) -> int | None:
        return files.replace_version(self._path, data, version)

    def delete(self, version: int) -> None:
        files.delete_version(self._path, version)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """Who is at work in a folder.

    Attributes:
        host, pid: of the process.
        since: when it took the lock, in the words of its machine's clock.
        process: tells it from one that gets the same pid later, or on another machine.
        run: a name that no other has.
    """

    host: str
    pid: int
    since: str
    process: str
    run: str

    @classmethod
    def this_process(cls) -> "Holder":
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z"),
            process=_process(os.getpid()),
            run=uuid.uuid4().hex,
        )

    @classmethod
    def from_json(cls, data: bytes) -> "Holder | None":
        """The holder of what `to_json` gave, None of anything else."""
        try:
            values = json.loads(data)
            known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            holder = cls(**known)
        except (ValueError, TypeError, KeyError):
            return None
        texts = (holder.host, holder.since, holder.process, holder.run)
        is_whole = all(isinstance(text, str) for text in texts) and isinstance(holder.pid, int)
        return holder if is_whole else None

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    def is_dead(self) -> bool:
        """Whether it is known to have ended: it ran on this machine, and does not any more."""
        system = _process(os.getpid()).rpartition("/")[0]
        return (
            bool(system)
            and self.process.startswith(f"{system}/")
            and (_process(self.pid) != self.process)
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host[:100]} since {self.since[:40]}"


def _process(pid: int) -> str:
    """`boot/namespace/start` of a process of this system, "" where Linux does not tell."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        start = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot}/{namespace}/{start}"


@contextlib.contextmanager
def hold(
    folder: str,
    *,
    lease: LeaseObject | None = None,
    force: bool = False,
    wait_seconds: float = 0.0,
    on_loss: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Lets no other run into a folder while the block runs.

    Args:
        folder: is made if it is local and not there.
        lease: what to hold a lease on; the object `FILE_NAME` of a bucket's folder unless given.
        force: takes it from whoever has it.
        wait_seconds: how long to wait for one that is at work.
        on_loss: called from a thread when the folder is lost, with what has happened; unless
            given, this process says so and ends.

    Raises:
        UserFacingError: another run is at work there, or has come before the end of the block, or
            the folder can't be written.
    """
    if lease is None and files.is_remote(folder):
        lease = _BucketObject(files.join(folder, FILE_NAME))
    lock = _Lease(folder, lease) if lease is not None else _FileLock(folder)
    end = time.monotonic() + wait_seconds

    def holder_there() -> str | None:
        try:
            return lock.take(force=force)
        except OSError as error:
            problem = " ".join(str(error.strerror or error).split())
            raise UserFacingError(f"{folder}: can't be written ({problem})") from None

    while (holder := holder_there()) is not None:
        if time.monotonic() >= end:
            raise UserFacingError(
                f"{folder}: another run is at work there, {holder}; wait for its end, or take "
                "another folder (--force_unlock takes this one from it)"
            )
        time.sleep(_LOOK_SECONDS)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(lock.look_seconds):
            loss = lock.loss()
            if loss is not None and not stop.is_set():
                (on_loss or _end)(f"{folder}: {loss}")
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        stop.set()
        watcher.join()
        loss = lock.loss()
        if loss is not None:
            raise UserFacingError(f"{folder}: {loss}")
    finally:
        stop.set()
        watcher.join()
        lock.let_go()


def _end(loss: str) -> NoReturn:
    interruption.end_with_line(f"error: {loss}", exit_code=1)


_TAKEN = "another run has taken it over; this one ends"
_GONE = "the folder was removed or replaced while this ran; the same command begins anew"


class _FileLock:
    """A lock on a file of a local folder, for as long as this process lives."""

    def __init__(self, folder: str):
        self._folder = folder
        self._path = os.path.join(folder, FILE_NAME)
        self._descriptor: int | None = None
        self._made_folder = False

    @property
    def look_seconds(self) -> float:
        return min(2.0, RENEW_SECONDS)

    def take(self, *, force: bool) -> str | None:
        """Takes the lock; None, or who has it."""
        if not os.path.isdir(self._folder):
            os.makedirs(self._folder, exist_ok=True)
            self._made_folder = True
        if force:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = Holder.from_json(os.read(descriptor, 10_000))
                os.close(descriptor)
                return str(holder or "which has begun just now")
            except OSError as error:
                if error.errno in _NO_LOCKS:  # nothing of this file system can be locked
                    self._keep(descriptor)
                    return None
                os.close(descriptor)
                raise
            if _is_at(descriptor, self._path):
                self._keep(descriptor)
                return None
            os.close(descriptor)  # the one before has just deleted it

    def _keep(self, descriptor: int) -> None:
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # on a full disk a lock without a name is one too
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, Holder.this_process().to_json(), 0)

    def loss(self) -> str | None:
        assert self._descriptor is not None
        if _is_at(self._descriptor, self._path):
            return None
        return _TAKEN if os.path.exists(self._path) else _GONE

    def let_go(self) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            if _is_at(self._descriptor, self._path):
                os.remove(self._path)
        os.close(self._descriptor)
        if self._made_folder:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(self._folder)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether a path names an open file still."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


class _Lease:
    """A lease on an object of a bucket, renewed by whoever holds it."""

    def __init__(self, folder: str, lease_object: LeaseObject):
        self._folder = folder
        self._object = lease_object
        self._holder = Holder.this_process()
        self._version = 0  # of none
        self._count = 0

    @property
    def look_seconds(self) -> float:
        return RENEW_SECONDS

    def take(self, *, force: bool) -> str | None:
        """Takes the lease; None, or who has it."""
        while not self._version:
            found = self._object.read()
            if found is None:
                self._version = self._object.replace(self._data(), 0) or 0
                continue
            holder = Holder.from_json(found[0])
            if not force and not (holder and holder.is_dead()) and self._is_renewed(found[1]):
                return str(holder or "which this version does not know")
            # None if somebody else was faster, at whom to look anew.
            self._version = self._object.replace(self._data(), found[1]) or 0
        return None

    def _data(self) -> bytes:
        """Another text each time, so that each can be told from the one before."""
        self._count += 1
        values = dataclasses.asdict(self._holder) | {"renewed": self._count}
        return json.dumps(values).encode()

    def _is_renewed(self, version: int) -> bool:
        """Watches a lease: whether somebody renews it, takes it or gives it back."""
        print(
            f"{self._folder}: another run was at work there; looking for up to "
            f"{EXPIRE_SECONDS:g} s whether it still is",
            file=sys.stderr,
            flush=True,
        )
        end = time.monotonic() + EXPIRE_SECONDS
        while time.monotonic() < end:
            time.sleep(min(_LOOK_SECONDS, EXPIRE_SECONDS / 10))
            found = self._object.read()
            if found is None:
                return False
            if found[1] != version:
                return True
        return False

    def loss(self) -> str | None:
        """Renews the lease; what has become of it if it is lost."""
        try:
            version = self._object.replace(self._data(), self._version)
        except OSError:  # the bucket does not answer; nobody can take it over meanwhile either
            return None
        if version is None:
            return _TAKEN
        self._version = version
        return None

    def let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._object.delete(self._version)
