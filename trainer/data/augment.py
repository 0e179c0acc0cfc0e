"""What training changes in its examples, each record by its index in the epoch alone.

Blanked bands and stretches (SpecAugment: Park et al., 2019), pictures rolled along their time, made
louder or softer, mixed in pairs (mixup: Zhang et al., 2018), and inputs beside the picture left
out. All is drawn from the seed of the epoch and the record's index, and from nothing that was drawn
before, so that a training that goes on, and several workers, draw what one that never stopped does.

The masks are those of `tensorflow_io.audio.freq_mask` and `time_mask`: a width drawn evenly, then
a start. These are not called, since they draw from generators that go on from one pass to the next,
alike in every worker, and that no checkpoint has.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.train_config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is changed, see `TrainConfig`; nothing by default.

    Attributes:
        freq_mask, time_mask: at most so many bands and columns of a picture are blanked.
        fill: the level of each band that is blanked; 0 in all where there are none.
        time_roll: whether a picture begins anywhere, its beginning put after its end.
        time_crop: how many columns are left of it; 0 leaves all.
        level_shift: deviation of what is added to the levels of a picture.
        mixup: both parameters of the beta distribution that pairs are mixed by; 0 mixes none.
        input_dropout: how likely each input beside the picture is left out, by its number.
        groups: which input, by its number, each place of the metadata belongs to.
        keep_whole: whether the pictures as they are stored stay beside those that are changed.
    """

    freq_mask: int = 0
    time_mask: int = 0
    fill: tuple[int, ...] = ()
    time_roll: bool = False
    time_crop: int = 0
    level_shift: float = 0.0
    mixup: float = 0.0
    input_dropout: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()
    keep_whole: bool = False

    @classmethod
    def of(cls, config: TrainConfig, **more: Any) -> "Augmentation":
        """What a config asks for, and `more` that it does not say."""
        return cls(
            freq_mask=config.freq_mask,
            time_mask=config.time_mask,
            time_roll=config.time_roll,
            time_crop=config.time_crop,
            level_shift=config.level_shift,
            mixup=config.mixup,
            **more,
        )

    @property
    def changes_pictures(self) -> bool:
        """Whether a picture that is fed is another than the one that is stored."""
        return bool(
            self.freq_mask
            or self.time_mask
            or self.time_roll
            or self.time_crop
            or self.level_shift
            or self.mixup
        )

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return self.changes_pictures or any(self.input_dropout)


def augment(
    values: Mapping[str, tf.Tensor], indices: tf.Tensor, augmentation: Augmentation, *, seed: int
) -> dict[str, tf.Tensor]:
    """Changes the columns of a batch.

    Args:
        values: `spectrogram` uint8 [batch, height, width], and what else there is.
        indices: int64 [batch], of the records in their epoch; of a pair that is mixed they are an
            even number and the next.
        augmentation: what is changed.
        seed: of the epoch, below 2³¹.

    Returns:
        the columns; with mixup also `own_share` float32 [batch], how much of each picture is its
        own and not the other's of its pair; and `whole`, the stored picture, where it is asked for.
    """
    values = dict(values)
    pictures = values["spectrogram"]
    if augmentation.keep_whole and augmentation.changes_pictures:
        values["whole"] = pictures
    if augmentation.time_roll or augmentation.time_crop or augmentation.level_shift:
        moved = drawn(indices, seed=_of_its_own(seed, 1), count=2)
        if augmentation.time_roll or augmentation.time_crop:
            pictures = rolled(
                pictures,
                moved[:, 0],
                columns=augmentation.time_crop or pictures.shape[2],
                wraps=augmentation.time_roll,
            )
        if augmentation.level_shift:
            pictures = louder(pictures, moved[:, 1], deviation=augmentation.level_shift)
    if augmentation.freq_mask or augmentation.time_mask:
        pictures = mask(
            pictures,
            indices,
            freq_mask=augmentation.freq_mask,
            time_mask=augmentation.time_mask,
            seed=seed,
            fill=augmentation.fill,
        )
    values["spectrogram"] = pictures
    if any(augmentation.input_dropout) and "metadata" in values:
        rates = np.asarray(augmentation.input_dropout)
        draws = drawn(indices, seed=_of_its_own(seed, 2), count=len(rates))
        kept = tf.cast(draws >= rates, tf.float32)
        values["metadata"] *= tf.gather(kept, np.asarray(augmentation.groups), axis=1)
    if augmentation.mixup:
        values["own_share"] = own_shares(
            indices, alpha=augmentation.mixup, seed=_of_its_own(seed, 3)
        )
        values["spectrogram"] = mixed(values["spectrogram"], values["own_share"])
    return values


def drawn(indices: tf.Tensor, *, seed: int, count: int) -> tf.Tensor:
    """Numbers from 0 to 1, float64 [batch, count], by seed and index."""
    return tf.map_fn(
        lambda index: tf.random.stateless_uniform(
            [count], tf.stack([seed, index]), dtype=tf.float64
        ),
        indices,
        fn_output_signature=tf.TensorSpec([count], tf.float64),
    )


