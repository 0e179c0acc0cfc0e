"""The state that a training run resumes from: what a checkpoint holds beside the weights."""

import dataclasses

import numpy as np
from absl import logging

from common import dataset_info
from common.dataset_info import DatasetInfo
from common.errors import require
from trainer.run import devices
from trainer.run.checkpoints import Arrays, Checkpoints, Damaged
from trainer.run.loop import Diverged, Position, Trainer


def save_state(trainer: Trainer, newest: Checkpoints, position: Position) -> None:
    """Begins to write the newest checkpoint.

    Raises:
        Diverged: it would hold what is not finite, which nothing could resume from.
    """
    state = trainer.state()
    if not is_finite(state):
        raise Diverged(position)
    of_position = {f"position/{k}": np.array(v) for k, v in dataclasses.asdict(position).items()}
    newest.save(state | of_position | {"examples": np.array(examples_digest(trainer.info))})


def restore_state(trainer: Trainer, newest: Checkpoints) -> Position | None:
    """Restores the newest undamaged checkpoint, the same one in every worker.

    The chief removes the damaged ones after it, which would be taken for newer than those to come.

    Returns:
        the position to resume from, None where there is no checkpoint.

    Raises:
        UserFacingError: there are checkpoints, and all are damaged.
    """
    numbers = newest.numbers()
    found = _newest_undamaged(newest, numbers) if devices.is_chief(trainer.strategy) else None
    # 0: there is none, since a checkpoint's number is at least 1; −1: all are damaged.
    chosen = devices.broadcast(trainer.strategy, found or (-1 if numbers else 0))
    if chosen == 0:
        return None
    require(chosen > 0, f"{newest.folder}: every checkpoint is damaged; take another --model_dir")
    state = newest.load(chosen)
    trainer.restore(state, name=newest.path(chosen))
    fields = [field.name for field in dataclasses.fields(Position)]
    position = Position(**{name: state[f"position/{name}"].item() for name in fields})
    if position.step and str(state.get("examples")) != examples_digest(trainer.info):
        # Other records are in another order, of which nobody knows which have been seen.
        if devices.is_chief(trainer.strategy):
            logging.warning(
                "epoch %d starts anew, since other records are damaged than before",
                position.epoch + 1,
            )
        return Position(epoch=position.epoch)
    return position


def _newest_undamaged(newest: Checkpoints, numbers: list[int]) -> int | None:
    """Returns the number of the newest undamaged checkpoint and removes those after it."""
    damaged = []
    for number in reversed(numbers):
        try:
            newest.load(number)
        except Damaged as error:
            damaged.append(number)
            logging.warning("%s; trying the one before", error)
        else:
            for later in damaged:
                newest.remove(later)
            return number
    return None


def examples_digest(info: DatasetInfo) -> str:
    """Returns a digest of the training examples and their order."""
    return dataset_info.fingerprint(info.config, {"train": info.splits["train"]})


def is_finite(state: Arrays) -> bool:
    """Returns whether no float of a state is infinite or not a number."""
    return all(bool(np.isfinite(array).all()) for array in state.values())
