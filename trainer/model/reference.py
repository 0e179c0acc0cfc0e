"""What a server compares its songs with: see `common.training_reference`."""

import keras
import numpy as np
import tensorflow as tf

from common import picture_statistics
from common.dataset_info import DatasetInfo, Split
from common.inputs import Inputs
from common.training_reference import TrainingReference
from trainer.data import reader, sample
from trainer.model import network

# Clips of each kind: so many that chance moves an index by a hundredth, and a pass takes seconds.
_MOST_CLIPS = 1_000
_BATCH = 64


def measure(
    model: keras.Model, info: DatasetInfo, dataset_dir: str, *, inputs: Inputs, seed: int
) -> TrainingReference | None:
    """Measures pictures of training clips, and what a model answers about clips of other splits.

    Only what is heard is told to the model, as by most who ask a server.

    Args:
        model: a network whose training is done.
        info: of the dataset.
        dataset_dir: where it lies.
        inputs: of the network.
        seed: decides which clips are drawn.

    Returns:
        what was found; None where the training split has no clips.

    Raises:
        UserFacingError: a shard is missing or damaged.
    """
    train = info.splits["train"]
    if not train.num_examples:
        return None
    parse = reader.parser(info, names=(), beside=reader.Beside(arrays=network.arrays_of(inputs)))

    def drawn(split: Split, number: int) -> tf.data.Dataset:
        records = sample.draw(info, split, dataset_dir, size=_MOST_CLIPS, seed=(seed, number))
        return tf.data.Dataset.from_tensor_slices(list(records)).batch(_BATCH).map(parse)

    others = sample.together([info.splits["validation"], info.splits["test"]])
    parts = [
        picture_statistics.of_pictures(columns["spectrogram"].numpy())
        for columns in drawn(train, 20)
    ]
    logits = [
        model(network.arguments_of(network.with_unknown(columns, model), model), training=False)
        for columns in drawn(others if others.num_examples else train, 21)
    ]
    return TrainingReference.of(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        tf.nn.softmax(tf.concat(logits, axis=0)).numpy(),
    )
