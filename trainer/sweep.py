r"""Searches learning rate, batch size and dropout of a network by its validation accuracy.

python -m trainer.sweep --config=configs/six_conv_rgb.py --dataset_dir=dataset --output_dir=sweep \
    --trials=30 --config.epochs=30

A trial is a training run of its own; one that does worse than the median of those before it, at
the same epoch, is pruned. The test split is not read and need not be there, so the best settings
may still be measured on it: the command of that run is printed at the end. The same command resumes
where it stopped, also with more --trials. In --output_dir:

    trials.journal          Optuna's journal: what each trial was given and reached
    trials/<number>/        the history of each trial, as trainer.train leaves it
    sweep.md, .json, .png   all trials as a table, as values and as a plot
"""

import shlex
from collections.abc import Sequence
from typing import Any, TypeVar

from absl import flags
from ml_collections import config_flags

from common import command, files, lock
from common.errors import UserFacingError, require
from trainer.run.stop_signal import EXIT_STOPPED, Stopped, StopSignal
from trainer.train_config import TrainConfig

_Number = TypeVar("_Number", int, float)

_CONFIG = command.define_config("configs/six_conv_rgb.py")
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Where the trials and their table go, on a local disk.", required=True
)
_TRIALS = flags.DEFINE_integer("trials", 20, "How many trials in all.", lower_bound=1)
_STARTUP_TRIALS = flags.DEFINE_integer(
    "startup_trials",
    5,
    "How many are drawn at random and trained to the end before any is stopped early.",
    lower_bound=1,
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the search.", lower_bound=0)
_LEARNING_RATES = flags.DEFINE_list(
    "learning_rates", ["1e-5", "1e-2"], "The lowest and the highest, drawn by their logarithm."
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["8", "16", "32", "64", "128"], "All there are.")
_DROPOUTS = flags.DEFINE_list("dropouts", ["0", "0.7"], "The lowest and the highest.")
_STRATEGY = flags.DEFINE_enum(
    "strategy", "auto", ("auto", "one_device", "mirrored"), "As trainer.train has it."
)
_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)


def main(argv: list[str]) -> int:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --output_dir=sweep")
    stop = StopSignal()
    stop.listen()
    try:
        return sweep(stop)
    except Stopped:
        print("stopped as asked, before a trial began; the same command goes on", flush=True)
        return EXIT_STOPPED


def sweep(stop: StopSignal) -> int:
    """Searches as the flags say and returns the exit code."""
    config = TrainConfig.from_dict(command.config_values(_CONFIG))
    output_dir = _OUTPUT_DIR.value.rstrip("/")
    require(not files.is_remote(output_dir), f"--output_dir={output_dir}: must be on a local disk")
    learning_rates = numbers_of(_LEARNING_RATES, float)
    batch_sizes = numbers_of(_BATCH_SIZES, int)
    dropouts = numbers_of(_DROPOUTS, float)
    with command.kept_back_stderr():
        from trainer.experiments import (
            search,  # here, since a mistake in a flag should not wait for it
        )
    stop.wait_for_steps()
    with lock.hold(output_dir, force=_FORCE_UNLOCK.value):
        found = search.run(
            config,
            search.Space(learning_rates=learning_rates, batch_sizes=batch_sizes, dropouts=dropouts),
            dataset_dir=_DATASET_DIR.value.rstrip("/"),
            output_dir=output_dir,
            num_trials=_TRIALS.value,
            startup_trials=_STARTUP_TRIALS.value,
            seed=_SEED.value,
            strategy=_STRATEGY.value,
            stop_asked=stop.has_come,
        )
    if found is None:
        return EXIT_STOPPED
    print(f"\n{found.table}")
    print(f"written: {output_dir}/sweep.md, sweep.json, sweep.png")
    print("the best trial, to be trained for the test split:")
    print(train_command(found.best))
    return 0


def numbers_of(holder: flags.FlagHolder[list[str]], kind: type[_Number]) -> tuple[_Number, ...]:
    """Returns the numbers that a flag lists."""
    try:
        return tuple(kind(word) for word in holder.value)
    except ValueError:
        words = ",".join(holder.value)
        raise UserFacingError(f"--{holder.name}={words}: not a list of numbers") from None


def train_command(settings: dict[str, Any]) -> str:
    """Returns the command that trains with these settings and what else was set for this sweep."""
    flag = flags.FLAGS["config"]
    values = config_flags.get_override_values(flag) | settings
    words: Sequence[str] = (
        "python",
        "-m",
        "trainer.train",
        f"--config={config_flags.get_config_filename(flag)}",
        *(f"--config.{key}={value}" for key, value in values.items()),
        f"--dataset_dir={_DATASET_DIR.value}",
        "--model_dir=model",
    )
    return shlex.join(words)


if __name__ == "__main__":
    command.run(main)