def rolled(pictures: tf.Tensor, start: tf.Tensor, *, columns: int, wraps: bool) -> tf.Tensor:
    """Some columns of pictures: uint8 [batch, height, columns].

    Args:
        pictures: uint8 [batch, height, width].
        start: float64 [batch], 0 ≤ … < 1: evenly over the columns to begin at.
        columns: how many, at most all.
        wraps: whether the beginning follows the end, so that any column may be the first.
    """
    width = pictures.shape[2]
    starts = tf.cast(start * (width if wraps else width - columns + 1), tf.int32)
    places = (starts[:, tf.newaxis] + tf.range(columns)) % width
    taken = tf.gather(pictures, places, axis=2, batch_dims=1)
    return tf.ensure_shape(taken, [None, pictures.shape[1], columns])


def louder(pictures: tf.Tensor, quantile: tf.Tensor, *, deviation: float) -> tf.Tensor:
    """Adds a normally distributed level to each picture; levels stay between 0 and 255.

    Args:
        pictures: uint8 [batch, height, width].
        quantile: float64 [batch], 0 ≤ … < 1, of what is added.
        deviation: of what is added.
    """
    shift = deviation * tf.math.ndtri(tf.clip_by_value(quantile, 1e-6, 1 - 1e-6))
    levels = tf.cast(pictures, tf.float32) + tf.cast(shift, tf.float32)[:, None, None]
    return tf.cast(tf.round(tf.clip_by_value(levels, 0.0, 255.0)), tf.uint8)


def own_shares(indices: tf.Tensor, *, alpha: float, seed: int) -> tf.Tensor:
    """How much of an example is its own, float32 [batch]: a half at least, beta distributed."""
    gammas = tf.map_fn(
        lambda index: tf.random.stateless_gamma([2], tf.stack([seed, index]), alpha=alpha),
        indices,
        fn_output_signature=tf.TensorSpec([2], tf.float32),
    )
    share = (gammas[:, 0] + 1e-9) / (gammas[:, 0] + gammas[:, 1] + 2e-9)
    return tf.maximum(share, 1 - share)


def mixed(values: tf.Tensor, own_share: tf.Tensor) -> tf.Tensor:
    """Mixes each example with the other of its pair, keeping dtype and shape [batch, …]."""
    share = tf.reshape(own_share, [-1] + [1] * (len(values.shape) - 1))
    numbers = tf.cast(values, tf.float32)
    result = share * numbers + (1 - share) * other_of_pair(numbers)
    return tf.cast(tf.round(result) if values.dtype == tf.uint8 else result, values.dtype)


def other_of_pair(values: tf.Tensor) -> tf.Tensor:
    """The first and second of [batch, …] swapped, and so on; `batch` is even."""
    pairs = tf.reshape(values, tf.concat([[-1, 2], tf.shape(values)[1:]], axis=0))
    return tf.reshape(tf.reverse(pairs, axis=[1]), tf.shape(values))


def mask(
    pictures: tf.Tensor,
    indices: tf.Tensor,
    *,
    freq_mask: int,
    time_mask: int,
    seed: int,
    fill: tuple[int, ...] = (),
) -> tf.Tensor:
    """Masks pictures.

    Args:
        pictures: uint8 [batch, height, width].
        indices: int64 [batch], of the records in their epoch.
        freq_mask: at most so many mel bands are blanked, no more than there are.
        time_mask: at most so many columns are blanked, no more than there are.
        seed: of the epoch.
        fill: the level of each band where it is blanked; 0 in all where there are none.
    """
    # A width and a start for each of the two, from 0 to 1.
    draws = drawn(indices, seed=seed, count=4)
    height, width = pictures.shape[1:]
    bands = blanked(draws[:, 0], draws[:, 1], size=height, limit=freq_mask)
    columns = blanked(draws[:, 2], draws[:, 3], size=width, limit=time_mask)
    levels = tf.constant(fill or (0,) * int(height), tf.uint8)[:, None]
    return tf.where(bands[:, :, None] | columns[:, None, :], levels, pictures)


def blanked(width: tf.Tensor, start: tf.Tensor, *, size: int, limit: int) -> tf.Tensor:
    """Returns which of `size` rows are blanked, bool [batch, size].

    Args:
        width: float64 [batch], 0 ≤ … < 1: evenly over the widths 0 to `limit`.
        start: the same over the starts 0 to `size` − width − 1, of a whole mask 0.
        size: how many rows there are.
        limit: at most so many are blanked, no more than `size`.
    """
    widths = tf.cast(width * (limit + 1), tf.int32)
    starts = tf.cast(start * tf.cast(size - widths, tf.float64), tf.int32)
    rows = tf.range(size)
    return (rows >= starts[:, None]) & (rows < (starts + widths)[:, None])


def _of_its_own(seed: int, number: int) -> int:
    """Another seed below 2³¹ for each number, so that no two draws are the same."""
    return int(np.random.default_rng([seed, number]).integers(1, 2**31))
