"""What each input of a trained network is worth: its permutation importance on a split."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.dataset_info import DatasetInfo
from common.inputs import Inputs
from trainer.data import reader
from trainer.evaluation import metrics
from trainer.evaluation.metrics import Importance
from trainer.evaluation.predictions import Predictions
from trainer.model import input_encoder, network
from trainer.train_config import TrainConfig

# Of a larger split so many are drawn: each input costs a prediction for each of them.
MAX_CLIPS = 2_000
_BATCH_SIZE = 64

Columns = dict[str, NDArray[Any]]  # of a network's arguments, [clips, …] each


def measure(
    config: TrainConfig,
    info: DatasetInfo,
    weights: Sequence[NDArray[Any]],
    predictions: Predictions,
    *,
    dataset_dir: str,
    split: str,
    tell: Callable[[str], None] = lambda line: None,
    stop_asked: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> dict[str, Importance] | None:
    """Measures the importance of each input, the largest first.

    Args:
        config: of the training.
        info: of the dataset.
        weights: of the network, as `keras.Model.get_weights` gives them.
        predictions: by it, of the split.
        dataset_dir: where the shards lie.
        split: which.
        tell: is given a line on the progress.
        stop_asked: whether this worker has been asked to stop.
        seed: of the permutations.

    Returns:
        {input: importance}, empty for a network of the picture alone; None if it was asked to stop.
        An input has the name of its feature in the record, and each history is one.
    """
    inputs = input_encoder.inputs_of(config.network, info)
    if inputs == Inputs():
        return {}
    built = network.build(config.network, info, precision=config.precision)
    built.model.set_weights(weights)

    def ask(values: dict[str, tf.Tensor]) -> tf.Tensor:
        arguments = network.arguments_of(values, built.model)
        return tf.nn.softmax(built.model(arguments, training=False))

    answer = tf.function(ask, reduce_retracing=True, autograph=False)
    clips = np.arange(predictions.num_examples)
    if len(clips) > MAX_CLIPS:
        clips = np.sort(np.random.default_rng(seed).choice(clips, MAX_CLIPS, replace=False))
    columns = columns_of(inputs, info, clips, dataset_dir=dataset_dir, split=split)
    parts = parts_of(inputs, info)
    before = predictions.rows(clips)
    found = {}
    for number, (name, part) in enumerate(parts.items(), start=1):
        tell(f"importance of the inputs: {name}, {number} of {len(parts)}")
        order = np.random.default_rng([seed, number]).permutation(len(clips))
        answers = []
        for begin in range(0, len(clips), _BATCH_SIZE):
            if stop_asked():
                return None
            batch = permuted(columns, part, order, slice(begin, begin + _BATCH_SIZE))
            tensors = {key: tf.constant(values) for key, values in batch.items()}
            answers.append(answer(tensors).numpy())
        found[name] = metrics.importance_of(before, np.concatenate(answers))
    return dict(sorted(found.items(), key=lambda item: -item[1].log_loss_increase))


def parts_of(inputs: Inputs, info: DatasetInfo) -> dict[str, tuple[str, slice]]:
    """{input: the argument of the network that has it, and its places in there}, in order."""
    parts = {name: (name, slice(None)) for name in ("spectrogram", *network.arrays_of(inputs))}
    encoder = input_encoder.encoder_of(inputs, info)
    stretches = {} if encoder is None else encoder.stretches
    return parts | {name: ("metadata", places) for name, places in stretches.items()}


def columns_of(
    inputs: Inputs, info: DatasetInfo, clips: NDArray[Any], *, dataset_dir: str, split: str
) -> Columns:
    """Reads the arguments of the network for some clips, by their rising indices in a split."""
    beside = reader.Beside(
        encoder=input_encoder.encoder_of(inputs, info), arrays=network.arrays_of(inputs)
    )
    batches = reader.batches(
        info, dataset_dir, split, batch_size=_BATCH_SIZE, names=(), beside=beside
    )
    read: dict[str, list[NDArray[Any]]] = {}
    for batch in batches.as_numpy_iterator():
        mine = np.isin(batch.pop("index"), clips) & (batch.pop("weight") > 0)
        for name, values in batch.items():
            read.setdefault(name, []).append(values[mine])
    return {name: np.concatenate(values) for name, values in read.items()}


def permuted(
    columns: Mapping[str, NDArray[Any]],
    part: tuple[str, slice],
    order: NDArray[Any],
    rows: slice,
) -> Columns:
    """A batch of rows whose `part` is that of other clips: of those in their place in `order`."""
    name, places = part
    batch = {key: values[rows] for key, values in columns.items()}
    changed = batch[name].copy()
    changed[:, places] = columns[name][order[rows]][:, places]
    return batch | {name: changed}
