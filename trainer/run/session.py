"""A training from its first step, or where it stopped, to the exported model."""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common import dataset_info, export_folder, tables
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from trainer.data import damaged_records, input_stages, reader
from trainer.evaluation import metrics, plots, report
from trainer.model import export
from trainer.run import devices, loop, model_folder, rendezvous
from trainer.run.checkpoints import Arrays, Checkpoints, Damaged
from trainer.run.loop import Position, Trainer
from trainer.run.stop_signal import StopSignal
from trainer.run.summaries import Board
from trainer.train_config import TrainConfig


def run(
    config: TrainConfig,
    *,
    dataset_dir: str,
    model_dir: str,
    export_dir: str,
    strategy: str,
    skip_damaged: bool,
    stop: StopSignal,
) -> bool:
    """Trains, evaluates and exports; whether it came to the end.

    It does not when it was asked to stop, or when another worker is gone.

    Raises:
        UserFacingError: something the user gave does not fit.
    """
    if devices.is_multi_worker(strategy) and devices.num_all_workers() > 1:
        own, others = devices.own_and_other_addresses()
        print_now(f"waiting for {len(others) + 1} workers")
        rendezvous.meet(own, others)
    try:
        with stop.held_back():
            distribution = devices.strategy_for(strategy)
        say = print_now if devices.is_chief(distribution) else print_nothing
        with damaged_records.dataset_of(dataset_dir, skip_damaged=skip_damaged, say=say) as (
            info,
            dataset_dir,
        ):
            require(
                info.splits["train"].num_examples > 0,
                f"{dataset_dir}: the training split has no examples",
            )
            model_folder.check(model_dir, config, info)
            keras.utils.set_random_seed(config.seed)
            if config.deterministic:
                tf.config.experimental.enable_op_determinism()
            trainer = Trainer(config, info, distribution)
            stop.answer_between_steps()
            with damaged_records.named(info, dataset_dir):
                finished = train(
                    trainer, dataset_dir, model_dir, export_dir, stop_asked=stop.has_come, say=say
                )
            # All leave together, and as the chief does: one that dies at its export, or is asked
            # to stop before it, is started again with the others.
            return bool(trainer.of_chief(int(finished)))
    except tf.errors.OpError as error:
        lost = devices.lost_worker(error)
        if lost is None:
            raise
        print(
            f"stopped, since another worker is gone ({lost}); the same command for all goes on at "
            "the last checkpoint",
            file=sys.stderr,
        )
        return False


class Diverged(UserFacingError):
    """A training whose loss or weights are not finite any more."""

    def __init__(self, position: Position):
        super().__init__(
            f"epoch {position.epoch + 1}: the loss is not finite; start anew with a lower "
            "--config.learning_rate and another --model_dir"
        )


def begin(trainer: Trainer, model_dir: str, say) -> tuple[Position, list[dict[str, Any]]]:
    """Claims the folder for a training and restores what is in it: where it stopped, its history.

    Raises:
        UserFacingError: the folder holds more epochs than the config asks for, all its
            checkpoints or its history are damaged, or it can't be written.
    """
    config, info = trainer.config, trainer.info
    say(
        f"network: {config.network.convolutions} convolutions, {config.network.color}, "
        f"{trainer.model.count_params():,} parameters, on {devices.in_words(trainer.strategy)}; "
        f"{info.splits['train'].num_examples:,} training examples"
    )
    position = resume(trainer, model_folder.newest_checkpoints(model_dir), say)
    require(
        config.epochs >= position.epoch + (position.step > 0),
        f"config.epochs: {config.epochs}, but {model_dir} has been trained for {position.epoch}",
    )
    history = model_folder.read_history(model_dir)[: position.epoch]
    require(
        len(history) == position.epoch,
        f"{model_dir}: metrics.jsonl has {len(history)} of the {position.epoch} epochs that are "
        "trained; bring it back, or take another --model_dir",
    )
    if devices.is_chief(trainer.strategy):
        model_folder.claim(model_dir, config, info)
    return position, history


