"""Hyperparameter search by the accuracy on the validation split alone.

The trials are Optuna's: after some at random its sampler (TPE: Bergstra et al., Algorithms for
Hyper-Parameter Optimization, 2011) draws where earlier trials did well, and its pruner stops one
that is worse than their median. A trial depends on the seed and on the results of those before it,
so with `deterministic` the same sweep has the same trials, resumed or not.
"""

import dataclasses
import gc
import json
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import optuna
import tensorflow as tf
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from common import dataset_reader, tables
from common.config import differences
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from trainer.data import damaged_records
from trainer.evaluation import plots
from trainer.evaluation.epochs import EpochMetrics, best_epoch
from trainer.run import cluster, devices, model_folder
from trainer.run.loop import Diverged, Trainer
from trainer.run.progress import Console
from trainer.run.session import Session
from trainer.train_config import TrainConfig

_SPLITS = ("train", "validation")
_STUDY = "sweep"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """The search space.

    Attributes:
        learning_rates: the lowest and the highest.
        batch_sizes: all there are.
        dropouts: the lowest and the highest.
    """

    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    dropouts: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("learning_rates", "dropouts"):
            values = getattr(self, name)
            require(
                len(values) == 2 and values[0] <= values[1],
                f"--{name}={','.join(map(str, values))}: the lowest and the highest",
            )
        sizes = self.batch_sizes
        require(
            bool(sizes) and len(set(sizes)) == len(sizes),
            f"--batch_sizes={','.join(map(str, sizes))}: different sizes",
        )

    def check(self, config: TrainConfig, *, num_replicas: int) -> None:
        """Raises UserFacingError if some of it is not possible on so many replicas."""
        for size in self.batch_sizes:
            require(
                size % num_replicas == 0,
                f"--batch_sizes: {size} can't be shared by {num_replicas} replicas",
            )
            for rate, dropout in zip(self.learning_rates, self.dropouts, strict=True):
                dataclasses.replace(config, **settings_of(rate, size, dropout))

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Returns a trial's settings, the same each time."""
        return settings_of(
            trial.suggest_float("learning_rate", *self.learning_rates, log=True),
            trial.suggest_categorical("batch_size", self.batch_sizes),
            trial.suggest_float("dropout", *self.dropouts),
        )


