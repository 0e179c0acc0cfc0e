"""A training run: opens the model folder, trains the epochs, evaluates the best, exports it."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from common import export_folder, files
from common.errors import UserFacingError, require
from trainer.data import damaged_records, input_stages
from trainer.evaluation import metrics, plots, report
from trainer.evaluation.epochs import EpochMetrics, best_epoch
from trainer.evaluation.metrics import Evaluation
from trainer.evaluation.predictions import Predictions
from trainer.model import export
from trainer.run import (
    devices,
    input_importance,
    model_folder,
    rendezvous,
    resume,
    split_evaluation,
    warm_start,
)
from trainer.run.loop import Diverged, Position, Trainer
from trainer.run.progress import Console, EpochClock
from trainer.run.stop_signal import StopSignal
from trainer.run.summaries import Summaries
from trainer.run.warm_start import WarmStart
from trainer.train_config import TrainConfig

# Below it the steps wait for their batches so much that the slow stage of the input is named.
_LOW_UTILISATION = 0.9


def train(
    config: TrainConfig,
    *,
    dataset_dir: str,
    model_dir: str,
    export_dir: str,
    strategy: str,
    skip_damaged: bool,
    stop: StopSignal,
    init_from: str | None = None,
    reset_head: bool = False,
) -> bool:
    """Runs a training from its first step, or where it stopped, to the exported model.

    With `init_from`, a model folder or an export, it begins with the weights of that, all but those
    of the last layers with `reset_head`.

    Returns:
        whether it came to the end; not where it was asked to stop, or another worker is gone.

    Raises:
        UserFacingError: something the user gave does not fit.
    """
    rendezvous.meet_workers(strategy)
    try:
        with stop.blocked():
            distribution = devices.strategy_for(strategy)
        console = Console(silent=not devices.is_chief(distribution))
        # A dataset may have grown since this training began, which goes on with what it began with.
        pinned = model_folder.pinned_generations(model_dir)
        with damaged_records.open_dataset(
            dataset_dir, skip_damaged=skip_damaged, pinned=pinned
        ) as dataset:
            if skip_damaged:
                console.print(dataset.list_of_damaged())
            require(
                dataset.info.splits["train"].num_examples > 0,
                f"{dataset_dir}: the training split has no examples with a label",
            )
            model_folder.check(model_dir, config, dataset.info)
            begins_with = warm_start.of_training(
                init_from,
                reset_head=reset_head,
                model_dir=model_dir,
                config=config,
                info=dataset.info,
            )
            keras.utils.set_random_seed(config.seed)
            if config.deterministic:
                tf.config.experimental.enable_op_determinism()
            session = Session(
                Trainer(config, dataset.info, distribution),
                dataset_dir=dataset.folder,
                model_dir=model_dir,
                stop_asked=stop.has_come,
                console=console,
                begins_with=begins_with,
            )
            stop.wait_for_steps()
            with damaged_records.named(dataset.info, dataset.folder):
                if session.is_chief:
                    model_folder.require_bucket(export_dir)
                session.open()
                had_ended = session.has_ended()
                finished = (
                    session.run_epochs()
                    and session.evaluate()
                    and session.export(export_dir, unless_exported=had_ended)
                )
            # All leave together, and as the chief does: one that dies at its export, or is asked
            # to stop before it, is started again with the others.
            return bool(devices.broadcast(distribution, int(finished)))
    except tf.errors.OpError as error:
        devices.tell_of_lost_worker(error)
        return False


class Session:
    """The phases of a training run, one after the other: open, run_epochs, evaluate, export.

    Each phase but the first returns False if a worker was asked to stop before its end.

    Args:
        trainer: as it is constructed.
        dataset_dir: where the shards lie.
        model_dir: where checkpoints, metrics and the evaluation go.
        stop_asked: whether this worker has been asked to stop.
        console: prints for a person.
        begins_with: another training's weights, None to begin with new ones.

    Attributes:
        position: how far the run is.
        history: the metrics of each finished epoch.
        evaluation: of the best epoch on the test split, None without examples or before it.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        dataset_dir: str,
        model_dir: str,
        stop_asked: Callable[[], bool],
        console: Console,
        begins_with: WarmStart | None = None,
    ):
        self.trainer = trainer
        self.is_chief = devices.is_chief(trainer.strategy)
        self.position = Position()
        self.history: list[EpochMetrics] = []
        self.evaluation: Evaluation | None = None
        self._dataset_dir = dataset_dir
        self._model_dir = model_dir
        self._stop_asked = stop_asked
        self._console = console
        self._begins_with = begins_with
        self._checkpoints = model_folder.newest_checkpoints(model_dir)

    # ---- open

    def open(self) -> None:
        """Claims the model folder and restores what is in it.

        Raises:
            UserFacingError: the folder holds more epochs than the config asks for, all its
                checkpoints or its history are damaged, or it can't be written.
        """
        trainer, config, info = self.trainer, self.trainer.config, self.trainer.info
        train = info.splits["train"]
        passed_over = f", {train.unlabelled:,} without a label" if train.unlabelled else ""
        self._console.print(
            f"network: {config.network.title}, {trainer.model.count_params():,} parameters, on "
            f"{devices.in_words(trainer.strategy)}; {train.num_examples:,} training "
            f"examples{passed_over}"
        )
        resumed = resume.restore_state(trainer, self._checkpoints)
        self.position = position = resumed or Position()
        if resumed:
            steps = f" and {position.step} of {trainer.steps_an_epoch} steps" * bool(position.step)
            self._console.print(f"resumed after epoch {position.epoch}{steps} of {config.epochs}")
        elif self._begins_with is not None:
            source, record = self._begins_with.source, self._begins_with.record
            assert source is not None  # of a training that has not begun
            warm_start.begin(trainer, source, reset_head=record["reset_head"])
            self._console.print(warm_start.in_words(record, config))
        require(
            config.epochs >= position.epoch + (position.step > 0),
            f"config.epochs: {config.epochs}, but {self._model_dir} has been trained for "
            f"{position.epoch}",
        )
        self.history = model_folder.read_history(self._model_dir)[: position.epoch]
        require(
            len(self.history) == position.epoch,
            f"{self._model_dir}: metrics.jsonl has {len(self.history)} of the {position.epoch} "
            "epochs that are trained; bring it back, or take another --model_dir",
        )
        if self.is_chief:
            model_folder.claim(self._model_dir, config, info, warm_start=self.origin)

    @property
    def origin(self) -> dict[str, Any] | None:
        """What is recorded of the weights that it began with, None of new ones."""
        return None if self._begins_with is None else self._begins_with.record

    def has_ended(self) -> bool:
        """Returns whether all epochs are trained, or stopped early for want of improvement."""
        return has_ended(self.trainer.config, self.history)

    # ---- train

    def run_epochs(self, after_epoch: Callable[[EpochMetrics], bool] = lambda _: True) -> bool:
        """Trains the epochs that are left, each followed by a validation.

        Args:
            after_epoch: is given each epoch's metrics, and returns whether to train on.

        Raises:
            Diverged: a loss or weights are not finite.
        """
        trainer, config, info = self.trainer, self.trainer.config, self.trainer.info
        summaries = None
        if self.is_chief and not self.has_ended():
            summaries = Summaries(self._model_dir)
            if not self.history:
                summaries.write_samples(info, self._dataset_dir)
        trains_on, input_was_slow = True, False
        while trains_on and not self.has_ended():
            clock = EpochClock(
                self.position,
                epochs=config.epochs,
                steps_an_epoch=trainer.steps_an_epoch,
                console=self._console,
            )
            if not self._run_steps(clock):
                return self._stop_at_checkpoint()
            throughput = clock.throughput()
            validation = None
            if info.splits["validation"].num_examples:
                validation = trainer.predict(
                    self._dataset_dir, "validation", stop_asked=self._stop_asked
                )
                if validation is None:
                    return self._stop_at_checkpoint()
            epoch_metrics = measure_epoch(trainer, self.position, validation)
            self.history = [*self.history, epoch_metrics]
            clock.end(epoch_metrics)
            self.position = Position(epoch=self.position.epoch + 1)
            if summaries is not None:
                # First what the history will speak of, then the history that the checkpoint needs.
                if best_epoch(self.history, config.keep) == epoch_metrics.epoch:
                    model_folder.save_best(self._model_dir, epoch_metrics.epoch, trainer.model)
                model_folder.write_history(self._model_dir, self.history)
                model_folder.write_throughput(self._model_dir, throughput)
                resume.save_state(trainer, self._checkpoints, self.position)
                summaries.write_epoch(
                    epoch_metrics, throughput, validation, class_names=info.class_names
                )
                if throughput.utilisation < _LOW_UTILISATION and not input_was_slow:
                    input_was_slow = True
                    logging.warning("%s", input_stages.slowest(config, info, self._dataset_dir))
            trains_on = after_epoch(epoch_metrics)
        self._checkpoints.wait()
        if trains_on and self.history and len(self.history) < config.epochs:
            self._console.print(
                f"no better validation accuracy for {config.patience} epochs: ended early"
            )
        return True

    def _run_steps(self, clock: EpochClock) -> bool:
        """Trains the steps that are left of an epoch, with checkpoints by the clock."""
        trainer = self.trainer
        saved = time.monotonic()
        for progress in trainer.run_epoch(
            self._dataset_dir, self.position, stop_asked=self._stop_asked
        ):
            self.position = progress.position
            clock.update(progress)
            if not np.isfinite(self.position.loss):
                raise Diverged(self.position)
            if progress.stop:
                return False
            if self.is_chief and time.monotonic() - saved > trainer.config.checkpoint_seconds:
                # What is not finite all workers find together, in the next steps or after them.
                with contextlib.suppress(Diverged):
                    resume.save_state(trainer, self._checkpoints, self.position)
                saved = time.monotonic()
        return True

    def _stop_at_checkpoint(self) -> bool:
        """Writes a checkpoint of the position at which the run was asked to stop."""
        if self.is_chief:
            resume.save_state(self.trainer, self._checkpoints, self.position)
        self._checkpoints.wait()
        self._console.print(
            "stopped as asked; the checkpoint is written and the same command goes on"
        )
        return False

    # ---- evaluate

    def evaluate(self) -> bool:
        """Evaluates the best epoch on the test split; writes evaluation, curves and report."""
        trainer, info = self.trainer, self.trainer.info
        # The chief has written its file before any worker comes here: they take a step together.
        devices.broadcast(trainer.strategy, 0)
        model_folder.restore_best(self._model_dir, trainer.model)
        predictions = None
        if info.splits["test"].num_examples:
            predictions = trainer.predict(self._dataset_dir, "test", stop_asked=self._stop_asked)
            if predictions is None:
                return self._stop_at_evaluation()
        if not self.is_chief:
            return True
        curves = plots.learning_curves(
            self.history,
            best_epoch=best_epoch(self.history, trainer.config.keep),
            majority=metrics.majority_accuracy(info, "validation"),
        )
        model_folder.write_bytes(self._model_dir, "learning_curves.png", curves)
        if predictions is None:
            self._console.print(
                "the test split has no examples, so there is nothing to evaluate on"
            )
        else:
            importance = input_importance.measure(
                trainer.config,
                info,
                trainer.model.get_weights(),
                predictions,
                dataset_dir=self._dataset_dir,
                split="test",
                tell=self._console.draft,
                stop_asked=self._stop_asked,
            )
            if importance is None:
                return self._stop_at_evaluation()
            self.evaluation = split_evaluation.evaluate(
                trainer.config,
                info,
                predictions,
                dataset_dir=self._dataset_dir,
                split="test",
                importance=importance,
            )
            model_folder.write_evaluation(self._model_dir, "test", self.evaluation)
            num_artists = metrics.num_groups(predictions)
            self._console.print(
                report.table(self.evaluation, split="test", num_artists=num_artists)
            )
            if self.origin is not None:
                self._console.print(warm_start.in_words(self.origin, trainer.config))
        page = split_evaluation.write_report(
            trainer.config,
            info,
            model_dir=self._model_dir,
            dataset_dir=self._dataset_dir,
            split="test",
            num_parameters=trainer.model.count_params(),
            predictions=predictions,
            evaluation=self.evaluation,
        )
        self._console.print(f"report: {page}")
        return True

    def _stop_at_evaluation(self) -> bool:
        self._console.print("stopped as asked, at the evaluation; the same command goes on")
        return False

    # ---- export

    def export(self, export_dir: str, *, unless_exported: bool) -> bool:
        """Exports the evaluated network as the next version.

        Args:
            export_dir: where the versions lie.
            unless_exported: leaves it at the version that it was exported as, if there is one.
        """
        if not self.is_chief:
            return True
        if unless_exported and (before := self._exported_before(export_dir)) is not None:
            self._console.print(f"exported before: {before}")
            return True
        if self._stop_asked():
            return self._stop_before_export()
        trainer = self.trainer
        name = export_folder.candidate_of(self._model_dir)
        files.delete_folder(files.join(export_dir, name))  # what a run that was killed has left
        export.write_candidate(
            trainer.model.get_weights(),
            trainer.config,
            trainer.info,
            None if self.evaluation is None else self.evaluation.to_dict(),
            export_dir,
            dataset_dir=self._dataset_dir,
            origin={} if self.origin is None else {"init_from": self.origin},
            name=name,
        )
        try:
            exported = export.verify_and_release(
                name, export_dir, self._dataset_dir, stop_asked=self._stop_asked
            )
        except export.NotVerified:
            return self._stop_before_export()
        self._console.print(f"exported: {exported}")
        return True

    def _exported_before(self, export_dir: str) -> str | None:
        """Returns the newest version that has the network's weights, None where none has.

        Other trainings release their versions into the same folder. One that was withdrawn counts,
        which the same command should not release again.
        """
        weights = {weight.path: np.array(weight) for weight in self.trainer.model.weights}
        fingerprint = self.trainer.info.fingerprint
        for name in reversed(export_folder.numbered(export_dir)):
            path = files.join(export_dir, name)
            # One that can't be read is another's, or has to be exported again.
            with contextlib.suppress(UserFacingError):
                if export_folder.load_info(path).dataset_fingerprint != fingerprint:
                    continue
                there = warm_start.by_name(warm_start.read(path), self.trainer)
                if all(
                    weight in there and np.array_equal(there[weight], values)
                    for weight, values in weights.items()
                ):
                    return path
        return None

    def _stop_before_export(self) -> bool:
        self._console.print("stopped as asked, before the export; the same command goes on")
        return False


