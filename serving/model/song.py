"""A song as the model sees it: windows of an audio file, and the spectrogram of each.

The decoder, the windows and the picture are those of the dataset job.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common import audio, audio_features, clips
from common.model_info import ModelInfo

MAX_WINDOWS = 9


class Window(NamedTuple):
    """A part of a song.

    Attributes:
        start: in seconds.
        heard: {`spectrogram`: uint8 [height, width]}, and `chroma` and `tempo` if it takes them.
    """

    start: float
    heard: dict[str, np.ndarray]

    @property
    def picture(self) -> np.ndarray:
        """The spectrogram."""
        return self.heard["spectrogram"]


class Song(NamedTuple):
    """The length of a song, its windows in order, and the place of the middle one among them."""

    seconds: float
    windows: list[Window]
    middle: int


def middle_waveform(data: bytes, info: ModelInfo) -> np.ndarray:
    """Decodes the part of an audio file that the model was trained on: float32 [samples].

    Raises:
        rejection.ClipError: the file can't be used.
    """
    (window,) = clips.clip_windows(
        audio.load_waveform(data, sample_rate=info.signal.sample_rate),
        sample_rate=info.signal.sample_rate,
        num_samples=info.signal.num_samples,
        min_seconds=info.min_seconds,
        silence_dbfs=info.silence_dbfs,
    )
    return window


def hear_middle(data: bytes, info: ModelInfo) -> dict[str, np.ndarray]:
    """Hears `middle_waveform`, see `Window.heard`; raises as it does."""
    heard: dict[str, np.ndarray] = dict(
        audio_features.of_window(middle_waveform(data, info), info.signal, info.inputs)
    )
    return heard


def stacked(heard: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{name: array [windows, …]} of what was heard in several windows."""
    return {name: np.stack([each[name] for each in heard]) for name in heard[0]}


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
        rejection.ClipError: the file can't be used, is longer than `max_seconds`, has more than
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
            heard = dict(audio_features.of_window(piece, params, info.inputs))
            windows.append(Window(start / params.sample_rate, heard))
    return Song(seconds, windows, middle)
