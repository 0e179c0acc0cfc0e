"""How long a source is waited for that does not answer."""

from time import monotonic, sleep

from common.errors import UserFacingError

# With --once.
SECONDS = 180.0
_LONGEST_PAUSE = 10.0


class Patience:
    """Waits for one that is away, in pauses that grow, and says so once."""

    def __init__(self, name: str, seconds: float | None):
        """Takes what messages call it, and when it is given up; None for never."""
        self._name, self._seconds = name, seconds
        self._since: float | None = None

    def answered(self) -> None:
        """Hears that it is back."""
        self._since = None

    def wait(self, said: str) -> None:
        """Pauses.

        Args:
            said: why it is away, on one line.

        Raises:
            UserFacingError: it has been for too long.
        """
        now = monotonic()
        if self._since is None:
            self._since = now
            print(f"{self._name}: does not answer ({said}); trying again", flush=True)
        away = now - self._since
        if self._seconds is not None and away > self._seconds:
            raise UserFacingError(
                f"{self._name}: has not answered for {away:,.0f} s ({said}); nothing is lost, run "
                "the command again when it does"
            )
        sleep(min(0.5 + away / 10, _LONGEST_PAUSE))
