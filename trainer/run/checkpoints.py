"""Checkpoints of a training run, each one file: `ckpt-<number>.npz`, arrays by name.

A file is written under a temporary name by a thread of its own, so a step waits only for the copy
of the variables, and a killed run leaves no partial file under a final name. The file ends with the
SHA-256 of all bytes before it, which `numpy.load` ignores, so damage is found when it is read.
"""

import concurrent.futures
import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from common import files
from common.errors import UserFacingError, one_line

_DIGEST_SIZE = hashlib.sha256().digest_size

Arrays = Mapping[str, np.ndarray]


class Damaged(UserFacingError):
    """A checkpoint whose bytes are not what was written."""


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: need not be there yet.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: str, *, keep: int = 2):
        self.folder = folder
        self._keep = keep
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._being_written: concurrent.futures.Future[None] | None = None

    def numbers(self) -> list[int]:
        """Returns the numbers of the checkpoints that are there, rising."""
        names = files.names_in(self.folder)
        found = [name.removeprefix("ckpt-").removesuffix(".npz") for name in names]
        return sorted(int(number) for number in found if number.isdecimal())

    def save(self, arrays: Arrays, *, number: int | None = None) -> None:
        """Begins to write a checkpoint, once the one before is written.

        Args:
            arrays: by name.
            number: one more than the highest unless given.

        Raises:
            UserFacingError: the one before could not be written.
        """
        self.wait()
        if number is None:
            number = max(self.numbers(), default=0) + 1
        self._being_written = self._thread.submit(self._write, number, arrays)

    def wait(self) -> None:
        """Returns once all that was saved is written; raises UserFacingError if it could not be."""
        if self._being_written is None:
            return
        try:
            self._being_written.result()
        except OSError as error:
            raise UserFacingError(f"{self.folder}: can't be written ({one_line(error)})") from None
        finally:
            self._being_written = None

    def load(self, number: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a checkpoint.

        Raises:
            Damaged: naming the file.
        """
        path = self.path(number)
        data = files.read_bytes(path)
        data, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
        if hashlib.sha256(data).digest() != digest:
            raise Damaged(f"{path}: the checkpoint is damaged")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def remove(self, number: int) -> None:
        files.delete(self.folder, [self._name(number)])

    def path(self, number: int) -> str:
        return files.join(self.folder, self._name(number))

    def _name(self, number: int) -> str:
        return f"ckpt-{number}.npz"

    def _write(self, number: int, arrays: Arrays) -> None:
        data = io.BytesIO()
        np.savez(data, **dict[str, Any](arrays))
        data.write(hashlib.sha256(data.getbuffer()).digest())
        files.make_folder(self.folder)
        files.write_atomically(self.folder, self._name(number), data.getvalue())
        for old in self.numbers()[: -self._keep]:
            self.remove(old)
