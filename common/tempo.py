"""Rhythm: a tempogram averaged over time, which says at which lags a clip's onsets repeat."""

import functools

import numpy as np
from numpy.typing import NDArray

from common import spectrogram
from common.spectrogram import SpectrogramParams

# As librosa has it: the onsets of 384 frames, 9 s of the picture's, are compared with themselves.
NUM_LAGS = 384
# Onsets weaker than this, in dB from one frame to the next, are the noise of the arithmetic in a
# sound that does not change.
MIN_ONSET = 0.05
# Those of `librosa.power_to_db`.
MIN_POWER, TOP_DB = 1e-10, 80.0
# Bands whose filters are multiplied at once, from the first bin that they touch to the last: most
# of the bank is zeros. So few frames at once stay in the processor's cache. More of either take
# longer, and the whole bank takes longest.
_BANDS_AT_ONCE, _FRAMES_AT_ONCE = 8, 212


def shape() -> tuple[int]:
    """Returns (lags,): of 0, 1, … frames."""
    return (NUM_LAGS,)


@functools.cache
def onset_delay(params: SpectrogramParams) -> int:
    """Returns by how many frames `librosa.onset.onset_strength` shifts onsets to centre them."""
    return 1 + params.fft_size // (2 * params.hop)


def min_energy() -> float:
    """Returns the autocorrelation at lag 0 of onsets of MIN_ONSET."""
    window = spectrogram.hann_window(NUM_LAGS).astype(np.float64)
    return float((window**2).sum()) * MIN_ONSET**2


@functools.cache
def _blocks(params: SpectrogramParams) -> list[tuple[slice, NDArray[np.float64]]]:
    """Returns (bins, filters [bins, bands]) of the picture's bank, a few bands at a time."""
    bank = spectrogram.mel_filter_bank(params)
    blocks = []
    for start in range(0, params.num_mels, _BANDS_AT_ONCE):
        some = bank[start : start + _BANDS_AT_ONCE]
        touched = np.flatnonzero(some.any(axis=0))
        bins = slice(touched[0], touched[-1] + 1) if len(touched) else slice(0, 1)
        blocks.append((bins, np.ascontiguousarray(some[:, bins].T)))
    return blocks


def onset_strength(power: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.float64]:
    """By how many dB the mel bands grow from frame to frame, on average: float64 [frames].

    `librosa.onset.onset_strength` of the picture's mel bands in dB.

    Args:
        power: float32 [frames, 1 + fft_size / 2] of `spectrogram.frame_power`.
        params: of the picture.
    """
    mel = np.empty((len(power), params.num_mels))
    for start in range(0, len(power), _FRAMES_AT_ONCE):
        frames = slice(start, start + _FRAMES_AT_ONCE)
        first = 0
        for bins, filters in _blocks(params):
            last = first + filters.shape[1]
            np.matmul(power[frames, bins].astype(np.float64), filters, out=mel[frames, first:last])
            first = last
    decibels = 10 * np.log10(np.maximum(mel, MIN_POWER))
    decibels = np.maximum(decibels, decibels.max() - TOP_DB)
    growth = np.maximum(np.diff(decibels, axis=0), 0).mean(axis=1)
    return np.pad(growth, (onset_delay(params), 0))[: len(power)]


def tempo(power: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.uint8]:
    """Returns the tempo spectrum uint8 [384]: entry i tells how alike onsets i frames apart are.

    The mean over time of `librosa.feature.tempogram`, 255 at lag 0, taken at the middle of each
    column of the picture: as its windows are 384 frames long, all frames give the same to a tenth
    of a level.

    Args:
        power: float32 [frames, 1 + fft_size / 2] of `spectrogram.frame_power`.
        params: of the picture.
    """
    import scipy.fft

    onsets = onset_strength(power, params)
    padded = np.pad(onsets, NUM_LAGS // 2, mode="linear_ramp")
    frames = np.lib.stride_tricks.sliding_window_view(padded, NUM_LAGS)
    frames = frames[params.frames_per_column // 2 : len(onsets) : params.frames_per_column]
    windowed = frames * spectrogram.hann_window(NUM_LAGS)
    energy = np.maximum((windowed**2).sum(axis=1), min_energy())
    spectrum = scipy.fft.rfft(windowed, n=2 * NUM_LAGS, axis=1)
    # The transform back is linear, so that of the mean is the mean.
    mean = ((spectrum.real**2 + spectrum.imag**2) / energy[:, None]).mean(axis=0)
    autocorrelation = scipy.fft.irfft(mean)[:NUM_LAGS]
    levels: NDArray[np.uint8] = np.rint(np.clip(autocorrelation, 0, 1) * 255).astype(np.uint8)
    return levels
