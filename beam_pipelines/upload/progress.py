"""Shows how far an upload is."""

import sys
import threading
import time
from collections.abc import Sequence

from beam_pipelines.upload.library_files import LibraryFile


class Progress:
    """Shows how far it is, from a thread, while a block runs: a line that is drawn over on a
    terminal, now and then a line elsewhere."""

    def __init__(self, files: Sequence[LibraryFile]):
        self._num_files = len(files)
        self._num_bytes = sum(file.size for file in files)
        self._files_done = self._bytes_done = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add_bytes(self, count: int) -> None:
        with self._lock:
            self._bytes_done += count

    def add_file(self, file: LibraryFile, num_bytes: int) -> None:
        """Counts a file as done, of which so many bytes were counted before."""
        with self._lock:
            self._files_done += 1
            self._bytes_done += file.size - num_bytes

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def line(self) -> str:
        rate = self._bytes_done / max(self.seconds, 1e-3)
        left = (self._num_bytes - self._bytes_done) / rate if rate > 0 else None
        return (
            f"{self._files_done:,} of {self._num_files:,} files  "
            f"{self._bytes_done / 1e6:,.1f} of {self._num_bytes / 1e6:,.1f} MB  "
            f"{rate / 1e6:,.1f} MB/s" + ("" if left is None else f"  {left:,.0f} s left")
        )

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        on_terminal = sys.stdout.isatty()
        head, tail = ("\r", "\033[K") if on_terminal else ("", "\n")
        while not self._stop.wait(0.25 if on_terminal else 10):
            print(f"{head}{self.line()}", end=tail, flush=True)
        if on_terminal:
            print(head, end=tail, flush=True)
