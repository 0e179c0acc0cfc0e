"""Files of the job, on local disks and in gs:// buckets alike.

Buckets are asked through Beam's client, which retries what a busy bucket turns away, and not
through its FileSystems. Those read every path as a glob, so that a folder named `music [2020]`
would not be found and one named `*` would delete its neighbours; they look at each file twice
before they delete it, and connect anew for each request.
"""

import contextlib
import errno
import functools
import hashlib
import io
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator

from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp.gcsio import GcsIO, parse_gcs_path
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob

# What is being written is called so, and what has its own name is whole.
TEMPORARY_PREFIX = ".writing-"

# What a listing of a bucket is to tell of each of its pages.
_LISTED = "items(name,size),nextPageToken"


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, name: str) -> str:
    """The path of a name below a folder; a name that is a whole path is that path."""
    if is_remote(name) or os.path.isabs(name):
        return name
    return f"{folder}/{name}"


@functools.cache
def _gcs() -> GcsIO:
    """Beam's client, with the options of the job; one for the process keeps its connections."""
    return FileSystems.get_filesystem("gs://")._gcsIO()


def _blob(path: str) -> Blob:
    """The object of a gs:// path, ValueError for any other; no request is made."""
    bucket, name = parse_gcs_path(path)
    return _gcs().client.bucket(bucket).blob(name)


@contextlib.contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Raises a bucket's errors as those that a local file would have."""
    try:
        yield
    except NotFound as error:
        raise FileNotFoundError(errno.ENOENT, "no such file or bucket", path) from error
    except (Forbidden, ValueError) as error:
        code = errno.EACCES if isinstance(error, Forbidden) else errno.EINVAL
        raise OSError(code, " ".join(str(error).split()), path) from error
    except (GoogleAPIError, GoogleAuthError) as error:
        raise OSError(errno.EIO, " ".join(str(error).split()), path) from error


def may_pass(error: OSError) -> bool:
    """Whether a later try may go well: a bucket does not answer now."""
    return error.errno == errno.EIO


def open_to_read(path: str) -> io.BufferedReader:
    """A binary file to read.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
    """
    if not is_remote(path):
        return open(path, "rb")
    with _as_os_errors(path):
        return io.BufferedReader(_gcs().open(path, "rb"), buffer_size=1 << 20)


def read_bytes(path: str, *, at_most: int | None = None) -> bytes:
    """The whole of a file.

    Args:
        path: of the file.
        at_most: the most bytes that are read into memory.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read, is no regular file, or is larger.
    """
    if not is_remote(path):
        # Opening a named pipe would wait for somebody who writes into it.
        status = os.stat(path)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise OSError(errno.EINVAL, "no regular file", path)
        _check_size(path, status.st_size, at_most)
        with open(path, "rb") as file:
            return file.read()
    whole = _Bounded(path, at_most)
    with _as_os_errors(path):
        # One request, and its checksum is compared.
        _blob(path).download_to_file(whole, raw_download=True)
    return whole.getvalue()


class _Bounded(io.BytesIO):
    """What is read of an object, up to a number of bytes."""

    def __init__(self, path: str, at_most: int | None):
        super().__init__()
        self._path, self._at_most = path, at_most

    def write(self, data) -> int:
        _check_size(self._path, self.tell() + len(data), self._at_most)
        return super().write(data)


def _check_size(path: str, size: int, at_most: int | None) -> None:
    if at_most is not None and size > at_most:
        raise OSError(errno.EFBIG, f"larger than {at_most / 1e6:g} MB", path)


def sha256(path: str) -> str:
    """SHA-256 of a file; raises as `open_to_read` does."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def exists(path: str) -> bool:
    """Whether there is a file, or a local folder; buckets have none."""
    if not is_remote(path):
        return os.path.exists(path)
    with _as_os_errors(path):
        return _blob(path).exists()


def names_in(folder: str) -> list[str]:
    """The names of the files that lie in a folder, not below; none if there is no folder."""
    return sorted(sizes_in(folder))


def sizes_in(folder: str) -> dict[str, int]:
    """{name: bytes} of the files that lie in a folder, not below; none if there is no folder."""
    if not is_remote(folder):
        if not os.path.isdir(folder):
            return {}
        found = {}
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                if entry.is_file():
                    found[entry.name] = entry.stat().st_size
        return found
    with _as_os_errors(folder):
        bucket, prefix = parse_gcs_path(f"{folder}/", object_optional=True)
        found = _gcs().client.list_blobs(bucket, prefix=prefix, delimiter="/", fields=_LISTED)
        return {blob.name.removeprefix(prefix): blob.size for blob in found if blob.name != prefix}


def size_of(path: str) -> int | None:
    """The bytes of a file, None if there is none."""
    try:
        if not is_remote(path):
            return os.stat(path).st_size
        with _as_os_errors(path):
            blob = _blob(path)
            blob.reload()
            return blob.size
    except FileNotFoundError:
        return None


def has_files(folder: str) -> bool:
    """Whether any file lies in a folder or below it."""
    if not is_remote(folder):
        return any(files for _, _, files in os.walk(folder))
    try:
        with _as_os_errors(folder):
            bucket, prefix = parse_gcs_path(f"{folder}/", object_optional=True)
            found = _gcs().client.list_blobs(bucket, prefix=prefix, fields=_LISTED)
            # Some tools put empty objects that end in a slash where a folder would be.
            return any(not blob.name.endswith("/") for blob in found)
    except FileNotFoundError:  # there is no such bucket
        return False


def delete(folder: str, names: list[str]) -> None:
    """Deletes files of a folder; one that is gone already is none to delete.

    Raises:
        OSError: one can't be deleted.
    """
    if not is_remote(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(join(folder, name))
        return
    with _as_os_errors(folder):
        for path, status in _gcs().delete_batch([join(folder, name) for name in names]):
            if status:
                raise OSError(errno.EIO, f"can't be deleted (HTTP status {status})", path)


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
        with _as_os_errors(folder):
            _blob(join(folder, name)).upload_from_string(b"")
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
    file = _gcs().open(path, "wb") if is_remote(folder) else open(path, "wb")  # noqa: SIM115
    try:
        with file:
            yield file
            if not is_remote(folder):
                # Else a power cut may leave the name without what was written.
                file.flush()
                os.fsync(file.fileno())
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = join(folder, name)  # a failed write does not know of what
        delete(folder, [temporary])
        raise
    if is_remote(folder):
        _gcs().rename(path, join(folder, name))
    else:
        os.replace(path, join(folder, name))


def write_atomically(folder: str, name: str, data: bytes) -> None:
    with atomic_file(folder, name) as file:
        file.write(data)
