"""Statistics of a picture that say how music sounds and moves, whatever it plays, in the graph.

They are the classic ones of timbre and rhythm: mean, deviation, change and quantiles of each band;
means, deviations and covariances of the cepstrum (M. Mandel and D. Ellis, Song-Level Features and
Support Vector Machines for Music Classification, 2005); the modulation spectrum of broad bands
(C.-H. Lee et al., Automatic Music Genre Classification Based on Long-Term Modulation Spectral
Analysis, 2009); and how sharp the lines across bands are. On a few thousand
clips a network on these alone beats convolutions, which have to find them first.
"""

import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_CEPSTRUM = 32  # coefficients whose mean and deviation are taken
_COVARIANCE = 24  # coefficients whose covariances are taken
_BROAD_BANDS = 10
# Between the ranges of the modulation spectrum, in cycles a picture.
_MODULATION_EDGES = (1, 3, 5, 9, 17, 25, 33, 45, 61, 80)
# Levels 0 to 255 are brought to 0 to 4: the constants below are for these.
_SCALE = 4 / 255


class TextureStatistics(keras.layers.Layer):
    """Pictures uint8 or float [batch, height, width] of levels → float32 [batch, statistics].

    1,802 statistics of a picture of 102 × 159. The layer has no weights.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})

    def build(self, shape: tuple[int | None, int, int]) -> None:
        height, width = shape[1:]
        self._cosines = cosine_transform(height, min(_CEPSTRUM, height))
        cycles, times = np.arange(width // 2 + 1)[:, None], np.arange(width)[None]
        angles = 2 * np.pi * cycles * times / width
        self._waves = np.stack([np.cos(angles).T, np.sin(angles).T]).astype(np.float32)
        edges = [min(edge, width // 2 + 1) for edge in _MODULATION_EDGES]
        ranges = np.zeros([width // 2 + 1, len(edges) - 1], np.float32)
        for place, (low, high) in enumerate(itertools.pairwise(edges)):
            ranges[low:high, place] = 1 / max(1, high - low)
        self._ranges = ranges
        size = min(_COVARIANCE, height)
        rows, columns = np.triu_indices(size)
        self._upper = (rows * size + columns).astype(np.int32)
        self._sorted_places = np.minimum(np.multiply(_QUANTILES, width).astype(int), width - 1)
        self.built = True

    def call(self, pictures: tf.Tensor) -> tf.Tensor:
        x = tf.cast(pictures, tf.float32) * _SCALE
        height, width = x.shape[1:]
        change = x[:, :, 1:] - x[:, :, :-1]
        parts = [tf.reduce_mean(x, 2), deviation(x), tf.reduce_mean(tf.abs(change), 2)]
        # In the order of the quantiles, then of the bands.
        quantiles = tf.gather(tf.sort(x, axis=2), self._sorted_places, axis=2)
        parts.append(flat(tf.transpose(quantiles, [0, 2, 1])))

        cepstrum = tf.einsum("kh,bht->bkt", self._cosines, x)
        delta = cepstrum[:, :, 1:] - cepstrum[:, :, :-1]
        parts += [tf.reduce_mean(cepstrum, 2), deviation(cepstrum), deviation(delta)]
        low = cepstrum[:, :_COVARIANCE]
        for values in (low - tf.reduce_mean(low, 2, keepdims=True), delta[:, :_COVARIANCE]):
            covariance = flat(tf.matmul(values, values, transpose_b=True)) / width
            parts.append(signed_root(tf.gather(covariance, self._upper, axis=1)))

        rows = height // _BROAD_BANDS
        broad = tf.reshape(x[:, : rows * _BROAD_BANDS], [-1, _BROAD_BANDS, rows, width])
        broad = tf.reduce_mean(broad, 2)
        broad -= tf.reduce_mean(broad, 2, keepdims=True)
        cosine, sine = (tf.einsum("bct,tf->bcf", broad, wave) for wave in self._waves)
        modulation = tf.math.log(tf.sqrt(cosine**2 + sine**2 + 1e-12) + 0.3)
        parts.append(flat(tf.einsum("bcf,fr->bcr", modulation, self._ranges)))

        sharpness = x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]
        parts += [tf.reduce_mean(tf.abs(sharpness), 2), tf.reduce_mean(sharpness, 2)]
        return tf.concat(parts, axis=1)


def cosine_transform(size: int, count: int) -> np.ndarray:
    """The first rows of the orthonormal DCT-II, float32 [count, size]."""
    rows, columns = np.arange(count)[:, None], np.arange(size)[None]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (columns + 0.5) * rows / size)
    matrix[0] /= np.sqrt(2)
    transform: np.ndarray = matrix.astype(np.float32)
    return transform


def deviation(values: tf.Tensor) -> tf.Tensor:
    """The standard deviation over the last of three axes."""
    return tf.sqrt(tf.math.reduce_variance(values, 2) + 1e-8)


def signed_root(values: tf.Tensor) -> tf.Tensor:
    """The square root of the magnitude, with the sign."""
    return tf.sign(values) * tf.sqrt(tf.abs(values) + 1e-12)


def flat(values: tf.Tensor) -> tf.Tensor:
    """All axes after the first as one."""
    return tf.reshape(values, [tf.shape(values)[0], int(np.prod(values.shape[1:]))])
