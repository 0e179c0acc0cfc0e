"""The files of --model_dir: config, checkpoints, metrics, evaluation, report.

    training.json          config, the dataset's fingerprint, shape and classes, what the network
                           takes, and from what a warm start began
    checkpoints/           the newest states of network, optimizer and position in the epoch
    best/                  the weights with the best validation accuracy
    metrics.jsonl          a line an epoch
    throughput.jsonl       how fast each epoch was, which no two runs agree on
    tensorboard/           both, and pictures, for TensorBoard
    learning_curves.png    the metrics as a picture
    evaluation.json        of the best state on the test split
    report.html            all of this as a page

All of it may be on gs://.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np

from common import files
from common.config import differences
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, one_line, require
from trainer.evaluation.epochs import EpochMetrics, EpochThroughput, best_epoch
from trainer.evaluation.metrics import Evaluation
from trainer.model import network
from trainer.run.checkpoints import Arrays, Checkpoints, Damaged
from trainer.train_config import TrainConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Line = TypeVar("_Line", EpochMetrics, EpochThroughput)

TRAINING_FILE = "training.json"
_HISTORY = "metrics.jsonl"
_THROUGHPUT = "throughput.jsonl"


def path(model_dir: str, name: str) -> str:
    return files.join(model_dir, name)


def write_bytes(model_dir: str, name: str, data: bytes) -> None:
    """Writes a file, so that it is there whole or not at all."""
    files.write_atomically(model_dir, name, data)


def write_text(model_dir: str, name: str, text: str) -> None:
    write_bytes(model_dir, name, text.encode())


def read_text(model_dir: str, name: str) -> str | None:
    """Returns the text of a file, None where there is none; UserFacingError if it is no text."""
    try:
        return files.read_text(path(model_dir, name))
    except (FileNotFoundError, NotADirectoryError):  # a file is where the folder should be
        return None
    except UnicodeDecodeError as error:
        raise _damaged(model_dir, name, error) from None


def holds_training(model_dir: str) -> bool:
    """Returns whether a training was begun in a folder."""
    return files.exists(path(model_dir, TRAINING_FILE))


def has_begun(model_dir: str) -> bool:
    """Returns whether there is a training in a folder that has a checkpoint to resume from."""
    return holds_training(model_dir) and bool(newest_checkpoints(model_dir).numbers())


def description(model_dir: str) -> dict[str, Any]:
    """Returns what `training.json` says, nothing without one; UserFacingError if damaged."""
    text = read_text(model_dir, TRAINING_FILE)
    return {} if text is None else _of_json(model_dir, TRAINING_FILE, text)


def warm_start_of(model_dir: str) -> dict[str, Any] | None:
    """Returns from what the training in a folder began, None if from new weights."""
    found: dict[str, Any] | None = description(model_dir).get("init_from")
    return found


def check(model_dir: str, config: TrainConfig, info: DatasetInfo) -> None:
    """Raises UserFacingError if the folder holds another training run, saying what differs."""
    if not has_begun(model_dir):
        return  # nothing has been trained there yet
    described = description(model_dir)
    found = differences(
        {key: described.get(key) for key in ("config", "dataset")},
        _identity(config, info),
        ignore=config.settings_that_may_change,
    )
    require(
        not found,
        f"{model_dir} holds another training: {'; '.join(found)}; take another folder",
    )


def require_bucket(folder: str) -> None:
    """Raises UserFacingError if a folder is in a bucket that is not there, or can't be listed."""
    if not files.is_remote(folder):
        return
    try:
        files.names_in(folder)
    except FileNotFoundError:
        raise UserFacingError(f"{'/'.join(folder.split('/')[:3])}: no such bucket") from None
    except OSError as error:
        raise UserFacingError(f"{folder}: can't be read ({one_line(error)})") from None


def claim(
    model_dir: str,
    config: TrainConfig,
    info: DatasetInfo,
    *,
    warm_start: Mapping[str, Any] | None = None,
) -> None:
    """Claims the folder for this training run; UserFacingError if it can't be written.

    `warm_start` is what is kept of a source that it begins with.
    """
    require_bucket(model_dir)
    try:
        files.make_folder(model_dir)
        values = _identity(config, info) | {"takes": takes(config, info)}
        if warm_start is not None:
            values["init_from"] = dict(warm_start)
        write_text(model_dir, TRAINING_FILE, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise UserFacingError(f"{model_dir}: can't be written ({one_line(error)})") from None


def pinned_generations(model_dir: str) -> tuple[int, ...] | None:
    """Returns the generations of the dataset that the training in a folder began with.

    None where none has begun; (0,) where the dataset had no others.
    """
    if not has_begun(model_dir):
        return None
    found = description(model_dir).get("dataset", {}).get("generations", [0])
    return tuple(found)


def load_config(model_dir: str, info: DatasetInfo) -> TrainConfig:
    """Returns the config of the network in a folder.

    Raises:
        UserFacingError: there is none, or it was trained on another dataset, whose split may have
            had these records on the other side.
    """
    if not holds_training(model_dir):
        raise UserFacingError(
            f"{model_dir}: no {TRAINING_FILE}; --model_dir is what trainer.train made"
        )
    values = description(model_dir)
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
            **({"generations": list(info.generations)} if info.generations else {}),
        },
    }


def takes(config: TrainConfig, info: DatasetInfo) -> dict[str, Any]:
    """Returns what a network takes: how its pictures are made, and what its other inputs are."""
    signal = json.loads(json.dumps(dataclasses.asdict(info.config.spectrogram)))
    return {"signal": signal, "encoding": network.encoding_of(config.network, info)}