def fit(
    trainer: Trainer,
    dataset_dir: str,
    model_dir: str,
    position: Position,
    history: list[dict[str, Any]],
    *,
    stop_asked: Callable[[], bool],
    say,
    after_epoch: Callable[[dict[str, Any]], bool] = lambda line: True,
) -> list[dict[str, Any]] | None:
    """Trains on from where `begin` says; each epoch ends with a look at the validation split.

    Args:
        trainer: as `begin` leaves it.
        dataset_dir: where the shards lie.
        model_dir: where checkpoints and metrics go.
        position, history: what `begin` gave.
        stop_asked: whether this worker has been asked to stop.
        say: prints a line.
        after_epoch: given each epoch's line of the history, whether to go on.

    Returns:
        The history to its end, None if a worker was asked to stop before.

    Raises:
        Diverged: the loss is not finite.
    """
    config, info = trainer.config, trainer.info
    is_chief = devices.is_chief(trainer.strategy)
    newest = model_folder.newest_checkpoints(model_dir)
    stage_was_said = False
    if is_chief and not has_ended(config, history):
        board = Board(model_dir)
        if not history:
            board.show_samples(info, dataset_dir)

    def stop_here() -> None:
        if is_chief:
            save(trainer, newest, position)
        newest.wait()
        say("stopped as asked; the checkpoint is written and the same command goes on")

    goes_on = True
    while goes_on and not has_ended(config, history):
        epoch = EpochClock(trainer, position)
        saved = time.monotonic()
        for progress in trainer.train_epoch(dataset_dir, position, stop_asked=stop_asked):
            position = progress.position
            epoch.update(progress, say)
            if not np.isfinite(position.loss):
                raise Diverged(position)
            if progress.stop:
                return stop_here()
            if is_chief and time.monotonic() - saved > config.checkpoint_seconds:
                save(trainer, newest, position)
                saved = time.monotonic()
        throughput = epoch.throughput()
        validation = None
        if info.splits["validation"].num_examples:
            validation = trainer.predictions(dataset_dir, "validation", stop_asked=stop_asked)
            if validation is None:
                return stop_here()
        line = metrics_line(trainer, position, validation)
        history = [*history, line]
        epoch.end(line, throughput, say)
        position = Position(epoch=position.epoch + 1)
        if is_chief:
            # First what the history will speak of, then the history that the checkpoint needs.
            if model_folder.best_epoch(history) == position.epoch:
                model_folder.save_best(model_dir, position.epoch, trainer.model)
            model_folder.write_history(model_dir, history)
            model_folder.write_throughput(model_dir, throughput)
            save(trainer, newest, position)
            board.show_epoch(line, throughput, validation, class_names=info.class_names)
            if throughput["utilisation"] < 0.9 and not stage_was_said:
                stage_was_said = True
                say(input_stages.slowest(config, info, dataset_dir))
        goes_on = after_epoch(line)
    newest.wait()
    if goes_on and history and len(history) < config.epochs:
        say(f"no better validation accuracy for {config.patience} epochs: ended early")
    return history


