"""The workers of a group that follows: the chief does all of it, and the others train with it.

Only the chief looks for what is new, asks the models, draws, judges, releases and writes. The
others wait for its word, a number: of the update to train, or the negated exit code to leave with.
"""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from common.errors import UserFacingError
from trainer.run import devices
from trainer.run.loop import Diverged
from trainer.run.stop_signal import EXIT_STOPPED

_EXIT_REFUSED = 1


class Workers:
    """Those that train an update; of one process there is nobody to tell anything.

    Args:
        strategy: under which they train.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self._others_wait = True

    @contextlib.contextmanager
    def training(self, update: int) -> Iterator[None]:
        """Has the others train an update while the block, the chief's part in it, runs."""
        devices.broadcast(self.strategy, update)
        self._others_wait = False
        try:
            yield
        except Diverged:
            self._others_wait = True  # they have found it, too
            raise
        self._others_wait = True

    def dismiss(self, code: int) -> None:
        """Has the others leave with an exit code; in a training they notice that the chief left."""
        if self._others_wait:
            devices.broadcast(self.strategy, -code)


def run(
    strategy: tf.distribute.Strategy,
    *,
    lead: Callable[[Workers], int],
    train: Callable[[int, Workers], None],
) -> int:
    """Follows with all workers of a strategy, each of which calls this.

    Args:
        strategy: of this process.
        lead: what the chief does; returns the exit code of all.
        train: what the others do at an update, by its number.

    Returns:
        the exit code; EXIT_STOPPED where another worker is gone.

    Raises:
        UserFacingError: the chief, or this worker, can't do its part.
    """
    workers = Workers(strategy)
    try:
        if not devices.is_chief(strategy):
            return _follow_chief(workers, train)
        code = _EXIT_REFUSED
        try:
            code = lead(workers)
        finally:
            workers.dismiss(code)
        return code
    except tf.errors.OpError as error:
        devices.tell_of_lost_worker(error)
        return EXIT_STOPPED


def _follow_chief(workers: Workers, train: Callable[[int, Workers], None]) -> int:
    while (told := devices.broadcast(workers.strategy, 0)) > 0:
        with contextlib.suppress(Diverged):  # the chief says what comes of it
            train(told, workers)
    if told == -_EXIT_REFUSED:
        raise UserFacingError("the chief has ended with an error, which it names")
    return -told
