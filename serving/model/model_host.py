"""The version that answers now, and how a newer one takes its place without a dropped request.

A request keeps the version that it began with; an old version is closed when the last request is
done with it.
"""

import contextlib
import functools
import gc
import threading
import time
from collections.abc import Iterator

from common import export_folder, files
from common.errors import UserFacingError
from serving.client import OtherModelError
from serving.model.served_version import ServedVersion
from serving.web.limits import Limits

# A version that could not be loaded is tried again when its folder has changed, or after this
# time, in case it was not the version's fault.
_TRY_AGAIN_SECONDS = 600.0


class ModelHost:
    """Serves the newest version in an export folder.

    Args:
        export_dir: with the versions.
        tf_serving: host:port of a server that answers in place of this process.
        tf_serving_version: number or label of the version that is asked there; without it the
            server's own config decides.
        count: songs that are decoded at once.
        limits: of a song.

    Raises:
        UserFacingError: there is no version, or it can't be loaded.
    """

    def __init__(
        self,
        export_dir: str,
        *,
        tf_serving: str | None,
        tf_serving_version: str | None = None,
        count: int,
        limits: Limits,
    ):
        self._export_dir = export_dir
        self._open = functools.partial(
            ServedVersion,
            export_dir,
            tf_serving=tf_serving,
            tf_serving_version=tf_serving_version,
            count=count,
            limits=limits,
        )
        self._lock = threading.Lock()
        self._users: dict[ServedVersion, int] = {}
        # The state of the version that could not be loaded, and when that was.
        self._failed: tuple[list[files.FileState], float] | None = None
        self._current = self._load(export_folder.newest_version(export_dir))

    def _load(self, number: int) -> ServedVersion:
        try:
            version = self._open(number)
        except UserFacingError:
            raise
        except Exception as error:  # a folder may hold anything
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            path = files.join(self._export_dir, str(number))
            raise UserFacingError(f"{path}: can't be served ({problem})") from error
        self._users[version] = 1  # being the current one is a use
        return version

    @property
    def version(self) -> int:
        """The number of the version that answers now."""
        return self._current.number

    @property
    def current(self) -> ServedVersion:
        """The version that answers now, to be looked at; `in_use` is for asking it."""
        return self._current

    @property
    def num_decoders(self) -> int:
        """How many decoder processes there are, whether idle or busy."""
        return self._current.decoders.num_ready()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[ServedVersion]:
        """Keeps the current version open inside the block."""
        with self._lock:
            version = self._current
            self._users[version] += 1
        try:
            yield version
        finally:
            self._end_use(version)

    def refresh(self) -> int | None:
        """Takes up the newest version if it is another; returns its number then.

        One that could not be loaded is left alone as long as its folder stays as it is.

        Raises:
            UserFacingError: it can't be loaded; the one before goes on.
        """
        number = export_folder.newest_version(self._export_dir)
        if number == self._current.number:
            return None
        state = files.states_below(files.join(self._export_dir, str(number)))
        if self._failed is not None:
            before, when = self._failed
            if before == state and time.monotonic() < when + _TRY_AGAIN_SECONDS:
                return None
        try:
            newer = self._load(number)
        except OtherModelError:  # TensorFlow Serving may load the new version a little later
            raise
        except UserFacingError:
            self._failed = state, time.monotonic()
            raise
        self._failed = None
        with self._lock:
            older, self._current = self._current, newer
        self._end_use(older)
        return number

    def close(self) -> None:
        self._end_use(self._current)

    def _end_use(self, version: ServedVersion) -> None:
        with self._lock:
            self._users[version] -= 1
            if self._users[version]:
                return
            del self._users[version]

        def end() -> None:
            version.close()
            gc.collect()  # a SavedModel's functions refer to each other

        # In a thread, since whoever used it last may be the event loop.
        threading.Thread(target=end).start()
