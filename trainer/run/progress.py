"""What a person sees of a training run on the terminal: lines, and how fast an epoch goes."""

import sys
import time

from common import tables
from trainer.evaluation.epochs import EpochMetrics, EpochThroughput
from trainer.run.loop import Position, Progress


class Console:
    """Prints lines on stdout.

    Args:
        prefix: before each line.
        silent: prints nothing, as the workers do that are not the chief.
    """

    def __init__(self, *, prefix: str = "", silent: bool = False):
        self._prefix = prefix
        self._silent = silent

    def print(self, text: str) -> None:
        """Prints a line, over the one before where that was a draft."""
        self._write(text, end="\n")

    def draft(self, text: str) -> None:
        """Prints a line that the next one is drawn over on a terminal."""
        self._write(text, end="" if sys.stdout.isatty() else "\n")

    def _write(self, text: str, *, end: str) -> None:
        if self._silent:
            return
        start, clear = ("\r", "\033[K") if sys.stdout.isatty() else ("", "")
        print(f"{start}{self._prefix}{text}{clear}", end=end, flush=True)


class EpochClock:
    """Measures how fast the steps of an epoch go, and prints it.

    The line is drawn over on a terminal; elsewhere it is printed now and then, and once an epoch.

    Args:
        position: where the epoch is begun or resumed.
        epochs: of the whole run.
        steps_an_epoch: of all replicas together.
        console: prints the lines.
    """

    _SECONDS_BETWEEN_LINES = 60.0

    def __init__(self, position: Position, *, epochs: int, steps_an_epoch: int, console: Console):
        self._first = self._position = position
        self._epochs = epochs
        self._steps_an_epoch = steps_an_epoch
        self._console = console
        self._head = f"epoch {position.epoch + 1:>{len(str(epochs))}}/{epochs}"
        self._started = self._now = self._printed = time.monotonic()
        self._waited = 0.0

    def update(self, progress: Progress) -> None:
        """Takes the progress of one more call of the compiled steps."""
        self._now = time.monotonic()
        self._waited += progress.waited_seconds
        self._position = position = progress.position
        if not sys.stdout.isatty() and self._now - self._printed < self._SECONDS_BETWEEN_LINES:
            return
        self._printed = self._now
        self._console.draft(
            f"{self._head}  step {position.step}/{self._steps_an_epoch}  "
            f"loss {position.mean_loss:.3f}  accuracy {tables.percent(position.accuracy)}"
            f"  {self._examples_per_second():.0f} examples/s  {self._left()} left"
        )

    def throughput(self) -> EpochThroughput:
        """Returns how fast the steps were until the last update."""
        seconds = self._seconds()
        return EpochThroughput(
            epoch=self._position.epoch + 1,
            seconds=round(seconds, 3),
            examples_per_second=round(self._examples_per_second(), 1),
            utilisation=round(1 - min(self._waited / seconds, 1), 4),
        )

    def end(self, metrics: EpochMetrics) -> None:
        """Prints the line of the finished epoch."""
        throughput = self.throughput()
        validation = ""
        if metrics.validation_loss is not None and metrics.validation_accuracy is not None:
            validation = (
                f"  validation {metrics.validation_loss:.3f} "
                f"{tables.percent(metrics.validation_accuracy)}"
            )
        self._console.print(
            f"{self._head}  loss {metrics.loss:.3f}  accuracy {tables.percent(metrics.accuracy)}"
            f"{validation}  {throughput.examples_per_second:.0f} examples/s, "
            f"{100 * throughput.utilisation:.0f} % busy  {self._left()} left"
        )

    def _seconds(self) -> float:
        return max(self._now - self._started, 1e-9)

    def _examples_per_second(self) -> float:
        return (self._position.weight - self._first.weight) / self._seconds()

    def _left(self) -> str:
        """Returns how long the rest takes, at the pace of the steps and without validation."""
        steps = self._steps_an_epoch
        pace = (self._now - self._started) / max(1, self._position.step - self._first.step)
        epochs = self._epochs - self._position.epoch - 1
        return tables.duration(pace * (steps - self._position.step + steps * epochs))
