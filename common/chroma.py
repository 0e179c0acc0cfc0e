"""Harmony: how strong each of the twelve pitch classes is, column by column of the picture."""

import functools

import numpy as np
from numpy.typing import NDArray

from common.spectrogram import SpectrogramParams

NUM_CLASSES = 12
# A column that is weaker than this holds no pitch: the least power that the picture's decibels
# tell from silence, too.
MIN_POWER = 1e-10


def shape(params: SpectrogramParams) -> tuple[int, int]:
    """Returns (pitch classes, columns); row 0 is C."""
    return NUM_CLASSES, params.shape[1]


@functools.cache
def pitch_class_bank(params: SpectrogramParams) -> NDArray[np.float64]:
    """`librosa.filters.chroma`, tuned to A = 440 Hz: float64 [12, 1 + fft_size / 2]."""
    import librosa  # here, since reading the parameters alone should not cost its import

    bank: NDArray[np.float64] = librosa.filters.chroma(
        sr=params.sample_rate, n_fft=params.fft_size, tuning=0.0, dtype=np.float64
    )
    bank.flags.writeable = False
    return bank


def chroma(columns: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.uint8]:
    """Returns the pitch classes uint8 [12, width] of columns of power, 255 the strongest of each.

    What `librosa.feature.chroma_stft(norm=None, tuning=0)` gives, averaged over the frames of a
    column (before its filter bank, which is linear) and then divided by the column's maximum.

    Args:
        columns: float32 [width, 1 + fft_size / 2] of `spectrogram.column_power`.
        params: of the picture.
    """
    strength = pitch_class_bank(params) @ columns.astype(np.float64).T
    strongest = np.maximum(strength.max(axis=0), MIN_POWER)
    levels: NDArray[np.uint8] = np.rint(strength / strongest * 255).astype(np.uint8)
    return levels
