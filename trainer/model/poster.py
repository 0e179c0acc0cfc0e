"""The poster's networks: two, four or six convolutions on a grayscale or RGB picture."""

from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from common.errors import require
from common.inputs import SpectrogramStatistics
from common.spectrogram import COLORMAP
from trainer.network_config import NetworkConfig, PosterConfig

# (filters, kernel, pool, pool stride) of each block. The poster's text does not say which kernel
# belongs to which layer; this reading fits both the shapes it prints and the order in which the
# sizes stand. A last convolution of 2×5 with a pool of 2×2 would give the same shapes.
BLOCKS = (
    (32, (3, 5), (2, 2), 2),
    (64, (3, 5), (2, 2), 2),
    (128, (2, 2), (2, 2), 2),
    (256, (2, 2), (2, 2), 2),
    (512, (2, 2), (2, 2), 1),
    (1024, (2, 2), (2, 5), 1),
)
DENSE_UNITS = 512
# What the poster reports on its test split, by the number of convolutions and the color.
POSTER_ACCURACY = {(2, "mono"): 0.42, (4, "mono"): 0.51, (4, "rgb"): 0.53, (6, "rgb"): 0.61}


def reported_accuracy(network: NetworkConfig) -> float | None:
    """Returns the test accuracy that the poster reports of a network, None where it does not."""
    if not isinstance(network, PosterConfig):
        return None
    return POSTER_ACCURACY.get((network.convolutions, network.color))


class Grayscale(keras.layers.Layer):
    """Scales levels uint8 [batch, height, width] to 0…1, float [batch, height, width, 1]."""

    def call(self, pictures: tf.Tensor) -> tf.Tensor:
        return tf.cast(pictures[..., tf.newaxis], self.compute_dtype) / 255


class Colormap(keras.layers.Layer):
    """Maps levels uint8 [batch, height, width] to RGB in 0…1, float [batch, height, width, 3].

    The colors are those of a colormap of matplotlib, the one that librosa shows spectrograms in.
    They are a constant of the graph, so an export carries them, and no weights.
    """

    def __init__(self, name_of_map: str = COLORMAP, **kwargs: Any):
        super().__init__(**kwargs)
        colors = matplotlib.colormaps[name_of_map](np.arange(256))[:, :3]
        self._colors = colors.astype(np.float32)

    def call(self, pictures: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.cast(self._colors, self.compute_dtype), tf.cast(pictures, tf.int32))


class Standardize(keras.layers.Layer):
    """Values [batch, height, width, channels] → less their mean, divided by their deviation.

    Both float [channels], constants of the graph.
    """

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, **kwargs: Any):
        super().__init__(**kwargs)
        self._mean, self._deviation = mean, deviation

    def call(self, values: tf.Tensor) -> tf.Tensor:
        mean, deviation = (
            tf.cast(each, self.compute_dtype) for each in (self._mean, self._deviation)
        )
        return (values - mean) / deviation


def color_statistics(
    color: str, statistics: SpectrogramStatistics
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel of a picture in color, float32 [channels] both.

    The levels of each band are taken as normally distributed about their mean, as those of decibels
    nearly are.

    Args:
        color: `mono` or `rgb`.
        statistics: of the levels.
    """
    levels = np.arange(256)
    values = levels[:, None] / 255
    if color == "rgb":
        values = matplotlib.colormaps[COLORMAP](levels)[:, :3]
    mean = np.asarray(statistics.mean)[:, None]
    deviation = np.maximum(np.asarray(statistics.deviation)[:, None], 1.0)
    shares = np.exp(-0.5 * ((levels - mean) / deviation) ** 2)
    shares = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    center = shares @ values
    spread = np.sqrt(shares @ (values - center) ** 2)
    return center.astype(np.float32), np.maximum(spread, 1e-3).astype(np.float32)


def build_network(
    config: PosterConfig,
    *,
    shape: tuple[int, int],
    num_classes: int,
    statistics: SpectrogramStatistics | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    precision: str = "float32",
) -> keras.Model:
    """Builds a network from pictures uint8 [batch, height, width] to logits [batch, classes].

    Args:
        config: how many convolutions, mono or RGB.
        shape: (height, width) of the pictures.
        num_classes: of the answer.
        statistics: of the training split's pictures, for a network that standardises them.
        dropout: share of the dense layer's outputs that training drops.
        seed: of the first weights and of the dropout.
        precision: of the layers' arithmetic, one of `train_config.PRECISIONS`; the weights and the
            logits are float32 in all.

    Raises:
        UserFacingError: the pictures are too small for so many convolutions, or there are no
            statistics to standardise them by.
    """
    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    kind = {"glorot": keras.initializers.GlorotUniform, "he": keras.initializers.HeUniform}

    def initializer(name: str = config.initializer) -> keras.Initializer:
        return kind[name](seed=next(seeds))

    pictures = keras.Input(shape=shape, dtype="uint8", name="spectrogram")
    color = Colormap if config.color == "rgb" else Grayscale
    x = color(name=config.color, dtype=precision)(pictures)
    if config.standardize:
        require(
            statistics is not None,
            "config.network.standardize: the dataset_info.json has no statistics; build the "
            "dataset again with this version, or say --config.network.standardize=False",
        )
        assert statistics is not None
        x = Standardize(*color_statistics(config.color, statistics), name="standardize")(x)
    for number, (filters, kernel, pool, stride) in enumerate(
        BLOCKS[: config.convolutions], start=1
    ):
        least = [side + window - 1 for side, window in zip(kernel, pool, strict=True)]
        require(
            x.shape[1] >= least[0] and x.shape[2] >= least[1],
            f"config.network.convolutions: {config.convolutions} are too many for pictures of "
            f"{shape[0]}×{shape[1]}",
        )
        x = keras.layers.Conv2D(
            filters,
            kernel,
            activation="relu",
            kernel_initializer=initializer(),
            dtype=precision,
            name=f"conv{number}",
        )(x)
        x = keras.layers.MaxPooling2D(pool, strides=stride, dtype=precision, name=f"pool{number}")(
            x
        )
    x = keras.layers.Flatten(dtype=precision, name="flatten")(x)
    x = keras.layers.Dense(
        DENSE_UNITS,
        activation="relu",
        kernel_initializer=initializer(),
        dtype=precision,
        name="dense",
    )(x)
    x = keras.layers.Dropout(dropout, seed=next(seeds), dtype=precision, name="dropout")(x)
    logits = keras.layers.Dense(
        # Of the last layer nothing but a softmax is asked.
        num_classes,
        kernel_initializer=initializer("glorot"),
        dtype="float32",
        name="logits",
    )(x)
    return keras.Model(pictures, logits)
