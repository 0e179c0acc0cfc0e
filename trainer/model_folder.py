"""What lies in --model_dir: how the network is trained, checkpoints, history, evaluation.

    training.json          config, and what the dataset is like
    checkpoints/           the newest states of network and optimizer
    best/                  the state with the best validation accuracy
    metrics.jsonl          a line an epoch
    learning_curves.png    the same as a picture
    evaluation.json        of the best state on the test split

All of it may be on gs://.
"""

import json
from typing import Any

import tensorflow as tf

from beam_pipelines.command import InputError, differences, require
from beam_pipelines.dataset_info import DatasetInfo
from trainer.train_config import TrainConfig

_TRAINING = "training.json"
_HISTORY = "metrics.jsonl"


def path(model_dir: str, name: str) -> str:
    return tf.io.gfile.join(model_dir, name)


def write_bytes(model_dir: str, name: str, data: bytes) -> None:
    """Writes a file under a temporary name, then renames it."""
    temporary = path(model_dir, f".tmp-{name}")
    with tf.io.gfile.GFile(temporary, "wb") as file:
        file.write(data)
    tf.io.gfile.rename(temporary, path(model_dir, name), overwrite=True)


def write_text(model_dir: str, name: str, text: str) -> None:
    write_bytes(model_dir, name, text.encode())


def read_text(model_dir: str, name: str) -> str | None:
    """The text of a file, None where there is none."""
    if not tf.io.gfile.exists(path(model_dir, name)):
        return None
    with tf.io.gfile.GFile(path(model_dir, name)) as file:
        return file.read()


def check(model_dir: str, config: TrainConfig, info: DatasetInfo) -> None:
    """Raises InputError if the folder holds another training; the message says what differs."""
    text = read_text(model_dir, _TRAINING)
    if text is None or tf.train.latest_checkpoint(path(model_dir, "checkpoints")) is None:
        return  # nothing has been trained there yet
    # With more epochs it is the same training, going on.
    found = differences(json.loads(text), _identity(config, info), ignore="epochs")
    require(
        not found,
        f"{model_dir} holds another training: {'; '.join(found)}; take another --model_dir",
    )


def claim(model_dir: str, config: TrainConfig, info: DatasetInfo) -> None:
    """Makes the folder this training's; InputError if it can't be written."""
    try:
        tf.io.gfile.makedirs(model_dir)
        text = json.dumps(_identity(config, info), indent=2) + "\n"
        write_text(model_dir, _TRAINING, text)
    except tf.errors.OpError as error:
        raise InputError(f"{model_dir}: can't be written ({error.message})") from None


def load_config(model_dir: str, info: DatasetInfo) -> TrainConfig:
    """The config of the network in a folder.

    Raises:
        InputError: there is none, or it was trained on another dataset, whose split may have had
            these records on the other side.
    """
    text = read_text(model_dir, _TRAINING)
    if text is None:
        raise InputError(f"{model_dir}: no {_TRAINING}; --model_dir is what trainer.train made")
    values = json.loads(text)
    config = TrainConfig.from_dict(values["config"])
    expected = _identity(config, info)["dataset"]
    found = differences(values["dataset"], expected)
    require(not found, f"{model_dir} was trained on another dataset: {'; '.join(found)}")
    return config


def _identity(config: TrainConfig, info: DatasetInfo) -> dict[str, Any]:
    return {
        "config": config.to_dict(),
        "dataset": {
            "fingerprint": info.fingerprint,
            "shape": list(info.config.spectrogram.shape),
            "class_names": list(info.class_names),
        },
    }


def checkpoints(model_dir: str, name: str, *, keep: int, **state) -> tf.train.CheckpointManager:
    """Checkpoints of `state` in the folder `name`: `checkpoints` or `best`."""
    return tf.train.CheckpointManager(
        tf.train.Checkpoint(**state), path(model_dir, name), max_to_keep=keep
    )


def restore_best(model_dir: str, model) -> None:
    """Sets a network's weights to those of the best epoch.

    Raises:
        InputError: no epoch is finished yet.
    """
    history = read_history(model_dir)
    require(bool(history), f"{model_dir}: no finished epoch yet; run trainer.train")
    manager = checkpoints(model_dir, "best", keep=2, model=model)
    manager.checkpoint.restore(path(model_dir, f"best/ckpt-{best_epoch(history)}")).expect_partial()


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """The metrics of each epoch so far."""
    return [json.loads(line) for line in (read_text(model_dir, _HISTORY) or "").splitlines()]


def write_history(model_dir: str, history: list[dict[str, Any]]) -> None:
    write_text(
        model_dir, _HISTORY, "".join(json.dumps(line, allow_nan=False) + "\n" for line in history)
    )


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch, from 1, of the best validation accuracy, the lower loss deciding a tie.

    Without a validation split it is the last one.
    """

    def rank(line):
        if line["validation_accuracy"] is None:
            return (line["epoch"],)
        return line["validation_accuracy"], -line["validation_loss"]

    return max(history, key=rank)["epoch"]


def write_evaluation(model_dir: str, split: str, evaluation: dict[str, Any]) -> str:
    """Writes the evaluation of a split; the path of the file."""
    name = "evaluation.json" if split == "test" else f"evaluation_{split}.json"
    write_text(model_dir, name, json.dumps(evaluation, indent=2) + "\n")
    return path(model_dir, name)
