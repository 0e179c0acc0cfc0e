"""Popularity from the picture alone, beyond the poster: normalised convolutions beside statistics.

Two towers see the standardised picture. One is a short-chunk CNN (M. Won et al., Evaluation of
CNN-based Automatic Music Tagging Models, 2020): few channels, residuals, and mean, maximum and
deviation over time, so that it takes any width and is trained on short pieces. The other is some
dense layers, beside one another, on the statistics of `model.texture`. Each answers genre and
popularity together; the network's answer is the mean of the two.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common.inputs import SpectrogramStatistics
from trainer.model.joint_head import JointHead, Seeds, log_shares
from trainer.model.texture import TextureStatistics
from trainer.network_config import ShortChunkConfig

# (share of the width, kernel, stride, whether the input is added to the output) of each block.
BLOCKS = (
    (0.25, 5, 2, False),
    (0.5, 3, 2, False),
    (0.5, 3, 1, True),
    (0.75, 3, 2, False),
    (1.0, 3, 2, False),
)
# Standardised values, and statistics, further out than this tell of a fault more than of music.
LIMIT = 4.0
# Added to the deviation of a band, in levels: one that hardly moves is not blown up.
_LEAST_DEVIATION = 4.0
_MOMENTUM = 0.9


class Standardize(keras.layers.Layer):
    """Levels [batch, height, width] → by each band's mean and deviation in the training split."""

    def __init__(self, statistics: SpectrogramStatistics, **kwargs: Any):
        super().__init__(**kwargs)
        self._mean, self._deviation = statistics.mean, statistics.deviation

    def call(self, pictures: tf.Tensor) -> tf.Tensor:
        mean = tf.constant(self._mean)[:, tf.newaxis]
        deviation = tf.constant(self._deviation)[:, tf.newaxis] + _LEAST_DEVIATION
        values = (tf.cast(pictures, tf.float32) - mean) / deviation
        return tf.cast(tf.clip_by_value(values, -LIMIT, LIMIT), self.compute_dtype)


class PoolOverTime(keras.layers.Layer):
    """[batch, bands, columns, channels] → mean, maximum and deviation over the columns.

    [batch, 3 · bands · channels]: a band keeps its place, since a voice is not a bass.
    """

    def call(self, values: tf.Tensor) -> tf.Tensor:
        bands, channels = values.shape[1], values.shape[3]
        values = tf.cast(values, tf.float32)
        mean, variance = tf.nn.moments(values, axes=[2])
        parts = [mean, tf.reduce_max(values, axis=2), tf.sqrt(variance + 1e-5)]
        return tf.concat([tf.reshape(part, [-1, bands * channels]) for part in parts], axis=1)


class Limit(keras.layers.Layer):
    """Keeps values within ± LIMIT."""

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(values, -LIMIT, LIMIT)


class MeanAnswer(keras.layers.Layer):
    """Joint logits of some towers, [batch, genres, classes] each → log probabilities.

    The first counts for `first_share` of the mean, the others for the rest. A network is less sure
    of songs it was not trained on than its logits say, so the mean is divided by a temperature
    (C. Guo et al., On Calibration of Modern Neural Networks, 2017).
    """

    def __init__(self, temperature: float, *, first_share: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})
        self._temperature, self._first_share = temperature, first_share

    def call(self, joints: list[tf.Tensor]) -> tf.Tensor:
        first, *others = joints
        if others:
            mean = tf.add_n(others) / len(others)
            first = self._first_share * first + (1 - self._first_share) * mean
        return log_shares(first, self._temperature)


class PictureAnswer(keras.layers.Layer):
    """Log probabilities [batch, genres, classes] → of the classes, [batch, classes].

    They lean towards rare classes by a part of the logarithm of their share (A. Menon et al.,
    Long-Tail Learning via Logit Adjustment, 2021).
    """

    def __init__(self, class_shares: Sequence[float], adjustment: float, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})
        self._lean = -adjustment * np.log(np.maximum(class_shares, 1e-3)).astype(np.float32)

    def call(self, joint: tf.Tensor) -> tf.Tensor:
        return tf.nn.log_softmax(tf.reduce_logsumexp(joint, axis=1) + self._lean)


