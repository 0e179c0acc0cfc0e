"""How each epoch of a training run went: a line of `metrics.jsonl` and of `throughput.jsonl`."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The metrics of an epoch; the fields are the keys of its line, in that order.

    Attributes:
        epoch: counted from 1.
        loss, accuracy: on the training split while the epoch was trained, with dropout; the loss
            in nats.
        validation_loss, validation_accuracy: after the epoch, None without a validation split.
        learning_rate: of the epoch's last step.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochThroughput:
    """How fast the steps of an epoch were, which no two runs agree on.

    Attributes:
        epoch: counted from 1.
        seconds: of the steps, without validation.
        examples_per_second: that they trained on.
        utilisation: the share of the time that was not spent waiting for batches, 0…1.
    """

    epoch: int
    seconds: float
    examples_per_second: float
    utilisation: float


def best_epoch(history: Sequence[EpochMetrics], keep: str = "best") -> int:
    """Returns the epoch, from 1, of the best validation accuracy; the lower loss decides a tie.

    Without a validation split, or with a `keep` of `last`, it is the last one.
    """
    if keep == "last":
        return history[-1].epoch

    def rank(metrics: EpochMetrics) -> tuple[float, ...]:
        if metrics.validation_accuracy is None or metrics.validation_loss is None:
            return (metrics.epoch,)
        return metrics.validation_accuracy, -metrics.validation_loss

    return max(history, key=rank).epoch
