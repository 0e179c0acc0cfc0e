"""The files of a music library, in a folder or in a zip, each a stream that is read once.

A zip is not unpacked: what its members hold passes through memory block by block, and zipfile
compares each with its checksum as it ends. A folder keeps its name, as the members of FMA's zips
have one, so that a folder and its zip hold the same names.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import google_crc32c

from common.errors import UserFacingError, require

# FMA's largest member is features.csv of 0.9 GiB, and its text shrinks to a fifth. Zeros shrink
# to a thousandth, and so does what is made to fill a disk.
MAX_MEMBER_BYTES = 4 << 30
MAX_RATIO = 200
# Below this a high ratio does no harm.
_HARMLESS_BYTES = 1 << 20

# The longest name that a bucket takes, as UTF-8.
_MAX_NAME_BYTES = 1024


class Readable(Protocol):
    """What a file of a library is read as."""

    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class LibraryFile:
    """A file of a library.

    Attributes:
        name: of the library's folder and what lies in it, as `fma_small/000/000002.mp3`.
        size: in bytes.
        open: a binary file of what it holds.
    """

    name: str
    size: int
    open: Callable[[], "Readable"]


@dataclasses.dataclass(frozen=True)
class Library:
    """What is to be handed on, sorted by name, and how many hidden files and links were not."""

    files: list[LibraryFile]
    left_out: int


@contextlib.contextmanager
def open_library(source: str) -> Iterator[Library]:
    """Opens a folder or a zip, which stays open inside the block, and lists its files.

    Raises:
        UserFacingError: there is neither, nothing is in it, or what is in it can't be trusted.
    """
    with contextlib.ExitStack() as stack:
        try:
            if os.path.isdir(source):
                found = _files_in_folder(pathlib.Path(source).resolve())
            else:
                found = _files_in_zip(stack.enter_context(zipfile.ZipFile(source)), source)
        except FileNotFoundError:
            raise UserFacingError(f"{source}: no such folder or zip") from None
        except zipfile.BadZipFile as error:
            raise UserFacingError(
                f"{source}: neither a folder nor a whole zip ({error}); is the download complete?"
            ) from None
        except OSError as error:
            path = error.filename or source
            raise UserFacingError(f"{path}: can't be read ({error.strerror or error})") from None
        yield _checked(source, *found)


def _checked(source: str, files: list[LibraryFile], left_out: int) -> Library:
    files = sorted(files, key=lambda file: file.name)
    require(bool(files), f"{source}: holds no files")
    for before, file in zip([None, *files], files, strict=False):
        problem = _problem_of_name(file.name)
        if before is not None and before.name == file.name:
            problem = "is there twice"
        require(problem is None, f"{source}: the name {file.name!r} {problem}")
    return Library(files, left_out)


def _problem_of_name(name: str) -> str | None:
    """Returns what keeps a name from being an object's below a folder, None if it can be one."""
    if name.startswith("/") or "\\" in name:
        return "is not relative to the library"
    if {"", ".", ".."} & set(name.split("/")):
        return "leads out of the library"
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
        return "has control characters or is not UTF-8"
    if len(name.encode()) > _MAX_NAME_BYTES:
        return f"is longer than {_MAX_NAME_BYTES:,} bytes"
    return None


def _is_hidden(name: str) -> bool:
    """Returns whether a part of a path is hidden, or macOS's notes in a zip."""
    return any(part == "__MACOSX" or part.startswith(".") for part in name.split("/"))


def _files_in_folder(folder: pathlib.Path) -> tuple[list[LibraryFile], int]:
    """Lists the files below a folder, and links to files; counts the others that lie there.

    Raises:
        OSError: a folder can't be read, which without a word would not be uploaded.
    """

    def refuse(error: OSError) -> None:
        raise error

    files, left_out = [], 0
    for parent, folders, names in os.walk(folder, onerror=refuse):
        left_out += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        for name in names:
            path = pathlib.Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if _is_hidden(relative) or not path.is_file():
                left_out += 1
                continue
            open_path = lambda path=path: path.open("rb")  # noqa: E731
            files.append(LibraryFile(f"{folder.name}/{relative}", path.stat().st_size, open_path))
    return files, left_out


def _files_in_zip(archive: zipfile.ZipFile, source: str) -> tuple[list[LibraryFile], int]:
    """Returns the members of a zip, and how many hidden ones and links it has."""
    files, left_out = [], 0
    lock = threading.Lock()
    for member in archive.infolist():
        name = member.orig_filename
        if member.is_dir():
            continue
        safe = _problem_of_name(name) is None
        if safe and (_is_hidden(name) or stat.S_ISLNK(member.external_attr >> 16)):
            left_out += 1
            continue
        problem = _problem_of_member(member)
        require(problem is None, f"{source}: the member {name!r} {problem}")
        open_member = functools.partial(_Member, archive, member, lock)
        files.append(LibraryFile(name, member.file_size, open_member))
    return files, left_out


def _problem_of_member(member: zipfile.ZipInfo) -> str | None:
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > MAX_MEMBER_BYTES:
        return f"claims {member.file_size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > _HARMLESS_BYTES and ratio > MAX_RATIO:
        return f"claims to be {ratio:,.0f} times its size in the zip, more than {MAX_RATIO}"
    return None


class _Member:
    """A member of a zip that others are read from at the same time, which zipfile does not say
    to be safe: one thread at a time is in the archive."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, lock: threading.Lock):
        self._lock = lock
        with lock:
            self._file = archive.open(member)

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            return self._file.read(size)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Stream:
    """A file that is opened when it is first read and closed at its end, so that many can wait.

    Attributes:
        num_bytes: how many were read.
        crc32c: of what was read, as buckets have it.
    """

    def __init__(self, file: LibraryFile, on_read: Callable[[int], None]):
        self._library_file = file
        self._on_read = on_read
        self._file: Readable | None = None
        self._crc: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        self.num_bytes = 0

    @property
    def crc32c(self) -> bytes:
        return bytes(self._crc.digest())

    def tell(self) -> int:
        return self.num_bytes

    def read(self, size: int = -1) -> bytes:
        if self._file is None:
            self._file = self._library_file.open()
        data = self._file.read(size)
        self._crc.update(data)
        self.num_bytes += len(data)
        self._on_read(len(data))
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
