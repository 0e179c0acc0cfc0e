"""One training at a time in its folders."""

import contextlib
import json
import os
from collections.abc import Iterator

from common import lock
from trainer.run import devices, model_folder


@contextlib.contextmanager
def hold(*folders: str, force: bool) -> Iterator[None]:
    """Lets no other run into some folders while the block runs.

    Args:
        folders: where this run writes.
        force: takes them from whoever is at work there.

    Raises:
        UserFacingError: another run is at work there, or one can't be written.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            model_folder.require_bucket(folder)
            stack.enter_context(lock.hold(folder, force=force))
        yield


def is_for_this_worker(strategy: str) -> bool:
    """Returns whether this process is to lock: the chief does so for all workers of a training.

    Raises:
        UserFacingError: TF_CONFIG is not one that it can train by.
    """
    if not devices.is_multi_worker(strategy) or not devices.num_all_workers():
        return True
    values = json.loads(os.environ["TF_CONFIG"])
    task = values["task"]
    has_chief = "chief" in values["cluster"]
    return task["type"] == "chief" or (not has_chief and int(task["index"]) == 0)
