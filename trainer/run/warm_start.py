"""A warm start: a training that begins with the weights of another one.

They come from a model folder (its best epoch) or from an export, whose SavedModel keeps the
network's variables in the order of the network; both are read as plain arrays, and nothing of a
graph is run. The optimizer starts anew. What a normalisation layer has seen (moving mean and
variance) is taken over; the mean and deviation that pictures are standardised by are those of the
dataset that is trained on.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from common import export_folder, files
from common.config import differences
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, one_line, require
from trainer.model import network
from trainer.run import devices, model_folder
from trainer.run.checkpoints import Arrays
from trainer.run.loop import Trainer
from trainer.train_config import TrainConfig

_VARIABLES = "variables/variables"
_KEY = "_variables/{}/.ATTRIBUTES/VARIABLE_VALUE"
_FLAG = "--init_from"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What a training may begin with.

    Attributes:
        path: as the user gave it.
        kind: `model_dir` or `export`.
        fingerprint: SHA-256 of the weights.
        dataset_fingerprint: of what it was trained on.
        network: its config, as plain values.
        class_names: in the order of its answer.
        signal: how its pictures were made, as plain values; None of a folder that does not say.
        encoding: {input: SHA-256 of how it becomes numbers}; None as well.
        weights: by the name of the weight; of an export that has no names, in order, by number.
    """

    path: str
    kind: str
    fingerprint: str
    dataset_fingerprint: str
    network: dict[str, Any]
    class_names: tuple[str, ...]
    signal: dict[str, Any] | None
    encoding: dict[str, str] | None
    weights: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """The warm start of a training.

    Attributes:
        record: what `training.json` and `model_info.json` say of it.
        source: None of a training that has begun, which goes on from its checkpoints.
    """

    record: dict[str, Any]
    source: Source | None


def of_training(
    init_from: str | None,
    *,
    reset_head: bool,
    model_dir: str,
    config: TrainConfig,
    info: DatasetInfo,
) -> WarmStart | None:
    """Returns the warm start of the training in a folder, None of one from new weights.

    Of a training that has begun the source is not read, and may be gone.

    Raises:
        UserFacingError: the folder's training began otherwise; or what the source holds does not
            fit, by the name of what differs.
    """
    if init_from is None:
        require(not reset_head, f"--reset_head: there is no head to start anew without {_FLAG}")
        require(
            config.shrink_perturb == (1.0, 0.0),
            f"config.shrink_perturb: there is nothing to shrink without {_FLAG}",
        )
    if model_folder.has_begun(model_dir):
        record = model_folder.warm_start_of(model_dir)
        there = record and (record["path"], record["reset_head"])
        here = init_from and (init_from, reset_head)
        require(
            there == here,
            f"{model_dir} holds a training that began with {_in_words(there)}, and this one is to "
            f"begin with {_in_words(here)}; take another folder",
        )
        return None if record is None else WarmStart(record=record, source=None)
    if init_from is None:
        return None
    require(init_from != model_dir, f"{_FLAG}={init_from}: that is --model_dir; take another one")
    source = read(init_from)
    check(source, config, info, reset_head=reset_head)
    record = {
        "path": source.path,
        "kind": source.kind,
        "fingerprint": source.fingerprint,
        "dataset_fingerprint": source.dataset_fingerprint,
        "reset_head": reset_head,
    }
    return WarmStart(record=record, source=source)


def _in_words(start: Any) -> str:
    if not start:
        return "new weights"
    path, reset_head = start
    return f"{_FLAG}={path}{' --reset_head' * reset_head}"


# ---- what a source holds


def read(path: str) -> Source:
    """Reads the weights of a model folder or an export, and what they are for.

    Raises:
        UserFacingError: there is neither, or it is damaged.
    """
    if export_folder.holds_model(path):
        return _of_export(path)
    if model_folder.holds_training(path):
        return _of_model_dir(path)
    problem = "neither a --model_dir of trainer.train nor an export"
    if versions := export_folder.versions(path):
        problem = f"a folder of versions; name one, such as {files.join(path, str(versions[-1]))}"
    raise UserFacingError(f"{_FLAG}={path}: {problem}")


