"""How a training is asked to stop at a checkpoint, and says that it has."""

import signal

# The exit code of one that stopped as it was asked to: EX_TEMPFAIL of sysexits.h, try again.
EXIT_STOPPED = 75


class StopSignal:
    """Whether SIGTERM has come."""

    def __init__(self):
        self._has_come = False

    def listen(self) -> None:
        """Takes SIGTERM from whoever had it."""
        signal.signal(signal.SIGTERM, self._take)

    def has_come(self) -> bool:
        return self._has_come

    def _take(self, *_) -> None:
        self._has_come = True
