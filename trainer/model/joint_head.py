"""A head that answers genre and popularity together, so that a network learns what genre is.

Genre tells most of what a picture can tell of popularity, and is far easier to hear: a network that
must say both learns in a few epochs what one asked for popularity alone does not find. The genre is
a label of the training only; the answer is the sum over all genres.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

MAX_GENRES = 32


class JointHead(keras.layers.Layer):
    """Features [batch, features] → logits [batch, genres, classes] and log listens [batch].

    Args:
        num_genres: 1 where none are known.
        class_shares: of the training split, in the order of the classes; the first answer.
        seed: of the first weights.
    """

    def __init__(self, num_genres: int, class_shares: Sequence[float], *, seed: int, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})
        self._shape = num_genres, len(class_shares)
        shares = np.maximum(np.asarray(class_shares, np.float32), 1e-3)
        bias = np.append(np.tile(np.log(shares / num_genres), num_genres), 0.0)
        self._dense = keras.layers.Dense(
            len(bias),
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=seed),
            bias_initializer=keras.initializers.Constant(bias.tolist()),
            dtype="float32",
            name="dense",
        )

    def build(self, shape: tuple[int | None, int]) -> None:
        self._dense.build(shape)
        self.built = True

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = self._dense(features)
        return tf.reshape(values[:, :-1], [-1, *self._shape]), values[:, -1]


class Seeds:
    """Hands out a different seed for each layer that needs one, the same in every run."""

    def __init__(self, seed: int):
        self._numbers: Iterator[int] = iter(range(1000 * seed, 1000 * seed + 1000))

    def __call__(self) -> int:
        return next(self._numbers)


def log_shares(joint: tf.Tensor, temperature: float = 1.0) -> tf.Tensor:
    """Log probabilities [batch, genres, classes] of joint logits, which sum to 1 over both."""
    shape = tf.shape(joint)
    flat = tf.nn.log_softmax(tf.reshape(joint / temperature, [shape[0], -1]))
    return tf.reshape(flat, shape)
