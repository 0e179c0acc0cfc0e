"""What lies in --model_dir: how the network is trained, checkpoints, history, evaluation.

    training.json          config, and what the dataset is like
    checkpoints/           the newest states of network, optimizer and place in the dataset
    best/                  the weights with the best validation accuracy
    metrics.jsonl          a line an epoch
    throughput.jsonl       how fast each epoch was, which no two runs agree on
    tensorboard/           both, and pictures, for TensorBoard
    learning_curves.png    the metrics as a picture
    evaluation.json        of the best state on the test split
    report.html            all of this for people

All of it may be on gs://.
"""

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_pipelines.command import InputError, differences, require
from beam_pipelines.dataset_info import DatasetInfo
from trainer.checkpoints import Checkpoints
from trainer.train_config import TrainConfig

_TRAINING = "training.json"
_HISTORY = "metrics.jsonl"
_THROUGHPUT = "throughput.jsonl"


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
    if text is None or not newest_checkpoints(model_dir).numbers():
        return  # nothing has been trained there yet
    found = differences(
        json.loads(text), _identity(config, info), ignore=config.settings_that_may_change
    )
    require(
        not found,
        f"{model_dir} holds another training: {'; '.join(found)}; take another folder",
    )


def require_bucket(folder: str) -> None:
    """Raises InputError if a folder is in a bucket that is not there, or can't be listed."""
    if "://" not in folder:
        return
    try:
        tf.io.gfile.glob(path(folder, "*"))
    except tf.errors.NotFoundError:
        raise InputError(f"{'/'.join(folder.split('/')[:3])}: no such bucket") from None
    except tf.errors.OpError as error:
        raise InputError(f"{folder}: can't be read ({one_line(error)})") from None


def claim(model_dir: str, config: TrainConfig, info: DatasetInfo) -> None:
    """Makes the folder this training's; InputError if it can't be written."""
    require_bucket(model_dir)
    try:
        if "://" not in model_dir:  # whose makedirs looks for ever for a bucket that is not there
            tf.io.gfile.makedirs(model_dir)
        text = json.dumps(_identity(config, info), indent=2) + "\n"
        write_text(model_dir, _TRAINING, text)
    except tf.errors.OpError as error:
        raise InputError(f"{model_dir}: can't be written ({one_line(error)})") from None


def one_line(error: tf.errors.OpError) -> str:
    """What TensorFlow says is wrong, which for a bucket is a few lines."""
    return " ".join(error.message.split())


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


def newest_checkpoints(model_dir: str) -> Checkpoints:
    """The states that a training goes on from, numbered by the steps done."""
    return Checkpoints(path(model_dir, "checkpoints"))


def best_checkpoints(model_dir: str) -> Checkpoints:
    """The weights of the best epochs so far, numbered by epoch, from 1."""
    return Checkpoints(path(model_dir, "best"))


def save_best(model_dir: str, epoch: int, model: keras.Model) -> None:
    """Writes the weights of an epoch, counted from 1; returns when they are written."""
    checkpoints = best_checkpoints(model_dir)
    checkpoints.save(epoch, {weight.path: np.array(weight) for weight in model.weights})
    checkpoints.wait()


def restore_best(model_dir: str, model: keras.Model) -> None:
    """Sets a network's weights to those of the best epoch.

    Raises:
        InputError: no epoch is finished yet, or the weights are damaged.
    """
    history = read_history(model_dir)
    epoch = best_epoch(history) if history else None
    checkpoints = best_checkpoints(model_dir)
    require(
        epoch in checkpoints.numbers(), f"{model_dir}: no finished epoch yet; run trainer.train"
    )
    arrays = checkpoints.load(epoch)
    for weight in model.weights:
        weight.assign(arrays[weight.path])


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """The metrics of each epoch so far."""
    return [json.loads(line) for line in (read_text(model_dir, _HISTORY) or "").splitlines()]


def write_history(model_dir: str, history: list[dict[str, Any]]) -> None:
    write_text(
        model_dir, _HISTORY, "".join(json.dumps(line, allow_nan=False) + "\n" for line in history)
    )


def read_throughput(model_dir: str) -> list[dict[str, Any]]:
    """How fast each epoch was."""
    return [json.loads(line) for line in (read_text(model_dir, _THROUGHPUT) or "").splitlines()]


def write_throughput(model_dir: str, line: dict[str, Any]) -> None:
    """Adds how fast an epoch was; one that is trained again replaces itself and those after it."""
    lines = [there for there in read_throughput(model_dir) if there["epoch"] < line["epoch"]] + [
        line
    ]
    write_text(model_dir, _THROUGHPUT, "".join(json.dumps(line) + "\n" for line in lines))


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
    text = json.dumps(evaluation, indent=2, allow_nan=False) + "\n"
    return _write_of_split(model_dir, split, "evaluation.json", text)


def read_evaluation(model_dir: str, split: str) -> dict[str, Any]:
    """The evaluation of a split; InputError where there is none."""
    text = read_text(model_dir, _name_of_split(split, "evaluation.json"))
    require(text is not None, f"{model_dir}: not evaluated on {split}; run trainer.evaluate")
    return json.loads(text)


def write_report(model_dir: str, split: str, html: str) -> str:
    """Writes the report on a split; the path of the file."""
    return _write_of_split(model_dir, split, "report.html", html)


def _write_of_split(model_dir: str, split: str, name: str, text: str) -> str:
    name = _name_of_split(split, name)
    write_text(model_dir, name, text)
    return path(model_dir, name)


def _name_of_split(split: str, name: str) -> str:
    """`name`, or `stem_split.suffix` for another split than the test's."""
    if split == "test":
        return name
    stem, _, suffix = name.rpartition(".")
    return f"{stem}_{split}.{suffix}"
