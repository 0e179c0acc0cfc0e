"""Files of the job, on local disks and in gs:// buckets alike.

Buckets are Beam's FileSystems' business. Local files are not: it reads every path as a glob, so a
folder named `music [2020]` would not be found and one named `*` would delete its neighbours.
"""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

# What is being written is called so, and what has its own name is whole.
TEMPORARY_PREFIX = ".writing-"


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, name: str) -> str:
    """The path of a name below a folder; a name that is a whole path is that path."""
    if is_remote(name) or os.path.isabs(name):
        return name
    return f"{folder}/{name}"


def open_to_read(path: str):
    """A binary file to read.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
    """
    if not is_remote(path):
        return open(path, "rb")
    try:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except Exception as error:  # each store has its own for a file that is not there
        if not FileSystems.exists(path):
            raise FileNotFoundError(path) from error
        raise


def read_bytes(path: str) -> bytes:
    """The whole of a file; raises as `open_to_read` does."""
    with open_to_read(path) as file:
        return file.read()


def sha256(path: str) -> str:
    """SHA-256 of a file; raises as `open_to_read` does."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def exists(path: str) -> bool:
    return FileSystems.exists(path) if is_remote(path) else os.path.exists(path)


def names_in(folder: str) -> list[str]:
    """The names of the files that lie in a folder, not below; none if there is no folder."""
    if is_remote(folder):
        (result,) = FileSystems.match([f"{folder}/*"])
        return sorted(entry.path.rpartition("/")[2] for entry in result.metadata_list)
    if not os.path.isdir(folder):
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())


def has_files(folder: str) -> bool:
    """Whether any file lies in a folder or below it."""
    if is_remote(folder):
        (result,) = FileSystems.match([f"{folder}/**"], limits=[1])
        return bool(result.metadata_list)
    return any(files for _, _, files in os.walk(folder))


def delete(folder: str, names: list[str]) -> None:
    """Deletes files of a folder; one that is gone already is none to delete."""
    if not is_remote(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(join(folder, name))
    elif names:
        FileSystems.delete([join(folder, name) for name in names])


def make_folder(path: str) -> None:
    """Makes a local folder; buckets have none to make."""
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)


def check_writable(folder: str) -> None:
    """Raises OSError unless files can be made in a folder, which need not be there yet.

    Nothing of the probe stays.
    """
    if is_remote(folder):
        name = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        with FileSystems.create(join(folder, name)) as file:
            file.write(b"")
        delete(folder, [name])
        return
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    with tempfile.TemporaryFile(dir=there):
        pass


@contextlib.contextmanager
def atomic_file(folder: str, name: str) -> Iterator:
    """A binary file that appears under its name only when its block ends without an error.

    Two that write the same name at once, as retried Beam bundles may, don't meet: each writes a
    temporary file of its own, and the last rename wins.
    """
    temporary = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}"
    path = join(folder, temporary)
    if is_remote(folder):
        file = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
    else:
        file = open(path, "wb")  # noqa: SIM115 (closed below, before it is renamed)
    try:
        with file:
            yield file
    except BaseException:
        delete(folder, [temporary])
        raise
    if is_remote(folder):
        FileSystems.rename([path], [join(folder, name)])
    else:
        os.replace(path, join(folder, name))


def write_atomically(folder: str, name: str, data: bytes) -> None:
    with atomic_file(folder, name) as file:
        file.write(data)
