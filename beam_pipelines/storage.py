"""Files of the job, on local disks and in gs:// buckets alike (Beam's FileSystems)."""

import hashlib
import uuid

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

# What is being written is called so, and what has its own name is whole.
TEMPORARY_PREFIX = ".tmp-"


def open_to_read(path: str):
    """A binary file to read.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except FileNotFoundError:
        raise
    except (OSError, BeamIOError) as error:
        if not FileSystems.exists(path):
            raise FileNotFoundError(path) from error
        raise


def create(path: str):
    """A binary file to write; it appears when it is closed."""
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read_bytes(path: str) -> bytes:
    """The whole of a file; FileNotFoundError where there is none."""
    with open_to_read(path) as file:
        return file.read()


def exists(path: str) -> bool:
    return FileSystems.exists(path)


def sha256(path: str) -> str:
    """SHA-256 of a file; FileNotFoundError where there is none."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def join(folder: str, *names: str) -> str:
    """A path below a folder, or the last of the names that is absolute."""
    if names and "://" in names[-1]:
        return names[-1]
    return FileSystems.join(folder, *names)


def matches(pattern: str, *, limit: int | None = None) -> list[str]:
    """The paths that match a glob, at most `limit` of them."""
    (result,) = FileSystems.match([pattern], limits=[limit])
    return [entry.path for entry in result.metadata_list]


def delete(paths: list[str]) -> None:
    if paths:
        FileSystems.delete(paths)


def make_folder(path: str) -> None:
    """A no-op where there are no folders to make, or it is there."""
    if not FileSystems.exists(path):
        FileSystems.mkdirs(path)


class AtomicFile:
    """A binary file that appears under its name only when its block ends without an error.

    Two that write the same name at once, as retried Beam bundles may, don't meet: each writes a
    temporary file of its own, and the last rename wins.
    """

    def __init__(self, folder: str, name: str):
        self._path = join(folder, name)
        self._temporary = join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}")

    def __enter__(self):
        self._file = create(self._temporary)
        return self._file

    def __exit__(self, exception_type, *_):
        self._file.close()
        if exception_type is None:
            FileSystems.rename([self._temporary], [self._path])
        else:
            FileSystems.delete([self._temporary])


def write_atomically(folder: str, name: str, data: bytes) -> None:
    with AtomicFile(folder, name) as file:
        file.write(data)
