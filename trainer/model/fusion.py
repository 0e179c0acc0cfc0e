"""Popularity from the picture and from what is known of the track, if anything is.

What is known goes through dense layers of its own, and the two answers are put together late:

    log p(class | known, picture) = log p(class | known) + weight · evidence of the picture,
    evidence = log p(class | picture, genre) − log p(class | genre)

up to a constant (where the genre is not known: without it). Both parts are trained on their own, so
the picture is not left unheard because the rest is easier to learn, and a picture alone is answered
as by the network for pictures alone: the weight is 1 where nothing is known.

The artist's other tracks, and among them the album's, say more than all else, and of a new artist
there are none. So there are two sets of dense layers: one for tracks of which they are known, and
one that never sees them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common.inputs import HISTORIES
from trainer.model.joint_head import JointHead, Seeds
from trainer.network_config import FusionConfig


class Harmony(keras.layers.Layer):
    """Chroma uint8 [batch, 12, columns] and tempo uint8 [batch, lags] → features and whether known.

    Of the chroma the mean and the deviation over time. Either may be missing from a network; what
    is all zeros is unknown.
    """

    def call(self, parts: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        features, known = [], []
        for part in parts:
            values = tf.cast(part, tf.float32) / 255
            axes = list(range(1, len(values.shape)))
            known.append(tf.reduce_any(part > 0, axis=axes))
            if len(values.shape) == 3:
                mean, variance = tf.nn.moments(values, axes=[2])
                features += [mean, tf.sqrt(variance + 1e-8)]
            else:
                features.append(values)
        return tf.concat(features, axis=1), tf.reduce_any(tf.stack(known), axis=0)


class WithHarmony(keras.layers.Layer):
    """Adds the answer of the harmony to those of the picture, where it is known.

    Log probabilities [batch, genres, classes] of both and bool [batch] → the log of the mean.
    """

    def call(self, values: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        picture, harmony, known = values
        both = tf.reduce_logsumexp(tf.stack([picture, harmony]), axis=0) - tf.math.log(2.0)
        return tf.where(known[:, tf.newaxis, tf.newaxis], both, picture)


class Combine(keras.layers.Layer):
    """Puts the answers together: log probabilities [batch, classes].

    Args:
        class_shares: of the training split.
        picture_weight: see `FusionConfig`.
        genre, history: which places of the metadata are theirs, None where they are no inputs; the
            first of the genre's says that it is known, and any of the history's.
    """

    def __init__(
        self,
        class_shares: Sequence[float],
        picture_weight: tuple[float, float],
        *,
        genre: slice | None,
        history: slice | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
        self._log_shares = np.log(np.maximum(class_shares, 1e-3)).astype(np.float32)
        self._picture_weight = picture_weight
        self._genre, self._history = genre, history

    def call(self, values: dict[str, Any]) -> tf.Tensor:
        """Puts together `joint`, log [batch, genres, classes], `metadata` [batch, size], and
        [batch, classes] each `of_picture`, the answer of it alone, `of_genre`, and the lists
        `member` and, with a history, `newcomer`."""
        joint, metadata = values["joint"], values["metadata"]
        evidence = tf.reduce_logsumexp(joint, axis=1) - self._log_shares
        if self._genre is not None:
            num_genres = joint.shape[1]
            genre = metadata[:, self._genre][:, 1 : 1 + num_genres]
            known = tf.reduce_sum(genre, axis=1, keepdims=True) > 0
            given = tf.nn.log_softmax(tf.einsum("bg,bgc->bc", genre, joint))
            evidence = tf.where(known, given - tf.nn.log_softmax(values["of_genre"]), evidence)
        with_history, without = self._picture_weight
        weight = tf.fill(tf.shape(metadata[:, :1]), without)
        of_metadata = _mean(values["member"])
        if self._history is not None:
            known = tf.reduce_any(metadata[:, self._history] != 0, axis=1, keepdims=True)
            weight = tf.where(known, with_history, weight)
            of_metadata = tf.where(known, of_metadata, _mean(values["newcomer"]))
        of_metadata = tf.nn.log_softmax(of_metadata)
        together = tf.nn.log_softmax(of_metadata + weight * evidence)
        anything = tf.reduce_any(metadata != 0, axis=1, keepdims=True)
        return tf.where(anything, together, values["of_picture"])


def history_in(stretches: Mapping[str, slice]) -> slice | None:
    """Which of the encoder's stretches tell of other tracks, as one: they are side by side."""
    found = [places for name, places in stretches.items() if name in HISTORIES]
    return slice(found[0].start, found[-1].stop) if found else None


def _mean(answers: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n(answers) / len(answers)


class Without(keras.layers.Layer):
    """Metadata [batch, size] with zeros, which are unknown, in these places."""

    def __init__(self, places: slice, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})
        self._places = places

    def call(self, metadata: tf.Tensor) -> tf.Tensor:
        size = metadata.shape[1]
        kept = np.ones(size, np.float32)
        kept[self._places] = 0
        return metadata * kept


class GenreSlice(keras.layers.Layer):
    """The places [batch, genres] of the metadata that say the genre."""

    def __init__(self, stretch: slice, num_genres: int, **kwargs: Any):
        super().__init__(**kwargs)
        self._stretch, self._num_genres = stretch, num_genres

    def call(self, metadata: tf.Tensor) -> tf.Tensor:
        return metadata[:, self._stretch][:, 1 : 1 + self._num_genres]


def member(
    metadata: Any,
    config: FusionConfig,
    *,
    name: str,
    class_shares: Sequence[float],
    dropout: float,
    seeds: Seeds,
) -> Any:
    """The answer of dense layers on the metadata: logits [batch, 1, classes] and log listens."""
    x = metadata
    for layer, units in enumerate(config.hidden_units, start=1):
        x = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=seeds()),
            dtype="float32",
            name=f"{name}_{layer}_dense",
        )(x)
        x = keras.layers.Dropout(
            dropout, seed=seeds(), dtype="float32", name=f"{name}_{layer}_dropout"
        )(x)
    return JointHead(1, class_shares, seed=seeds(), name=f"{name}_head")(x)


def harmony_tower(
    parts: list[Any], *, num_genres: int, class_shares: Sequence[float], seeds: Seeds
) -> Any:
    """The answer (joint logits, log listens) of chroma and tempo, and where they are known."""
    features, known = Harmony(dtype="float32", name="harmony")(parts)
    x = keras.layers.Dense(
        64,
        activation="relu",
        kernel_initializer=keras.initializers.HeNormal(seed=seeds()),
        dtype="float32",
        name="harmony_dense",
    )(features)
    x = keras.layers.Dropout(0.3, seed=seeds(), dtype="float32", name="harmony_dropout")(x)
    answer = JointHead(num_genres, class_shares, seed=seeds(), name="harmony_head")(x)
    return answer, known


def genre_head(metadata: Any, genre: slice, num_genres: int, class_shares: Sequence[float]) -> Any:
    """Logits [batch, classes] of the genre alone, and of all tracks where it is not known."""
    shares = np.maximum(class_shares, 1e-3)
    return keras.layers.Dense(
        len(class_shares),
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(np.log(shares).tolist()),
        dtype="float32",
        name="genre_shares",
    )(GenreSlice(genre, num_genres, dtype="float32", name="genre")(metadata))
