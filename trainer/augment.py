"""SpecAugment (Park et al., 2019): blanks a random band and a random stretch of a picture."""

import importlib
import warnings

import tensorflow as tf

from beam_pipelines.command import InputError


def masker(*, freq_mask: int, time_mask: int):
    """A function that masks a picture uint8 [height, width], with tensorflow-io's masks.

    Args:
        freq_mask: at most so many mel bands are blanked.
        time_mask: at most so many columns are blanked.

    Raises:
        InputError: tensorflow-io is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Its compiled ops are not for this TensorFlow, and it warns; the masks need none.
            warnings.simplefilter("ignore", UserWarning)
            audio = importlib.import_module("tensorflow_io").audio
    except ImportError as error:
        raise InputError(
            f"config.freq_mask and config.time_mask need tensorflow-io ({error}); it has wheels "
            "for Python 3.10 to 3.12, so use one of these or set both to 0"
        ) from None

    def mask(picture: tf.Tensor) -> tf.Tensor:
        masked = tf.transpose(picture)  # tensorflow-io's have time first
        # Its masks are drawn below, not up to, their parameter.
        masked = audio.freq_mask(masked, freq_mask + 1)
        return tf.transpose(audio.time_mask(masked, time_mask + 1))

    return mask