def _of_model_dir(path: str) -> Source:
    described = model_folder.description(path)
    arrays = model_folder.best_weights(path)
    try:
        dataset, takes = described["dataset"], described.get("takes", {})
        return Source(
            path=path,
            kind="model_dir",
            fingerprint=fingerprint(arrays),
            dataset_fingerprint=dataset["fingerprint"],
            network=described["config"]["network"],
            class_names=tuple(dataset["class_names"]),
            signal=takes.get("signal"),
            encoding=takes.get("encoding"),
            weights=dict(arrays),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserFacingError(f"{_FLAG}={path}: not a training ({error!r:.200})") from None


def _of_export(path: str) -> Source:
    info = export_folder.load_info(path)
    values = export_folder.info_values(path)
    try:
        variables = tf.train.load_checkpoint(files.join(path, _VARIABLES))
        shapes = variables.get_variable_to_shape_map()
        count = sum(name.startswith("_variables/") for name in shapes)
        arrays = [variables.get_tensor(_KEY.format(number)) for number in range(count)]
        names = values.get("variables") or [str(number) for number in range(count)]
        weights = dict(zip(names, arrays, strict=True))
        plain = values["training"]["network"]
    except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        problem = one_line(error, at_most=200)
        raise UserFacingError(f"{_FLAG}={path}: its weights can't be read ({problem})") from None
    return Source(
        path=path,
        kind="export",
        fingerprint=fingerprint(weights),
        dataset_fingerprint=info.dataset_fingerprint,
        network=plain,
        class_names=tuple(info.class_names),
        signal=dataclasses.asdict(info.signal),
        encoding=values.get("encoding"),
        weights=weights,
    )


def fingerprint(arrays: Arrays) -> str:
    """Returns one SHA-256 of arrays and their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# ---- whether it fits


def check(source: Source, config: TrainConfig, info: DatasetInfo, *, reset_head: bool) -> None:
    """Raises UserFacingError, naming what differs, unless a training can begin with a source.

    Args:
        source: that it is to begin with.
        config: of the training.
        info: of its dataset.
        reset_head: whether its last layers start anew, so that classes may differ.
    """
    where = f"{_FLAG}={source.path}"
    here = config.to_dict()["network"]
    found = differences(source.network, here, prefix="config.network.")
    require(not found, f"{where}: its network is another one: {'; '.join(found)}")
    signal = model_folder.takes(config, info)["signal"]
    is_same = source.dataset_fingerprint == info.fingerprint
    if source.signal is not None:
        found = differences(source.signal, signal, prefix="config.spectrogram.")
        require(not found, f"{where}: its pictures are made in another way: {'; '.join(found)}")
    else:
        require(
            is_same,
            f"{where}: its {model_folder.TRAINING_FILE} does not say how its pictures were made; "
            "name its export instead",
        )
    if source.class_names != info.class_names and not reset_head:
        raise UserFacingError(
            f"{where}: its classes are {', '.join(source.class_names)}, those of the dataset are "
            f"{', '.join(info.class_names)}; with --reset_head the last layers start anew"
        )
    encoding = network.encoding_of(config.network, info)
    if reset_head:
        encoding.pop(network.GENRES_OF_HEAD, None)
    if source.encoding is None:
        require(
            is_same or not encoding,
            f"{where}: it does not say which values of {', '.join(encoding)} it knows; name one "
            "that was trained with this version",
        )
        return
    for name, digest in encoding.items():
        require(
            source.encoding.get(name) == digest,
            f"{where}: its network knows other values of {name} than this dataset has (another "
            "vocabulary or other quantiles in the statistics), so its weights mean something else",
        )


# ---- the start


def begin(trainer: Trainer, source: Source, *, reset_head: bool) -> None:
    """Sets the weights of a trainer that has not trained yet, the same in every worker.

    With `config.shrink_perturb` of (λ, γ) each trained weight becomes λ times what it was in the
    source and γ times what it is in a network that starts anew with the config's seed, which is
    noise of the initialiser (J. Ash and R. Adams, On Warm-Starting Neural Network Training, 2020).

    Raises:
        UserFacingError: a weight is missing or of another shape; or another worker has read other
            weights.
    """
    mine = int(source.fingerprint[:12], 16)
    require(
        devices.broadcast(trainer.strategy, mine) == mine,
        f"{_FLAG}={source.path}: the workers have read different weights; did it change meanwhile?",
    )
    taken = by_name(source, trainer)
    shrink, perturb = (np.float32(value) for value in trainer.config.shrink_perturb)
    weights = {}
    for weight in trainer.model.weights:
        fresh = np.asarray(weight.numpy())
        if reset_head and network.is_of_head(weight.path):
            weights[weight.path] = fresh
            continue
        old = taken.get(weight.path)
        if old is None or old.shape != fresh.shape:
            there = "missing" if old is None else f"of shape {old.shape}"
            raise UserFacingError(
                f"{_FLAG}={source.path}: {weight.path} is {there} there and of shape {fresh.shape} "
                "here"
            )
        is_moved = weight.trainable and (shrink, perturb) != (1, 0)
        weights[weight.path] = shrink * old + perturb * fresh if is_moved else old
    trainer.set_weights(weights)


def by_name(source: Source, trainer: Trainer) -> Mapping[str, np.ndarray]:
    """Returns a source's weights by name; those of an export without names by their order."""
    if "0" not in source.weights:
        return source.weights
    # Without the states of the dropouts' generators, which are integers.
    arrays = [array for array in source.weights.values() if array.dtype == np.float32]
    weights = trainer.model.weights
    require(
        len(weights) == len(arrays),
        f"{_FLAG}={source.path}: {len(arrays)} weights, this network has {len(weights)}",
    )
    return {weight.path: array for weight, array in zip(weights, arrays, strict=True)}


def in_words(record: Mapping[str, Any], config: TrainConfig) -> str:
    """Says on a line from what a training began."""
    shrink, perturb = config.shrink_perturb
    parts = [f"warm start from {record['path']} ({record['fingerprint'][:12]})"]
    if (shrink, perturb) != (1, 0):
        parts.append(f"shrunk by {shrink:g}, with {perturb:g} of new weights")
    if record["reset_head"]:
        parts.append("last layers anew")
    return ", ".join(parts)
