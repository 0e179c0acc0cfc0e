"""Clips: the windows of a waveform that pictures are made of, and which clips are refused.

The dataset job and serving both ask here, so that a song is cut and judged the same way on both
sides.
"""

import numpy as np
from numpy.typing import NDArray

from common.dataset_config import DatasetConfig
from common.rejection import ClipError

Waveform = NDArray[np.float32]


def even_windows(waveform: Waveform, *, num_samples: int, count: int = 1) -> list[Waveform]:
    """Cuts evenly spaced windows [num_samples] of a waveform [samples]; a single one is its middle.

    A waveform that is not long enough for `count` windows side by side gives fewer, and one that
    is shorter than a window gives one, zero-padded at the end.
    """
    starts = even_starts(len(waveform), num_samples=num_samples, count=count)
    windows = [waveform[start : start + num_samples] for start in starts]
    return [np.pad(window, (0, num_samples - len(window))) for window in windows]


def even_starts(length: int, *, num_samples: int, count: int) -> list[int]:
    """Returns where the `even_windows` of a waveform of `length` samples start."""
    count = max(1, min(count, length // num_samples))
    spare = max(0, length - count * num_samples)
    return [spare * (index + 1) // (count + 1) + index * num_samples for index in range(count)]


def is_silent(window: Waveform, silence_dbfs: float) -> bool:
    """Returns whether the peak of a window lies below a level in dB of full scale."""
    return float(np.abs(window).max()) < 10 ** (silence_dbfs / 20)


def check_length(waveform: Waveform, *, sample_rate: int, min_seconds: float) -> float:
    """Returns the seconds of a waveform; ClipError `too_short` if it is not long enough."""
    seconds = len(waveform) / sample_rate
    if seconds < min_seconds:
        raise ClipError("too_short", f"{seconds:.2f} s, shorter than {min_seconds:g} s")
    return seconds


def audible(windows: list[Waveform], silence_dbfs: float) -> list[Waveform]:
    """Returns the windows that are not silent; ClipError `silent` if all of them are."""
    found = [window for window in windows if not is_silent(window, silence_dbfs)]
    if not found:
        peak = max(float(np.abs(window).max()) for window in windows)
        level = f"{20 * np.log10(peak):.0f} dBFS" if peak else "digital zero"
        raise ClipError("silent", f"the peak is {level}, below {silence_dbfs:g} dBFS")
    return found


def clip_windows(
    waveform: Waveform,
    *,
    sample_rate: int,
    num_samples: int,
    min_seconds: float,
    silence_dbfs: float,
    count: int = 1,
) -> list[Waveform]:
    """Cuts the windows of a waveform that pictures are made of: each float32 [num_samples].

    Args:
        waveform: float32 [samples].
        sample_rate: of it, in Hz.
        num_samples: length of a window.
        min_seconds: the shortest waveform that is taken.
        silence_dbfs: a window whose peak lies below this level (dB of full scale) is silent.
        count: how many windows, if it is long enough; see `even_windows`.

    Raises:
        ClipError: `too_short`, or `silent` if all windows are.
    """
    check_length(waveform, sample_rate=sample_rate, min_seconds=min_seconds)
    windows = even_windows(waveform, num_samples=num_samples, count=count)
    return audible(windows, silence_dbfs)


def windows_of(waveform: Waveform, config: DatasetConfig) -> list[Waveform]:
    """Cuts the windows that a dataset has records of; raises as `clip_windows` does."""
    return clip_windows(
        waveform,
        sample_rate=config.spectrogram.sample_rate,
        num_samples=config.spectrogram.num_samples,
        min_seconds=config.min_seconds,
        silence_dbfs=config.silence_dbfs,
        count=config.clips_per_track,
    )