def train(
    trainer: Trainer, dataset_dir: str, model_dir: str, export_dir: str, *, stop_asked, say
) -> bool:
    """Trains to the end, evaluates and exports; False if it was asked to stop before."""
    config, info = trainer.config, trainer.info
    is_chief = devices.is_chief(trainer.strategy)
    if is_chief:
        model_folder.require_bucket(export_dir)
    position, history = begin(trainer, model_dir, say)
    had_ended = has_ended(config, history)
    history = fit(
        trainer, dataset_dir, model_dir, position, history, stop_asked=stop_asked, say=say
    )
    if history is None:
        return False

    # ---- evaluate the best epoch
    # The chief has written its file before any worker comes here: they have taken a step together.
    trainer.of_chief(0)
    model_folder.restore_best(model_dir, trainer.model)
    answers = None
    if info.splits["test"].num_examples:
        answers = trainer.predictions(dataset_dir, "test", stop_asked=stop_asked)
        if answers is None:
            say("stopped as asked, at the evaluation; the same command goes on")
            return False
    if not is_chief:
        return True
    curves = plots.learning_curves(
        history,
        best_epoch=model_folder.best_epoch(history),
        majority=metrics.majority_accuracy(info, "validation"),
    )
    model_folder.write_bytes(model_dir, "learning_curves.png", curves)
    test = None
    if answers is None:
        say("the test split has no examples, so there is nothing to evaluate on")
    else:
        heard = reader.count_labels_by_genre(info, dataset_dir, "train")
        test = metrics.evaluate(answers, heard, info.class_names)
        model_folder.write_evaluation(model_dir, "test", test)
        say(report.table(test, split="test", num_artists=metrics.num_groups(answers)))
    page = report.write(
        trainer,
        model_dir=model_dir,
        dataset_dir=dataset_dir,
        split="test",
        predictions=answers,
        measured=test,
    )
    say(f"report: {page}")

    # ---- export
    versions = export_folder.versions(export_dir)
    if had_ended and versions:
        say(f"exported before: {export_folder.join(export_dir, str(versions[-1]))}")
        return True
    if stop_asked():
        say("stopped as asked, before the export; the same command goes on")
        return False
    weights = trainer.model.get_weights()
    exported = export.export_model(weights, config, info, test, export_dir, dataset_dir=dataset_dir)
    say(f"exported: {exported}")
    return True


def has_ended(config: TrainConfig, history: list[dict]) -> bool:
    """Whether all epochs are trained, or `patience` of them have brought nothing better."""
    if not history or not config.patience:
        return len(history) >= config.epochs
    waited = len(history) - model_folder.best_epoch(history)
    return len(history) >= config.epochs or waited >= config.patience


def resume(trainer: Trainer, newest: Checkpoints, say) -> Position:
    """Restores the newest whole checkpoint, the same one in every worker; where it was made.

    The chief removes the damaged ones after it, which would be taken for newer than those to come.

    Raises:
        UserFacingError: there are checkpoints, and all are damaged.
    """
    numbers = newest.numbers()
    chosen = None
    if devices.is_chief(trainer.strategy):
        damaged = []
        for number in reversed(numbers):
            try:
                newest.load(number)
            except Damaged as error:
                damaged.append(number)
                say(f"{error}; trying the one before")
            else:
                chosen = number
                break
        if chosen is not None:
            for number in damaged:
                newest.remove(number)
    # 0: there is none, since a checkpoint's number is at least 1; −1: all are damaged.
    chosen = trainer.of_chief(chosen or (-1 if numbers else 0))
    if chosen == 0:
        return Position()
    require(chosen > 0, f"{newest.folder}: every checkpoint is damaged; take another --model_dir")
    state = newest.load(chosen)
    trainer.restore(state, name=newest.path(chosen))
    fields = [field.name for field in dataclasses.fields(Position)]
    position = Position(**{name: state[f"position/{name}"].item() for name in fields})
    within = f" and {position.step} of {trainer.steps_an_epoch} steps" if position.step else ""
    say(f"resumed after epoch {position.epoch}{within} of {trainer.config.epochs}")
    if position.step and str(state.get("examples")) != examples_of(trainer.info):
        # Other records are in another order, of which nobody knows which have been seen.
        say(f"epoch {position.epoch + 1} starts anew, since other records are damaged than before")
        position = Position(epoch=position.epoch)
    return position


def save(trainer: Trainer, newest: Checkpoints, position: Position) -> None:
    """Begins to write the newest checkpoint.

    Raises:
        Diverged: it would hold what is not finite, which nothing could go on from.
    """
    place = {f"position/{k}": np.array(v) for k, v in dataclasses.asdict(position).items()}
    state = trainer.state()
    if not is_finite(state):
        raise Diverged(position)
    newest.save(state | place | {"examples": np.array(examples_of(trainer.info))})


def examples_of(info: DatasetInfo) -> str:
    """What stands for the training examples and their order: the same only if these are."""
    return dataset_info.fingerprint(info.config, {"train": info.splits["train"]})


