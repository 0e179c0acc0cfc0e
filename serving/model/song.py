"""A song as the model sees it: windows of an audio file, and the spectrogram of each.

The decoder, the windows and the picture are those of the dataset job.
"""

from typing import NamedTuple

import numpy as np

from common import audio, clips, spectrogram
from common.model_info import ModelInfo

MAX_WINDOWS = 9


class Window(NamedTuple):
    """A part of a song: where it starts, in seconds, and its picture uint8 [height, width]."""

    start: float
    picture: np.ndarray


class Song(NamedTuple):
    """The length of a song, its windows in order, and the place of the middle one among them."""

    seconds: float
    windows: list[Window]
    middle: int


def middle_waveform(data: bytes, info: ModelInfo) -> np.ndarray:
    """Decodes the part of an audio file that the model was trained on: float32 [samples].

    Raises:
        audio.ClipError: the file can't be used.
    """
    (window,) = clips.clip_windows(
        audio.load_waveform(data, sample_rate=info.signal.sample_rate),
        sample_rate=info.signal.sample_rate,
        num_samples=info.signal.num_samples,
        min_seconds=info.min_seconds,
        silence_dbfs=info.silence_dbfs,
    )
    return window


def middle_picture(data: bytes, info: ModelInfo) -> np.ndarray:
    """Makes the picture uint8 [height, width] of `middle_waveform`; raises as it does."""
    return spectrogram.picture(middle_waveform(data, info), info.signal)


def load_song(
    data: bytes,
    info: ModelInfo,
    *,
    max_seconds: float = audio.MAX_SECONDS,
    max_samples: int = audio.MAX_SAMPLES,
) -> Song:
    """Decodes all windows of an audio file that the model can predict for.

    The windows lie evenly, side by side or apart, an odd number of them up to MAX_WINDOWS, so that
    the middle one is what `middle_waveform` gives. Silent ones are left out.

    Raises:
        audio.ClipError: the file can't be used, is longer than `max_seconds`, has more than
            `max_samples` of all channels, or its middle is silent.
    """
    params = info.signal
    waveform = audio.load_waveform(
        data, sample_rate=params.sample_rate, max_seconds=max_seconds, max_samples=max_samples
    )
    seconds = clips.check_length(
        waveform, sample_rate=params.sample_rate, min_seconds=info.min_seconds
    )
    count = max(1, min(MAX_WINDOWS, len(waveform) // params.num_samples))
    count -= count % 2 == 0
    length = params.num_samples
    starts = clips.even_starts(len(waveform), num_samples=length, count=count)
    pieces = clips.even_windows(waveform, num_samples=length, count=count)
    clips.audible([pieces[count // 2]], info.silence_dbfs)
    windows: list[Window] = []
    middle = 0
    for place, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        if place == count // 2:
            middle = len(windows)
        if not clips.is_silent(piece, info.silence_dbfs):
            picture = spectrogram.picture(piece, params)
            windows.append(Window(start / params.sample_rate, picture))
    return Song(seconds, windows, middle)
