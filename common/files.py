"""Files on local disks and in gs:// buckets alike, for all that read and write them.

Buckets are asked through google-cloud-storage, which is imported with the first gs:// path. Every
request is sent again while the bucket is busy (`DEFAULT_RETRY`, for two minutes). A path is taken
literally: a folder named `music [2020]` is no pattern. STORAGE_EMULATOR_HOST names an emulator,
which is asked without credentials, as are public buckets where there are none.
"""

import contextlib
import errno
import functools
import hashlib
import io
import os
import queue
import shutil
import stat
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, NamedTuple, TypeVar

from common.errors import one_line
from common.pieces import Pieces

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Bucket, Client
    from google.cloud.storage.fileio import BlobReader

_T = TypeVar("_T")

# A local file is called so while it is written, and one that has its own name is whole.
TEMPORARY_PREFIX = ".writing-"

# What a listing of a bucket is to tell of each of its pages.
_LISTED = "items(name,size),nextPageToken"
# A request that asks for more deletions at once is refused.
_MAX_DELETIONS = 100
# What is read of an object at a time, and what of that is handed on.
_CHUNK, _BUFFER = 16 << 20, 1 << 20


# ---- paths


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, name: str) -> str:
    """Returns the path of a name below a folder; a name that is a whole path is that path."""
    if is_remote(name) or os.path.isabs(name):
        return name
    return f"{folder.rstrip('/')}/{name}"


# ---- reading


def open_to_read(path: str) -> io.BufferedReader:
    """Opens a binary file.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
    """
    if not is_remote(path):
        return open(path, "rb")
    with _as_os_errors(path):
        blob = _blob(path)
        blob.reload(retry=_retry())  # a reader finds out only later whether there is an object
        reader = blob.open("rb", chunk_size=_CHUNK, retry=_retry(), raw_download=True)
        return io.BufferedReader(_ObjectReader(path, reader), buffer_size=_BUFFER)


class _ObjectReader(io.RawIOBase):
    """Reads an object from its start to its end; raises OSErrors alone."""

    def __init__(self, path: str, reader: "BlobReader"):
        self._path, self._reader = path, reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _as_os_errors(self._path):
            data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._reader.close()
        super().close()


def read_bytes(path: str, *, at_most: int | None = None, seconds: float | None = None) -> bytes:
    """Reads the whole of a file.

    Args:
        path: of the file.
        at_most: the most bytes that are read into memory.
        seconds: how long reading a local file may take; a bucket's client has its own limits.

    Raises:
        FileNotFoundError: there is none.
        TimeoutError: it took longer.
        OSError: it can't be read, is no regular file, or is larger.
    """
    if not is_remote(path):
        if seconds is None:
            return _read_local(path, at_most)
        return Reading(functools.partial(_read_local, path, at_most), path, seconds).result()
    whole = _Bounded(path, at_most)
    with _as_os_errors(path):
        # One request, and its checksum is compared.
        _blob(path).download_to_file(whole, raw_download=True, checksum="crc32c", retry=_retry())
    return whole.getvalue()


def begin_reading(
    path: str,
    wanted: Callable[[Pieces], tuple[int, int] | None],
    *,
    at_most: int,
    seconds: float,
    is_long: bool = True,
) -> "Reading[Pieces]":
    """Begins to read those bytes of a file that are wanted.

    Args:
        path: of the file.
        wanted: is asked, with what has been read, for the bytes to read next: (start, stop), all
            of them if it needs all; None for no more.
        at_most: the largest file that is taken, in bytes.
        seconds: how long reading a local file may take; a bucket's client has its own limits.
        is_long: whether an object is likely to be one of which few bytes are wanted. Else it is
            read at once: a request more costs more than the bytes of a short one.

    Returns:
        What has them; its `result` raises OSError as `read_bytes` does.
    """
    if is_remote(path):
        return Reading(functools.partial(_remote_pieces, path, wanted, at_most, is_long), path)
    return Reading(functools.partial(_local_pieces, path, wanted, at_most), path, seconds)


