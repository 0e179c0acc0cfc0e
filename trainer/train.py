r"""Trains a network on a dataset, keeps its best epoch, evaluates that on the test split, exports.

python -m trainer.train --config=configs/six_conv_rgb.py --dataset_dir=dataset --model_dir=model

The same command again goes on where it stopped. What lies in --model_dir: `model_folder.py`.
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from beam_pipelines import command
from beam_pipelines.command import require
from trainer import dataset, evaluation, export, loop, model_folder, plots
from trainer.train_config import TrainConfig

_CONFIG = command.define_config("configs/six_conv_rgb.py")
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Where checkpoints, metrics and evaluation go.", required=True
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where the export goes; <model_dir>/export unless given."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ("auto", "one_device", "mirrored"),
    "mirrored: all GPUs, or all CPU devices where there is none; auto: mirrored if several.",
)


def main(argv: list[str]) -> None:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --model_dir=model")
    config = TrainConfig.from_dict(command.config_values(_CONFIG))
    dataset_dir, model_dir = _DATASET_DIR.value.rstrip("/"), _MODEL_DIR.value.rstrip("/")
    info = dataset.load_info(dataset_dir)
    require(
        info.splits["train"].num_examples > 0, f"{dataset_dir}: the training split has no examples"
    )
    model_folder.check(model_dir, config, info)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()

    # ---- the network
    trainer = loop.Trainer(config, info, loop.strategy_for(_STRATEGY.value))
    print(
        f"network: {config.network.convolutions} convolutions, {config.network.color}, "
        f"{trainer.model.count_params():,} parameters, on {loop.devices_in(trainer.strategy)}; "
        f"{info.splits['train'].num_examples:,} training examples",
        flush=True,
    )

    # ---- where it stopped
    newest = model_folder.checkpoints(model_dir, "checkpoints", keep=2, **trainer.state)
    best = model_folder.checkpoints(model_dir, "best", keep=2, model=trainer.model)
    first_epoch = 0
    if newest.latest_checkpoint:
        first_epoch = int(newest.latest_checkpoint.rpartition("-")[2])
        require(
            config.epochs >= first_epoch,
            f"config.epochs: {config.epochs}, but {model_dir} has been trained for {first_epoch}",
        )
        newest.checkpoint.restore(newest.latest_checkpoint).assert_existing_objects_matched()
        print(f"resumed after epoch {first_epoch} of {config.epochs}", flush=True)
    model_folder.claim(model_dir, config, info)
    history = model_folder.read_history(model_dir)[:first_epoch]

    # ---- train
    with dataset.damage_named(dataset_dir):
        for epoch in range(first_epoch, config.epochs):
            history.append(train_epoch(trainer, dataset_dir, epoch))
            model_folder.write_history(model_dir, history)
            if model_folder.best_epoch(history) == epoch + 1:
                best.save(checkpoint_number=epoch + 1)
            newest.save(checkpoint_number=epoch + 1)
    curves = plots.learning_curves(
        history,
        best_epoch=model_folder.best_epoch(history),
        majority=evaluation.majority_accuracy(info, "validation"),
    )
    model_folder.write_bytes(model_dir, "learning_curves.png", curves)

    # ---- evaluate the best epoch
    model_folder.restore_best(model_dir, trainer.model)
    test = None
    if info.splits["test"].num_examples:
        with dataset.damage_named(dataset_dir):
            answers = trainer.predictions(dataset_dir, "test")
            training = dataset.read_columns(info, dataset_dir, "train", ["label", "genre"])
        test = evaluation.evaluate(answers, training, info.class_names)
        model_folder.write_evaluation(model_dir, "test", test)
        num_artists = info.splits["test"].num_artists
        print(evaluation.table(test, split="test", num_artists=num_artists))
    else:
        print("the test split has no examples, so there is nothing to evaluate on")

    # ---- export
    export_dir = _EXPORT_DIR.value or model_folder.path(model_dir, "export")
    version = export.newest_version(export_dir)
    if first_epoch == config.epochs and version is not None:
        print(f"exported before: {version}")
        return
    weights = trainer.model.get_weights()
    print(f"exported: {export.export_model(weights, config, info, test, export_dir)}")


def train_epoch(trainer: loop.Trainer, dataset_dir: str, epoch: int) -> dict:
    """Trains for an epoch, counted from 0, and validates; its line of the history.

    Raises:
        InputError: the loss is not finite.
    """
    progress = ProgressLine(epoch, trainer.config.epochs)
    started = time.monotonic()
    means = trainer.train_epoch(dataset_dir, epoch, progress.update)
    seconds = time.monotonic() - started
    validation = {"loss": None, "accuracy": None}
    if trainer.info.splits["validation"].num_examples:
        validation = evaluation.loss_and_accuracy(trainer.predictions(dataset_dir, "validation"))
    require(
        np.isfinite([means["loss"], validation["loss"] or 0]).all(),
        f"epoch {epoch + 1}: the loss is not finite; lower --config.learning_rate",
    )
    line = {
        "epoch": epoch + 1,
        **means,
        **{f"validation_{name}": value for name, value in validation.items()},
        "seconds": round(seconds, 3),
        "examples_per_second": round(trainer.info.splits["train"].num_examples / seconds, 1),
    }
    progress.end(line)
    return line


class ProgressLine:
    """A line that is drawn over on a terminal, and printed once an epoch elsewhere."""

    def __init__(self, epoch: int, epochs: int):
        self._epoch = epoch
        self._epochs = epochs
        self._head = f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"
        self._started = time.monotonic()

    def update(self, step: int, num_steps: int, means: dict[str, float]) -> None:
        if not sys.stdout.isatty():
            return
        seconds = time.monotonic() - self._started
        left = seconds / step * (num_steps - step + num_steps * (self._epochs - self._epoch - 1))
        print(
            f"\r{self._head}  step {step}/{num_steps}  loss {means['loss']:.3f}  "
            f"accuracy {100 * means['accuracy']:.1f} %  {left:.0f} s left\033[K",
            end="",
            flush=True,
        )

    def end(self, line: dict) -> None:
        validation = ""
        if line["validation_accuracy"] is not None:
            validation = (
                f"  validation {line['validation_loss']:.3f} "
                f"{100 * line['validation_accuracy']:.1f} %"
            )
        left = line["seconds"] * (self._epochs - self._epoch - 1)
        overdraw = "\r" if sys.stdout.isatty() else ""
        print(
            f"{overdraw}{self._head}  loss {line['loss']:.3f}  "
            f"accuracy {100 * line['accuracy']:.1f} %{validation}  "
            f"{line['examples_per_second']:.0f} examples/s  {left:.0f} s left",
            end="\033[K\n" if overdraw else "\n",
            flush=True,
        )


if __name__ == "__main__":
    command.run(main)