class AudioTowers:
    """The towers' layers; called on pictures they share their weights.

    Args:
        config: of the network.
        num_genres: in the heads.
        class_shares: of the training split.
        statistics: of its pictures.
        dropout: share of what a head sees that training drops.
        seeds: of weights and dropout.
        precision: of the convolutions' arithmetic.
        synchronized: whether normalisation looks at the batches of all replicas.
    """

    def __init__(
        self,
        config: ShortChunkConfig,
        *,
        num_genres: int,
        class_shares: Sequence[float],
        statistics: SpectrogramStatistics,
        dropout: float,
        seeds: Seeds,
        precision: str,
        synchronized: bool,
    ):
        self._config = config
        self._dropout, self._seeds, self._precision = dropout, seeds, precision
        self._synchronized = synchronized
        self._standardize = Standardize(statistics, dtype=precision, name="standardize")
        self._convolutions = self._make_convolutions(len(statistics.mean))
        self._statistics = TextureStatistics(name="statistics")
        self._members = [self._make_member(n) for n in range(1, config.texture_members + 1)]
        self._heads = [
            JointHead(num_genres, class_shares, seed=seeds(), name=f"{tower.name}_head")
            for tower in (self._convolutions, *self._members)
        ]

    def __call__(self, pictures: Any, *, whole: Any) -> list[Any]:
        """The answers (joint logits, log listens) of the towers.

        Args:
            pictures: uint8 [batch, height, width]; what is augmented in training.
            whole: the same as they are stored, for the statistics.
        """
        features = [self._convolutions(self._standardize(pictures))]
        if self._members:
            statistics = self._statistics(whole)
            features += [member(statistics) for member in self._members]
        return [head(each) for head, each in zip(self._heads, features, strict=True)]

    def _normalization(self, name: str, momentum: float = _MOMENTUM, **kwargs: Any) -> Any:
        return keras.layers.BatchNormalization(
            momentum=momentum,
            synchronized=self._synchronized,
            dtype="float32",
            name=name,
            **kwargs,
        )

    def _make_convolutions(self, height: int) -> keras.Model:
        width, precision = self._config.width, self._precision
        inputs = keras.Input((height, None), name="standardized")
        x = keras.layers.Reshape((height, -1, 1), dtype=precision, name="channel")(inputs)
        for number, (share, kernel, stride, residual) in enumerate(BLOCKS, start=1):
            before = x
            x = keras.layers.Conv2D(
                round(width * share),
                kernel,
                strides=stride,
                padding="same",
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(seed=self._seeds()),
                dtype=precision,
                name=f"conv{number}",
            )(x)
            x = self._normalization(f"norm{number}")(x)
            if residual:
                x = keras.layers.Add(dtype=precision, name=f"add{number}")([before, x])
            x = keras.layers.ReLU(dtype=precision, name=f"relu{number}")(x)
        x = PoolOverTime(dtype="float32", name="pool")(x)
        x = self._dropout_of(self._dropout, name="dropout")(x)
        return keras.Model(inputs, x, name="convolutions")

    def _make_member(self, number: int) -> keras.Sequential:
        layers = [
            # By the statistics' own mean and deviation, as they come in the batches.
            self._normalization("standard", momentum=0.99, center=False, scale=False),
            Limit(dtype="float32", name="limit"),
            self._dropout_of(0.5, name="dropout1"),
            keras.layers.Dense(
                self._config.texture_units,
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(seed=self._seeds()),
                dtype="float32",
                name="dense",
            ),
            self._normalization("norm"),
            keras.layers.ReLU(dtype="float32", name="relu"),
            self._dropout_of(0.6, name="dropout2"),
        ]
        return keras.Sequential(layers, name=f"texture{number}")

    def _dropout_of(self, rate: float, *, name: str) -> keras.layers.Dropout:
        return keras.layers.Dropout(rate, seed=self._seeds(), dtype="float32", name=name)