def is_finite(state: Arrays) -> bool:
    """Whether no float of a state is infinite or not a number."""
    return all(np.isfinite(array).all() for array in state.values())


def metrics_line(trainer: Trainer, position: Position, validation: dict | None) -> dict:
    """The line of the history of an epoch whose steps are done.

    Args:
        trainer: after the epoch.
        position: after the last step.
        validation: the answers on that split, None if it has no examples.

    Raises:
        Diverged: a loss or the weights after it are not finite.
    """
    measured = {"loss": None, "accuracy": None}
    if validation is not None:
        measured = metrics.loss_and_accuracy(validation)
    losses = [position.means["loss"], measured["loss"] or 0]
    if not (np.isfinite(losses).all() and is_finite(trainer.state())):
        raise Diverged(position)
    return {
        "epoch": position.epoch + 1,
        **position.means,
        **{f"validation_{name}": value for name, value in measured.items()},
        "learning_rate": float(np.array(trainer.optimizer.learning_rate)),
    }


class EpochClock:
    """How fast an epoch goes, and the line that says so.

    The line is drawn over on a terminal; elsewhere it is printed now and then, and once an epoch.
    """

    _SECONDS_BETWEEN_LINES = 60.0

    def __init__(self, trainer: Trainer, position: Position):
        self._trainer = trainer
        self._first = position
        self._epochs = trainer.config.epochs
        self._head = f"epoch {position.epoch + 1:>{len(str(self._epochs))}}/{self._epochs}"
        self._started = self._now = self._said = time.monotonic()
        self._waited = 0.0
        self._position = position

    def update(self, progress: loop.Progress, say) -> None:
        self._now = time.monotonic()
        self._waited += progress.waited_seconds
        self._position = position = progress.position
        if not sys.stdout.isatty() and self._now - self._said < self._SECONDS_BETWEEN_LINES:
            return
        self._said = self._now
        say(
            f"{self._head}  step {position.step}/{self._trainer.steps_an_epoch}  "
            f"loss {position.means['loss']:.3f}  accuracy {100 * position.means['accuracy']:.1f} %"
            f"  {self._examples_a_second():.0f} examples/s  {self._left()} left",
            overdrawn=True,
        )

    def throughput(self) -> dict:
        """How fast the steps were; `utilisation` is the part of their time not spent on waiting."""
        seconds = max(self._now - self._started, 1e-9)
        return {
            "epoch": self._position.epoch + 1,
            "seconds": round(seconds, 3),
            "examples_per_second": round(self._examples_a_second(), 1),
            "utilisation": round(1 - min(self._waited / seconds, 1), 4),
        }

    def end(self, line: dict, throughput: dict, say) -> None:
        validation = ""
        if line["validation_accuracy"] is not None:
            validation = (
                f"  validation {line['validation_loss']:.3f} "
                f"{100 * line['validation_accuracy']:.1f} %"
            )
        say(
            f"{self._head}  loss {line['loss']:.3f}  accuracy {100 * line['accuracy']:.1f} %"
            f"{validation}  {throughput['examples_per_second']:.0f} examples/s, "
            f"{100 * throughput['utilisation']:.0f} % busy  {self._left()} left"
        )

    def _examples_a_second(self) -> float:
        seconds = max(self._now - self._started, 1e-9)
        return (self._position.weight - self._first.weight) / seconds

    def _left(self) -> str:
        """The time that the rest takes, at the pace of the steps and without validation."""
        steps = self._trainer.steps_an_epoch
        pace = (self._now - self._started) / max(1, self._position.step - self._first.step)
        epochs = self._epochs - self._position.epoch - 1
        return tables.duration(pace * (steps - self._position.step + steps * epochs))


def print_now(text: str, *, overdrawn: bool = False) -> None:
    """Prints a line; on a terminal the next one is drawn over one that is `overdrawn`."""
    if sys.stdout.isatty():
        print(f"\r{text}\033[K", end="" if overdrawn else "\n", flush=True)
    else:
        print(text, flush=True)


def print_nothing(text: str, *, overdrawn: bool = False) -> None:
    """What the workers print that are not the chief."""
