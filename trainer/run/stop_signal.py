"""SIGTERM: how a training run is preempted, and the exit code that says so."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

# The exit code of a run that stopped as it was asked to: EX_TEMPFAIL of sysexits.h, try again.
EXIT_STOPPED = 75


class Stopped(KeyboardInterrupt):
    """SIGTERM has come before there was anything to checkpoint."""


class StopSignal:
    """Notes that SIGTERM came; raises Stopped at once until `wait_for_steps` is called."""

    def __init__(self) -> None:
        self._has_come = False
        self._at_once = True

    def listen(self) -> None:
        """Handles SIGTERM from now on, instead of whoever did."""
        signal.signal(signal.SIGTERM, self._handle)

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Blocks SIGTERM inside the block and handles it at its end.

        TensorFlow installs a handler of its own where there are workers, which would lose it.
        Threads that begin in the block never get it.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            yield
        finally:
            self.listen()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def wait_for_steps(self) -> None:
        """Raises Stopped no more: whoever trains checks `has_come` between steps."""
        self._at_once = False

    def has_come(self) -> bool:
        """Returns whether SIGTERM has come."""
        return self._has_come

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        self._has_come = True
        if self._at_once:
            self._at_once = False
            raise Stopped