def _remote_pieces(
    path: str, wanted: Callable[[Pieces], tuple[int, int] | None], at_most: int, is_long: bool
) -> Pieces:
    if not is_long:
        return Pieces.whole(read_bytes(path, at_most=at_most))
    with _as_os_errors(path):
        blob = _blob(path)
        blob.reload(retry=_retry())
        size, version = int(blob.size), blob.generation
        _check_size(path, size, at_most)

        def read(start: int, stop: int) -> bytes:
            data: bytes = blob.download_as_bytes(
                start=start,
                end=stop - 1,
                raw_download=True,
                if_generation_match=version,
                checksum=None,  # buckets have none of a part
                retry=_retry(),
            )
            return data

        found = _wanted_pieces(size, wanted, read)
        return found or Pieces.whole(read_bytes(path, at_most=at_most))


def _local_pieces(
    path: str, wanted: Callable[[Pieces], tuple[int, int] | None], at_most: int
) -> Pieces:
    with _open_local(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return Pieces.whole(b"")
        _check_size(path, size, at_most)

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        found = _wanted_pieces(size, wanted, read)
    return found or Pieces.whole(_read_local(path, at_most))


def _wanted_pieces(
    size: int,
    wanted: Callable[[Pieces], tuple[int, int] | None],
    read: Callable[[int, int], bytes],
) -> Pieces | None:
    """Reads what is wanted of a file; None if it gets shorter meanwhile."""
    pieces = Pieces(size)
    while (span := wanted(pieces)) is not None:
        start, stop = span
        head = b""
        if span == (0, size):  # the first bytes are there already
            head = pieces.parts.get(0, b"")
        data = head + read(len(head), stop) if head else read(start, stop)
        if len(data) != stop - start:
            return None
        if len(data) == size:
            return Pieces.whole(data)
        pieces.add(start, data)
    return pieces


def _read_local(path: str, at_most: int | None) -> bytes:
    with _open_local(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return b""  # or one of the system's, such as /proc/kmsg, whose end does not come
        _check_size(path, size, at_most)
        data = file.read() if at_most is None else file.read(at_most + 1)
        _check_size(path, len(data), at_most)
        return data


def _open_local(path: str) -> io.BufferedReader:
    """Opens a regular file; OSError for another."""
    # Opening a named pipe would else wait for somebody who writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = open(descriptor, "rb")  # noqa: SIM115 (it is returned)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, "no regular file", path)
    return file


# What gives jobs to each thread that has none.
_idle_threads: list[queue.SimpleQueue[Callable[[], None]]] = []
os.register_at_fork(after_in_child=_idle_threads.clear)


def _in_a_thread(job: Callable[[], None]) -> None:
    """Has a thread do a job that raises nothing.

    It takes one that has nothing to do: a new one is waited for until it runs, which a busy machine
    takes milliseconds for. Python's own pools wait for the last job before they let a process end.
    """
    try:
        jobs = _idle_threads.pop()
    except IndexError:
        jobs = queue.SimpleQueue()
        threading.Thread(target=_do_jobs, args=(jobs,), daemon=True).start()
    jobs.put(job)


def _do_jobs(jobs: "queue.SimpleQueue[Callable[[], None]]") -> None:
    while True:
        jobs.get()()
        _idle_threads.append(jobs)


class Reading(Generic[_T]):
    """A read in another thread: a disk that does not answer keeps that, not the caller.

    Args:
        read: reads.
        path: of what it reads.
        seconds: how long `result` waits; as long as it takes unless given.
    """

    def __init__(self, read: Callable[[], _T], path: str, seconds: float | None = None):
        self._path, self._seconds = path, seconds
        self._answers: queue.SimpleQueue[_T | Exception] = queue.SimpleQueue()

        def answer() -> None:
            try:
                self._answers.put(read())
            except Exception as error:
                self._answers.put(error)

        _in_a_thread(answer)

    def result(self) -> _T:
        """Waits for what it has read, and returns it; may be called once.

        Raises:
            TimeoutError: it took longer.
            Exception: what reading raised.
        """
        try:
            answer = self._answers.get(timeout=self._seconds)
        except queue.Empty:
            problem = f"reading took longer than {self._seconds:g} s"
            raise TimeoutError(errno.ETIMEDOUT, problem, self._path) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Bounded(io.BytesIO):
    """Holds what is read of an object, up to a number of bytes."""

    def __init__(self, path: str, at_most: int | None):
        super().__init__()
        self._path, self._at_most = path, at_most

    def write(self, data: Any) -> int:
        _check_size(self._path, self.tell() + len(data), self._at_most)
        return super().write(data)


def _check_size(path: str, size: int, at_most: int | None) -> None:
    if at_most is not None and size > at_most:
        raise OSError(errno.EFBIG, f"larger than {at_most / 1e6:g} MB", path)


def read_text(path: str) -> str:
    """Reads a file of UTF-8; raises as `read_bytes` does, and UnicodeDecodeError."""
    return read_bytes(path).decode()


def sha256_of_all(first: str, *others: str) -> str:
    """Returns the SHA-256 of a file; of several, that of their SHA-256 in a row, as hex digits."""
    if not others:
        return sha256(first)
    return hashlib.sha256("".join(map(sha256, (first, *others))).encode()).hexdigest()


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file, as hexadecimal digits; raises as `open_to_read` does."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(_BUFFER):
            digest.update(block)
    return digest.hexdigest()


def link_or_copy(source: str, destination: str) -> None:
    """Makes a file appear under a local path: a symbolic link to a local one, or a copy.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: it can't be read or made.
    """
    if not is_remote(source):
        os.symlink(os.path.abspath(source), destination)
        return
    with _as_os_errors(source):
        _blob(source).download_to_filename(
            destination, raw_download=True, checksum="crc32c", retry=_retry()
        )


# ---- what is there


def exists(path: str) -> bool:
    """Returns whether there is a file, or a local folder; buckets have none."""
    if not is_remote(path):
        return os.path.exists(path)
    with _as_os_errors(path):
        return bool(_blob(path).exists(retry=_retry()))


def has_file(path: str) -> bool:
    """Returns whether there is a file at a path that others chose; where none can be is none.

    Raises:
        OSError: a bucket does not answer now.
    """
    try:
        return exists(path)
    except OSError as error:
        if may_pass(error):
            raise
        return False


def size_of(path: str) -> int | None:
    """Returns the bytes of a file, None if there is none."""
    try:
        if not is_remote(path):
            return os.stat(path).st_size
        with _as_os_errors(path):
            blob = _blob(path)
            blob.reload(retry=_retry())
            return int(blob.size)
    except FileNotFoundError:
        return None


def names_in(folder: str) -> list[str]:
    """Lists the files that lie in a folder, not below; none if there is no folder."""
    return sorted(sizes_in(folder))


def sizes_in(folder: str) -> dict[str, int]:
    """Returns {name: bytes} of the files that lie in a folder, not below.

    None if there is no folder; FileNotFoundError if there is no such bucket.
    """
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
        prefix = _prefix(folder)
        listed = _list(folder, delimiter="/", fields=_LISTED)
        return {
            blob.name.removeprefix(prefix): int(blob.size) for blob in listed if blob.name != prefix
        }


def folders_in(folder: str) -> list[str]:
    """Lists the folders that lie in a folder, not below; raises as `sizes_in` does."""
    if not is_remote(folder):
        if not os.path.isdir(folder):
            return []
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    with _as_os_errors(folder):
        listed = _list(folder, delimiter="/", fields="prefixes,items(name),nextPageToken")
        for _ in listed:  # the folders are known once all pages have been read
            pass
        prefix = _prefix(folder)
        return sorted(name.removeprefix(prefix).rstrip("/") for name in listed.prefixes)


def folder_exists(path: str) -> bool:
    """Returns whether there is a local folder, or anything below a path of a bucket."""
    return has_files(path) if is_remote(path) else os.path.isdir(path)


def has_files(folder: str) -> bool:
    """Returns whether any file lies in a folder or below it."""
    if not is_remote(folder):
        return any(names for _, _, names in os.walk(folder))
    try:
        with _as_os_errors(folder):
            # Some tools put empty objects that end in a slash where a folder would be.
            return any(not blob.name.endswith("/") for blob in _list(folder, fields=_LISTED))
    except FileNotFoundError:  # there is no such bucket
        return False


class FileState(NamedTuple):
    """A file as it was when it was looked at: another state means other bytes."""

    path: str
    size: int
    modified: str


def states_below(folder: str) -> list[FileState]:
    """Lists the files in a folder and below it, by path."""
    if not is_remote(folder):
        found = []
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = os.stat(path)
                    found.append(FileState(path, status.st_size, str(status.st_mtime_ns)))
        return sorted(found)
    with _as_os_errors(folder):
        bucket, _ = _prefix_parts(folder)
        listed = _list(folder, fields="items(name,size,updated),nextPageToken")
        return sorted(
            FileState(f"gs://{bucket}/{blob.name}", int(blob.size), str(blob.updated))
            for blob in listed
        )


# ---- writing


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
        write_atomically(folder, name, b"")
        delete(folder, [name])
        return
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    with tempfile.TemporaryFile(dir=there):
        pass


@contextlib.contextmanager
def atomic_file(folder: str, name: str) -> Iterator[BinaryIO]:
    """Opens a binary file that appears under its name only when its block ends without an error.

    A local one is renamed when it is on the disk. One for a bucket is spooled to a local temporary
    file and then uploaded: an object appears when all of it has come and its checksum (CRC-32C) is
    the file's. Two that write the same name at once, as retried Beam bundles may, do not meet: the
    last one that is whole stays.

    Raises:
        OSError: it can't be written.
    """
    path = join(folder, name)
    if is_remote(folder):
        with tempfile.TemporaryFile() as spooled:
            with _naming(tempfile.gettempdir()):
                yield spooled
                spooled.flush()
            with _as_os_errors(path):
                size = spooled.tell()
                _blob(path).upload_from_file(
                    spooled, rewind=True, size=size, checksum="crc32c", retry=_retry()
                )
        return
    temporary = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}"
    try:
        with _naming(path), open(join(folder, temporary), "wb") as file:
            yield file
            # Else a power cut may leave the name without what was written.
            file.flush()
            os.fsync(file.fileno())
        os.replace(join(folder, temporary), path)
    except BaseException:
        delete(folder, [temporary])
        raise


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Names a path in the errors that do not: a failed write does not know of what."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def write_atomically(folder: str, name: str, data: bytes) -> None:
    """Writes a file, so that it is there whole or not at all; OSError if it can't be written."""
    with atomic_file(folder, name) as file:
        file.write(data)


def delete(folder: str, names: Iterable[str]) -> None:
    """Deletes files of a folder; one that is gone already is none to delete.

    Raises:
        OSError: one can't be deleted.
    """
    if not is_remote(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(join(folder, name))
        return
    waiting = list(names)
    with _as_os_errors(folder):
        for start in range(0, len(waiting), _MAX_DELETIONS):
            paths = [join(folder, name) for name in waiting[start : start + _MAX_DELETIONS]]
            _retry()(_delete_objects)(paths)


def delete_folder(folder: str) -> None:
    """Deletes a folder and all below it; one that is not there is none to delete.

    Raises:
        OSError: something can't be deleted.
    """
    if not is_remote(folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return
    prefix = f"{folder.rstrip('/')}/"
    delete(folder, [state.path.removeprefix(prefix) for state in states_below(folder)])


def _delete_objects(paths: list[str]) -> None:
    """Deletes objects by one request; raises what went wrong with the first that is still there."""
    from google.api_core.exceptions import from_http_response
    from google.cloud.storage.batch import Batch

    class AnsweredBatch(Batch):
        answers: list[Any]

        def finish(self, raise_exception: bool = True) -> list[Any]:
            self.answers = list(super().finish(raise_exception=False))
            return self.answers

    with AnsweredBatch(_client()) as batch:
        for path in paths:
            bucket, name = _parts(path)
            _client().bucket(bucket).delete_blob(name)
    for answer in batch.answers:
        if answer.status_code >= 400 and answer.status_code != 404:
            raise from_http_response(answer)


def move_folder(source: str, destination: str, *, last: str) -> None:
    """Gives a folder, and all below it, another path.

    A bucket has no folders to rename: each object is copied, those in the folder itself that are
    called `last` at the end, so that whoever waits for that one finds all others.

    Raises:
        FileExistsError: there is something at the destination.
        OSError: it can't be moved.
    """
    if not is_remote(source):
        try:
            os.rename(source, destination)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise FileExistsError(errno.EEXIST, "is there already", destination) from None
        return
    if has_files(destination):
        raise FileExistsError(errno.EEXIST, "is there already", destination)
    with _as_os_errors(source):
        (_, prefix), (bucket, new_prefix) = _prefix_parts(source), _prefix_parts(destination)
        names = [blob.name.removeprefix(prefix) for blob in _list(source, fields=_LISTED)]
        here, there = _bucket(source), _client().bucket(bucket)
        for name in sorted(names, key=lambda name: name == last):
            here.copy_blob(here.blob(prefix + name), there, new_prefix + name, retry=_retry())
        delete(source, names)


# ---- objects that many write


def read_version(path: str) -> tuple[bytes, int] | None:
    """Reads an object, and the number of its version (GCS: generation); None if there is none."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    blob = _blob(path)
    for _ in range(10):
        with _as_os_errors(path):
            try:
                blob.reload(retry=_retry())
                version = int(blob.generation)
                data = blob.download_as_bytes(if_generation_match=version, retry=_retry())
                return data, version
            except NotFound:
                return None
            except PreconditionFailed:  # written anew in between
                continue
    raise OSError(errno.EIO, "is written all the time", path)


def replace_version(path: str, data: bytes, version: int) -> int | None:
    """Writes an object if it is of that version still, 0 for one that is not there.

    Returns:
        Its new version; None, and nothing is written, if it is of another.

    Raises:
        OSError: it can't be written.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    blob = _blob(path)
    with _as_os_errors(path):
        try:
            blob.upload_from_string(data, if_generation_match=version, retry=_retry())
            return int(blob.generation)
        except PreconditionFailed:
            # Perhaps it is written, and only the answer to that got lost.
            found = read_version(path)
            return found[1] if found and found[0] == data else None
        except NotFound:
            if version:
                return None
            raise


def delete_version(path: str, version: int) -> None:
    """Deletes an object if it is of that version still; OSError if it can't."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    with _as_os_errors(path), contextlib.suppress(NotFound, PreconditionFailed):
        _blob(path).delete(if_generation_match=version, retry=_retry())


# ---- buckets


def may_pass(error: OSError) -> bool:
    """Returns whether a later try may go well: a bucket does not answer now."""
    return error.errno == errno.EIO


def problem_of(error: BaseException) -> str:
    """Returns what an error of a bucket says on one line, without the part for programmers."""
    return one_line(error).partition(": ('Request failed with status code'")[0]


@contextlib.contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Raises a bucket's errors as those that a local file would have."""
    from google.api_core.exceptions import BadRequest, Forbidden, GoogleAPIError, NotFound
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from requests import RequestException

    try:
        yield
    except NotFound as error:
        raise FileNotFoundError(errno.ENOENT, "no such file or bucket", path) from error
    except (BadRequest, Forbidden, ValueError) as error:  # such as a name that no object can have
        code = errno.EACCES if isinstance(error, Forbidden) else errno.EINVAL
        raise OSError(code, problem_of(error), path) from error
    except (GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
        raise OSError(errno.EIO, problem_of(error), path) from error


@functools.cache
def _client() -> "Client":
    """Makes the client; one for the process keeps its connections."""
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud.storage import Client

    try:
        return Client(project=None)  # an object's path names no project
    except DefaultCredentialsError:
        return Client.create_anonymous_client()


def _retry() -> Any:
    """Returns how requests are retried, a `google.api_core.retry.Retry`."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY


def _parts(path: str, *, may_be_bucket: bool = False) -> tuple[str, str]:
    """Splits gs://bucket/name; OSError for any other path, or for one without a name."""
    scheme, _, rest = path.partition("://")
    bucket, _, name = rest.partition("/")
    if scheme != "gs" or not bucket or not (name or may_be_bucket):
        raise OSError(errno.EINVAL, "neither a local path nor gs://bucket/name", path)
    return bucket, name


def _prefix_parts(folder: str) -> tuple[str, str]:
    """Returns the bucket of a folder, and what the names of its objects begin with."""
    bucket, name = _parts(folder, may_be_bucket=True)
    name = name.rstrip("/")
    return bucket, f"{name}/" if name else ""


def _prefix(folder: str) -> str:
    return _prefix_parts(folder)[1]


def _bucket(path: str) -> "Bucket":
    return _client().bucket(_parts(path, may_be_bucket=True)[0])


def _blob(path: str) -> "Blob":
    """Returns the object of a path; no request is made."""
    return _bucket(path).blob(_parts(path)[1])


def _list(folder: str, **how: Any) -> Any:
    """Lists the objects below a folder, page by page: an iterator of blobs."""
    bucket, prefix = _prefix_parts(folder)
    return _client().list_blobs(bucket, prefix=prefix, retry=_retry(), **how)