def has_ended(config: TrainConfig, history: Sequence[EpochMetrics]) -> bool:
    """Returns whether all epochs are trained, or `patience` of them brought nothing better."""
    if not history or not config.patience:
        return len(history) >= config.epochs
    waited = len(history) - best_epoch(history)
    return len(history) >= config.epochs or waited >= config.patience


def measure_epoch(
    trainer: Trainer, position: Position, validation: Predictions | None
) -> EpochMetrics:
    """Returns the metrics of an epoch whose steps are done.

    Args:
        trainer: after the epoch.
        position: after the last step.
        validation: the predictions for that split, None if it has no examples.

    Raises:
        Diverged: a loss or the weights after it are not finite.
    """
    loss = accuracy = None
    if validation is not None:
        loss, accuracy = metrics.cross_entropy(validation), float(validation.correct.mean())
    are_finite = np.isfinite([position.mean_loss, loss or 0.0]).all()
    if not (are_finite and resume.is_finite(trainer.state())):
        raise Diverged(position)
    return EpochMetrics(
        epoch=position.epoch + 1,
        loss=position.mean_loss,
        accuracy=position.accuracy,
        validation_loss=loss,
        validation_accuracy=accuracy,
        learning_rate=float(np.array(trainer.optimizer.learning_rate)),
    )
