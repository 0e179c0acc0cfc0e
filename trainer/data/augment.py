"""SpecAugment (Park et al., 2019): blanks a random band and a random stretch of a picture.

The masks are those of `tensorflow_io.audio.freq_mask` and `time_mask`: a width drawn evenly, then
a start, and zeros. These are not called, since they draw from generators that go on from one pass
to the next, alike in every worker, and that no checkpoint has. Here each record's masks depend on
its index in the epoch and on nothing that was drawn before.
"""

import tensorflow as tf


def mask(
    pictures: tf.Tensor, indices: tf.Tensor, *, freq_mask: int, time_mask: int, seed: int
) -> tf.Tensor:
    """Masks pictures.

    Args:
        pictures: uint8 [batch, height, width].
        indices: int64 [batch], of the records in their epoch.
        freq_mask: at most so many mel bands are blanked, no more than there are.
        time_mask: at most so many columns are blanked, no more than there are.
        seed: of the epoch.
    """
    # A width and a start for each of the two, from 0 to 1.
    drawn = tf.map_fn(
        lambda index: tf.random.stateless_uniform([4], tf.stack([seed, index]), dtype=tf.float64),
        indices,
        fn_output_signature=tf.TensorSpec([4], tf.float64),
    )
    height, width = pictures.shape[1:]
    bands = blanked(drawn[:, 0], drawn[:, 1], size=height, limit=freq_mask)
    columns = blanked(drawn[:, 2], drawn[:, 3], size=width, limit=time_mask)
    return tf.where(bands[:, :, None] | columns[:, None, :], tf.zeros([], tf.uint8), pictures)


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