def settings_of(learning_rate: float, batch_size: int, dropout: float) -> dict[str, Any]:
    """Returns keys of a config, rounded to digits that a person would type."""
    return {
        "learning_rate": float(f"{learning_rate:.3g}"),
        "batch_size": batch_size,
        "dropout": float(f"{dropout:.2g}"),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The result of a search: its Markdown table and the settings of the best trial."""

    table: str
    best: dict[str, Any]


def run(
    config: TrainConfig,
    space: Space,
    *,
    dataset_dir: str,
    output_dir: str,
    num_trials: int,
    startup_trials: int,
    seed: int,
    strategy: str,
    stop_asked: Callable[[], bool],
) -> Found | None:
    """Searches, or resumes, until there are so many trials; returns None if asked to stop.

    Raises:
        UserFacingError: something the user gave does not fit, or no trial came to its end.
    """
    # First of all, since the strategy would wait for the other workers.
    require(cluster.num_all_workers() < 2, "TF_CONFIG: a sweep is for one process")
    distribution = devices.strategy_for(strategy)
    info = without_test(dataset_reader.load_dataset_info(dataset_dir, check_shards_of=_SPLITS))
    for name, split in info.splits.items():
        require(split.num_examples > 0, f"{dataset_dir}: the {name} split has no examples")
    space.check(config, num_replicas=distribution.num_replicas_in_sync)
    identity = {
        "config": config.to_dict(),
        "dataset": {"fingerprint": info.fingerprint},
        "space": json.loads(json.dumps(dataclasses.asdict(space))),
        "startup_trials": startup_trials,
        "seed": seed,
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tf.get_logger().setLevel("ERROR")  # it warns of functions that are traced for each trial
    pruner = optuna.pruners.MedianPruner(startup_trials, n_warmup_steps=config.epochs // 10)
    study = open_study(output_dir, identity, pruner)
    with damaged_records.named(info, dataset_dir):
        while True:
            number = next_number(study)
            if number >= num_trials:
                break
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=startup_trials,
                seed=int(np.random.default_rng([seed, number]).integers(2**31)),
            )
            trial = trial_of(study, number)
            settings = space.draw(trial)
            words = ", ".join(f"{name} {value:g}" for name, value in settings.items())
            print(f"trial {number + 1} of {num_trials}: {words}", flush=True)
            keras.backend.clear_session()  # else the names of a later optimizer's variables differ
            gc.collect()
            keras.utils.set_random_seed(config.seed)
            if config.deterministic:
                tf.config.experimental.enable_op_determinism()
            ended = run_trial(
                trial,
                dataclasses.replace(config, **settings),
                info,
                distribution,
                dataset_dir=dataset_dir,
                folder=folder_of(output_dir, number),
                stop_asked=stop_asked,
            )
            if not ended:
                return None
    return write(study, output_dir, identity)


def without_test(info: DatasetInfo) -> DatasetInfo:
    """Returns a dataset's description without the test split, so that nothing can read it."""
    return dataclasses.replace(info, splits={name: info.splits[name] for name in _SPLITS})


def open_study(
    output_dir: str, identity: dict[str, Any], pruner: optuna.pruners.BasePruner
) -> optuna.Study:
    """Opens the search in a folder, or makes a new one.

    Raises:
        UserFacingError: there is another, or the folder can't be written.
    """
    try:
        os.makedirs(output_dir, exist_ok=True)
        storage = optuna.storages.JournalStorage(
            JournalFileBackend(os.path.join(output_dir, "trials.journal"))
        )
        study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        if "identity" not in study.user_attrs:
            study.set_user_attr("identity", identity)
    except OSError as error:
        raise UserFacingError(f"{output_dir}: can't be written ({error.strerror})") from None
    found = differences(study.user_attrs["identity"], identity)
    require(
        not found,
        f"{output_dir} holds another sweep: {'; '.join(found)}; take another --output_dir",
    )
    return study


def next_number(study: optuna.Study) -> int:
    """Returns the number of the trial to resume or begin; all before it have ended."""
    trials = study.get_trials(deepcopy=False)
    return len(trials) - bool(trials and trials[-1].state == TrialState.RUNNING)


def trial_of(study: optuna.Study, number: int) -> optuna.Trial:
    """Returns the trial of a number, begun or resumed."""
    trials = study.get_trials(deepcopy=False)
    if number == len(trials):
        return study.ask()
    return optuna.Trial(study, trials[number]._trial_id)  # Optuna has no public way


def folder_of(output_dir: str, number: int) -> str:
    """Returns the folder of a trial; Optuna numbers them from 0, people and files from 1."""
    return os.path.join(output_dir, "trials", f"{number + 1:03}")


def run_trial(
    trial: optuna.Trial,
    config: TrainConfig,
    info: DatasetInfo,
    strategy: tf.distribute.Strategy,
    *,
    dataset_dir: str,
    folder: str,
    stop_asked: Callable[[], bool],
) -> bool:
    """Trains a trial until it ends or is pruned; returns False if it was asked to stop."""
    console = Console(prefix=f"[trial {trial.number + 1}] ")

    def trains_on(epoch: EpochMetrics) -> bool:
        reported = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch.epoch not in reported:  # by a process that was killed then
            # A sweep needs a validation split, so there is an accuracy.
            trial.report(float(epoch.validation_accuracy or 0.0), epoch.epoch)
        return not trial.should_prune()

    outcome, history = "to the end", []
    try:
        session = Session(
            Trainer(config, info, strategy),
            dataset_dir=dataset_dir,
            model_dir=folder,
            stop_asked=stop_asked,
            console=console,
        )
        session.open()
        may_begin = not session.history or trains_on(session.history[-1])
        if may_begin and not session.run_epochs(after_epoch=trains_on):
            return False
        history = session.history
        if not session.has_ended():
            outcome = "stopped early"
    except Diverged:
        outcome = "diverged"
    except tf.errors.ResourceExhaustedError:
        outcome = "out of memory"
    trial.set_user_attr("outcome", outcome)
    if outcome == "to the end":
        trial.study.tell(trial, history[best_epoch(history) - 1].validation_accuracy)
    else:
        trial.study.tell(trial, state=TrialState.PRUNED)
    console.print(outcome)
    for name in ("checkpoints", "best"):  # many, large, and of no more use
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    return True


def write(study: optuna.Study, output_dir: str, identity: dict[str, Any]) -> Found:
    """Writes `sweep.json`, `sweep.md` and `sweep.png`.

    Raises:
        UserFacingError: no trial came to its end.
    """
    trials = [
        of_trial(trial, folder_of(output_dir, trial.number))
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()  # one may have been stopped, and now fewer asked for
    ]
    ended = [trial for trial in trials if trial["outcome"] == "to the end"]
    require(
        bool(ended), f"{output_dir}: no trial came to its end; take lower --learning_rates, or more"
    )
    best = max(ended, key=lambda trial: (trial["validation_accuracy"], -trial["number"]))
    text = markdown(trials, best=best)
    values = identity | {"best": best["number"], "trials": trials}
    model_folder.write_text(output_dir, "sweep.json", json.dumps(values, indent=2) + "\n")
    model_folder.write_text(output_dir, "sweep.md", text)
    model_folder.write_bytes(output_dir, "sweep.png", plots.trials(trials, best=best["number"]))
    return Found(table=text, best={name: best[name] for name in settings_of(1, 1, 0)})


def of_trial(trial: optuna.trial.FrozenTrial, folder: str) -> dict[str, Any]:
    """Returns the figures of a finished trial; `curve` is its validation accuracy by epoch."""
    history = model_folder.read_history(folder)
    curve = [accuracy for _, accuracy in sorted(trial.intermediate_values.items())]
    return {
        "number": trial.number + 1,
        "outcome": trial.user_attrs["outcome"],
        **settings_of(**trial.params),
        "validation_accuracy": max(curve, default=None),
        "best_epoch": best_epoch(history) if history else None,
        "epochs": len(curve),
        "seconds": round(sum(each.seconds for each in model_folder.read_throughput(folder)), 3),
        "curve": curve,
    }


def markdown(trials: Sequence[dict[str, Any]], *, best: dict[str, Any]) -> str:
    """Formats all trials, from the best validation accuracy, as a Markdown document."""
    outcomes = [trial["outcome"] for trial in trials]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
    rows = [
        (
            f"{trial['number']}{' (best)' if trial is best else ''}",
            f"{trial['learning_rate']:g}",
            str(trial["batch_size"]),
            f"{trial['dropout']:g}",
            tables.percent(trial["validation_accuracy"]),
            "" if trial["best_epoch"] is None else str(trial["best_epoch"]),
            str(trial["epochs"]),
            tables.duration(trial["seconds"]),
            trial["outcome"],
        )
        for trial in sorted(trials, key=lambda t: (-(t["validation_accuracy"] or 0), t["number"]))
    ]
    header = (
        "trial",
        "learning rate",
        "batch",
        "dropout",
        "validation",
        "best epoch",
        "epochs",
        "time",
        "trained",
    )
    return (
        f"# Sweep\n\n{len(trials)} trials: {counts}. The accuracy is that of the best epoch on the "
        "validation split; the test split was not read.\nThe best of many is flattered by chance: "
        "only the test tells how good it is.\n\n" + tables.markdown(header, rows)
    )
