"""How a training is asked to stop, and says that it has."""

import contextlib
import signal
from collections.abc import Iterator

# The exit code of one that stopped as it was asked to: EX_TEMPFAIL of sysexits.h, try again.
EXIT_STOPPED = 75


class Stopped(KeyboardInterrupt):
    """SIGTERM has come before there was anything to checkpoint."""


class StopSignal:
    """Whether SIGTERM has come; it raises Stopped at once until `answer_between_steps`."""

    def __init__(self):
        self._has_come = False
        self._at_once = True

    def listen(self) -> None:
        """Takes SIGTERM from whoever had it."""
        signal.signal(signal.SIGTERM, self._take)

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """SIGTERM comes at the end of the block, and then here.

        TensorFlow takes it for itself where there are workers, and what comes to it then is lost.
        Threads that begin in the block never get it.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            yield
        finally:
            self.listen()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def answer_between_steps(self) -> None:
        """From now on there is something to checkpoint: whoever trains looks at `has_come`."""
        self._at_once = False

    def has_come(self) -> bool:
        return self._has_come

    def _take(self, *_) -> None:
        self._has_come = True
        if self._at_once:
            self._at_once = False
            raise Stopped
