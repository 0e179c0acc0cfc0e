"""Clips: the windows of a song that pictures are made of, and which clips are refused.

The dataset job and serving both ask here, so that a song is cut and judged the same way on both
sides.
"""

from typing import NamedTuple

import numpy as np

from common import song_parts
from common.audio import Waveform, peak_of
from common.dataset_config import DatasetConfig
from common.pieces import Pieces
from common.rejection import ClipError
from common.song_parts import Choose


def even_windows(waveform: Waveform, *, num_samples: int, count: int = 1) -> list[Waveform]:
    """Cuts evenly spaced windows [num_samples] of a waveform [samples]; a single one is its middle.

    A waveform that is not long enough for `count` windows side by side gives fewer, and one that
    is shorter than a window gives one, zero-padded at the end.
    """
    choose = choose_even(num_samples=num_samples, count=count)
    windows = [waveform[start:stop] for start, stop in choose(len(waveform))]
    return [padded(window, num_samples) for window in windows]


def choose_even(*, num_samples: int, count: int) -> Choose:
    """Returns what chooses the `even_windows` of a waveform, without the padding."""

    def choose(length: int) -> list[tuple[int, int]]:
        starts = even_starts(length, num_samples=num_samples, count=count)
        return [(start, min(start + num_samples, length)) for start in starts]

    return choose


def padded(window: Waveform, num_samples: int) -> Waveform:
    """Returns a window with zeros at its end, so that it has `num_samples`."""
    missing = num_samples - len(window)
    return np.pad(window, (0, missing)) if missing else window


def even_starts(length: int, *, num_samples: int, count: int) -> list[int]:
    """Returns where the `even_windows` of a waveform of `length` samples start."""
    count = max(1, min(count, length // num_samples))
    spare = max(0, length - count * num_samples)
    return [spare * (index + 1) // (count + 1) + index * num_samples for index in range(count)]


def is_silent(window: Waveform, silence_dbfs: float) -> bool:
    """Returns whether the peak of a window lies below a level in dB of full scale."""
    return peak_of(window) < 10 ** (silence_dbfs / 20)


def check_length(length: int, *, sample_rate: int, min_seconds: float) -> float:
    """Returns the seconds of `length` samples; ClipError `too_short` if they are not enough."""
    seconds = length / sample_rate
    if seconds < min_seconds:
        raise ClipError("too_short", f"{seconds:.2f} s, shorter than {min_seconds:g} s")
    return seconds


def audible(windows: list[Waveform], silence_dbfs: float) -> list[Waveform]:
    """Returns the windows that are not silent; ClipError `silent` if all of them are."""
    found = [window for window in windows if not is_silent(window, silence_dbfs)]
    if not found:
        peak = max(peak_of(window) for window in windows)
        level = f"{20 * np.log10(peak):.0f} dBFS" if peak else "digital zero"
        raise ClipError("silent", f"the peak is {level}, below {silence_dbfs:g} dBFS")
    return found


class Decoded(NamedTuple):
    """The windows of a song, float32 [num_samples] each, how long all of it is, in seconds, and how
    they were decoded (`song_parts.Parts`)."""

    windows: list[Waveform]
    seconds: float
    how: str


def decode_windows(
    data: bytes | Pieces,
    *,
    sample_rate: int,
    num_samples: int,
    min_seconds: float,
    silence_dbfs: float,
    count: int = 1,
) -> Decoded:
    """Decodes the windows of a song that pictures are made of.

    Args:
        data: the bytes of the file, or those that `song_parts.bytes_wanted` has asked for.
        sample_rate: of the windows, in Hz.
        num_samples: length of a window.
        min_seconds: the shortest song that is taken.
        silence_dbfs: a window whose peak lies below this level (dB of full scale) is silent.
        count: how many windows, if it is long enough; see `even_windows`.

    Raises:
        ClipError: as `song_parts.load_parts` does; `too_short`, or `silent` if all windows are.
        NotAtHand: all bytes are needed.
    """
    choose = choose_even(num_samples=num_samples, count=count)
    length, parts, how = song_parts.load_parts(data, choose, sample_rate=sample_rate)
    seconds = check_length(length, sample_rate=sample_rate, min_seconds=min_seconds)
    windows = [padded(part, num_samples) for part in parts]
    return Decoded(audible(windows, silence_dbfs), seconds, how)


def choose_records(config: DatasetConfig) -> Choose:
    """Returns what chooses the windows that a dataset has records of."""
    return choose_even(num_samples=config.spectrogram.num_samples, count=config.clips_per_track)


def decode_records(data: bytes | Pieces, config: DatasetConfig) -> Decoded:
    """Decodes the windows that a dataset has records of; raises as `decode_windows` does."""
    return decode_windows(
        data,
        sample_rate=config.spectrogram.sample_rate,
        num_samples=config.spectrogram.num_samples,
        min_seconds=config.min_seconds,
        silence_dbfs=config.silence_dbfs,
        count=config.clips_per_track,
    )
