"""Uploads files into a bucket, but for those that are there already, and counts what came of it."""

import base64
import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator

from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage import transfer_manager

from beam_pipelines.upload.library_files import LibraryFile, Stream
from beam_pipelines.upload.progress import Progress
from common import tables
from common.errors import UserFacingError
from common.files import problem_of

# As many as the client keeps connections for.
_WORKERS = transfer_manager.DEFAULT_MAX_WORKERS
# Files that are handed to the workers at once: enough to keep them busy, few enough that Ctrl-C
# does not wait long.
_BATCH = 8 * _WORKERS
# What each worker holds of its file.
_BLOCK = 8 << 20


@dataclasses.dataclass
class Outcome:
    """What became of the files."""

    uploaded: list[LibraryFile] = dataclasses.field(default_factory=list)
    already_there: list[LibraryFile] = dataclasses.field(default_factory=list)
    failed: dict[LibraryFile, str] = dataclasses.field(default_factory=dict)  # with the reason
    not_tried: list[LibraryFile] = dataclasses.field(default_factory=list)


def open_bucket(destination: str) -> tuple[storage.Bucket, str]:
    """Returns the bucket of a gs:// path, and what the names of its objects are to begin with.

    Raises:
        UserFacingError: it is no such path, or there are no credentials.
    """
    match = re.fullmatch(r"gs://([a-z0-9][-_.a-z0-9]{1,220}[a-z0-9])(?:/(.*?))?/*", destination)
    if match is None:
        raise UserFacingError(f"{destination}: --destination is gs://bucket/folder")
    try:
        client = storage.Client(project=None)
    except GoogleAuthError as error:
        raise UserFacingError(
            f"{destination}: no credentials ({problem_of(error)}); "
            "`gcloud auth application-default login` makes some"
        ) from None
    return client.bucket(match[1]), f"{match[2]}/" if match[2] else ""


def checksums_there(bucket: storage.Bucket, prefix: str) -> dict[str, tuple[int, bytes]]:
    """Returns the size and CRC-32C of each object whose name begins with the prefix.

    Raises:
        UserFacingError: there is no such bucket, or it does not answer.
    """
    try:
        found = bucket.list_blobs(prefix=prefix, fields="items(name,size,crc32c),nextPageToken")
        return {blob.name: (blob.size, _crc32c_of(blob)) for blob in found}
    except NotFound:
        raise UserFacingError(f"gs://{bucket.name}: no such bucket") from None
    except (GoogleAPIError, GoogleAuthError) as error:
        raise UserFacingError(
            f"gs://{bucket.name}: can't be listed ({problem_of(error)})"
        ) from None


def upload(
    files: Iterable[LibraryFile], bucket: storage.Bucket, prefix: str, progress: Progress
) -> Outcome:
    """Uploads what is not there yet; a bucket that takes nothing more ends it."""
    outcome = Outcome()
    there = checksums_there(bucket, prefix)
    missing = _missing(files, there, prefix, outcome, progress)
    while batch := list(itertools.islice(missing, _BATCH)):
        failed = _upload_batch(batch, bucket, prefix, outcome, progress)
        if failed == len(batch) == _BATCH:
            outcome.not_tried += missing
    return outcome


def _missing(
    files: Iterable[LibraryFile],
    there: dict[str, tuple[int, bytes]],
    prefix: str,
    outcome: Outcome,
    progress: Progress,
) -> Iterator[LibraryFile]:
    """Yields the files that are not there with the same bytes; the others go to the outcome."""
    for file in files:
        size, checksum = there.get(prefix + file.name, (None, None))
        if size != file.size:
            yield file
            continue
        stream = Stream(file, progress.add_bytes)
        try:
            with contextlib.closing(stream):
                while stream.read(_BLOCK):
                    pass
        except Exception as error:  # a zip has many ways to be damaged
            outcome.failed[file] = problem_of(error)
        else:
            if stream.crc32c != checksum:
                progress.add_bytes(-stream.num_bytes)
                yield file
                continue
            outcome.already_there.append(file)
        progress.add_file(file, stream.num_bytes)


def _upload_batch(
    batch: list[LibraryFile],
    bucket: storage.Bucket,
    prefix: str,
    outcome: Outcome,
    progress: Progress,
) -> int:
    """Uploads some files and returns how many of them failed."""
    streams = [Stream(file, progress.add_bytes) for file in batch]
    blobs = [bucket.blob(prefix + file.name, chunk_size=_BLOCK) for file in batch]
    try:
        results = transfer_manager.upload_many(
            list(zip(streams, blobs, strict=True)),
            worker_type=transfer_manager.THREAD,  # which alone takes streams
            max_workers=_WORKERS,
            upload_kwargs={"checksum": "crc32c"},
        )
    finally:
        for stream in streams:
            stream.close()
    num_failed = 0
    for file, stream, blob, result in zip(batch, streams, blobs, results, strict=True):
        progress.add_file(file, stream.num_bytes)
        problem = None
        if isinstance(result, BaseException):
            problem = problem_of(result)
        elif (blob.size, _crc32c_of(blob)) != (stream.num_bytes, stream.crc32c):
            problem = "what is in the bucket differs from the file"
        if problem is None:
            outcome.uploaded.append(file)
        else:
            outcome.failed[file] = problem
            num_failed += 1
    return num_failed


def _crc32c_of(blob: storage.Blob) -> bytes:
    return base64.b64decode(blob.crc32c or "")


def table(outcome: Outcome, *, left_out: int, seconds: float) -> str:
    """Returns what became of the files, as lines of text."""

    def row(name: str, files: Iterable[LibraryFile]) -> tuple[str, str, str]:
        sizes = [file.size for file in files]
        return name, f"{len(sizes):,}", f"{sum(sizes):,}"

    rows = [
        ("", "files", "bytes"),
        row("uploaded", outcome.uploaded),
        row("already there", outcome.already_there),
        row("failed", outcome.failed),
    ]
    if outcome.not_tried:
        rows.append(row("not tried", outcome.not_tried))
    if left_out:
        rows.append(("hidden or links, left out", f"{left_out:,}", ""))
    return "\n".join([*tables.aligned(rows), f"{seconds:,.1f} s"])