def newest_checkpoints(model_dir: str) -> Checkpoints:
    """Returns the checkpoints that a run resumes from, numbered as they were written."""
    return Checkpoints(path(model_dir, "checkpoints"))


def best_checkpoints(model_dir: str) -> Checkpoints:
    """Returns the weights of the best epochs so far, numbered by epoch, from 1."""
    return Checkpoints(path(model_dir, "best"))


def save_best(model_dir: str, epoch: int, model: keras.Model) -> None:
    """Writes the weights of an epoch, counted from 1; returns when they are written."""
    checkpoints = best_checkpoints(model_dir)
    weights = {weight.path: np.array(weight) for weight in model.weights}
    checkpoints.save(weights, number=epoch)
    checkpoints.wait()


def restore_best(model_dir: str, model: keras.Model) -> None:
    """Sets a network's weights to those of the best epoch.

    Raises:
        UserFacingError: no epoch is finished yet, or the weights are damaged.
    """
    arrays = best_weights(model_dir)
    for weight in model.weights:
        weight.assign(arrays[weight.path])


def best_weights(model_dir: str) -> Arrays:
    """Returns the weights of the best epoch by name; raises as `restore_best` does."""
    history = read_history(model_dir)
    require(bool(history), f"{model_dir}: no finished epoch yet; run trainer.train")
    keep = description(model_dir).get("config", {}).get("keep", "best")
    return _best_weights(model_dir, best_epoch(history, keep))


def _best_weights(model_dir: str, epoch: int) -> Arrays:
    """Returns the weights of the best epoch, which a checkpoint to resume from may have too."""
    best, newest = best_checkpoints(model_dir), newest_checkpoints(model_dir)
    problem = f"{best.path(epoch)}: the checkpoint is missing"
    try:
        if epoch in best.numbers():
            return best.load(epoch)
    except Damaged as error:
        problem = str(error)
    for number in reversed(newest.numbers()):
        with contextlib.suppress(Damaged):
            state = newest.load(number)
            if state["position/epoch"] == epoch and state["position/step"] == 0:
                of_model = {name: array for name, array in state.items() if name[:6] == "model/"}
                return {name.removeprefix("model/"): array for name, array in of_model.items()}
    raise UserFacingError(
        f"{problem}, and with it the best epoch; trainer.train with another --model_dir trains anew"
    )


def read_history(model_dir: str) -> list[EpochMetrics]:
    """Returns the metrics of each epoch so far; UserFacingError if the file is damaged."""
    return _read_lines(model_dir, _HISTORY, EpochMetrics)


def write_history(model_dir: str, history: Sequence[EpochMetrics]) -> None:
    _write_lines(model_dir, _HISTORY, history)


def read_throughput(model_dir: str) -> list[EpochThroughput]:
    """Returns how fast each epoch was; UserFacingError if the file is damaged."""
    return _read_lines(model_dir, _THROUGHPUT, EpochThroughput)


def write_throughput(model_dir: str, throughput: EpochThroughput) -> None:
    """Adds how fast an epoch was; one that is trained again replaces itself and those after it."""
    before = [each for each in read_throughput(model_dir) if each.epoch < throughput.epoch]
    _write_lines(model_dir, _THROUGHPUT, [*before, throughput])


def write_evaluation(model_dir: str, split: str, evaluation: Evaluation) -> str:
    """Writes the evaluation of a split and returns the path of the file."""
    text = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n"
    return _write_of_split(model_dir, split, "evaluation.json", text)


def read_evaluation(model_dir: str, split: str) -> Evaluation:
    """Returns the evaluation of a split; UserFacingError where there is none, or it is damaged."""
    name = _name_of_split(split, "evaluation.json")
    text = read_text(model_dir, name)
    if text is None:
        raise UserFacingError(f"{model_dir}: not evaluated on {split}; run trainer.evaluate")
    values = _of_json(model_dir, name, text)
    try:
        return Evaluation.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(model_dir, name, error) from None


def write_report(model_dir: str, split: str, html: str) -> str:
    """Writes the report on a split and returns the path of the file."""
    return _write_of_split(model_dir, split, "report.html", html)


def _write_of_split(model_dir: str, split: str, name: str, text: str) -> str:
    name = _name_of_split(split, name)
    write_text(model_dir, name, text)
    return path(model_dir, name)


def _name_of_split(split: str, name: str) -> str:
    """Returns `name`, or `stem_split.suffix` for another split than the test's."""
    if split == "test":
        return name
    stem, _, suffix = name.rpartition(".")
    return f"{stem}_{split}.{suffix}"


def _read_lines(model_dir: str, name: str, kind: type[_Line]) -> list[_Line]:
    """Returns the dataclasses of a file of JSON lines, none where there is none."""
    text = read_text(model_dir, name) or ""
    try:
        return [kind(**_of_json(model_dir, name, line)) for line in text.splitlines()]
    except TypeError as error:
        raise _damaged(model_dir, name, error) from None


def _write_lines(model_dir: str, name: str, lines: Sequence["DataclassInstance"]) -> None:
    values = map(dataclasses.asdict, lines)
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in values)
    write_text(model_dir, name, text)


def _of_json(model_dir: str, name: str, text: str) -> dict[str, Any]:
    """Parses JSON that a run wrote; UserFacingError naming the file if it is none."""
    try:
        values: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(model_dir, name, error) from None
    return values


def _damaged(model_dir: str, name: str, error: Exception) -> UserFacingError:
    return UserFacingError(
        f"{path(model_dir, name)}: damaged ({error}); bring it back, or take another folder"
    )
