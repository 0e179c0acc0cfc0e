"""One training at a time in its folders."""

import contextlib
from collections.abc import Iterator

from common import lock
from trainer.run import model_folder


@contextlib.contextmanager
def hold(*folders: str, force: bool) -> Iterator[None]:
    """Lets no other run into some folders while the block runs.

    Args:
        folders: where this run writes; one that is named twice is locked once.
        force: takes them from whoever is at work there.

    Raises:
        UserFacingError: another run is at work there, or one can't be written.
    """
    with contextlib.ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            model_folder.require_bucket(folder)
            stack.enter_context(lock.hold(folder, force=force))
        yield
