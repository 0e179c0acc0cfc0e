"""A song as the model sees it: windows of an audio file, and the spectrogram of each.

The decoder, the windows and the picture are those of the dataset job.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common import audio, audio_features, clips, song_parts
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
    decoded = clips.decode_windows(
        data,
        sample_rate=info.signal.sample_rate,
        num_samples=info.signal.num_samples,
        min_seconds=info.min_seconds,
        silence_dbfs=info.silence_dbfs,
    )
    return decoded.windows[0]


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
    length, parts, _ = song_parts.load_parts(
        data,
        lambda length: _choose(length, params.num_samples),
        sample_rate=params.sample_rate,
        max_seconds=max_seconds,
        max_samples=max_samples,
    )
    seconds = clips.check_length(
        length, sample_rate=params.sample_rate, min_seconds=info.min_seconds
    )
    pieces = [clips.padded(part, params.num_samples) for part in parts]
    clips.audible([pieces[len(pieces) // 2]], info.silence_dbfs)
    windows: list[Window] = []
    middle = 0
    starts = [start for start, _ in _choose(length, params.num_samples)]
    for place, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        if place == len(pieces) // 2:
            middle = len(windows)
        if not clips.is_silent(piece, info.silence_dbfs):
            heard = dict(audio_features.of_window(piece, params, info.inputs))
            windows.append(Window(start / params.sample_rate, heard))
    return Song(seconds, windows, middle)


def _choose(length: int, num_samples: int) -> list[tuple[int, int]]:
    """Returns where the windows of a waveform of so many samples lie: (start, stop)."""
    count = max(1, min(MAX_WINDOWS, length // num_samples))
    count -= count % 2 == 0
    return clips.choose_even(num_samples=num_samples, count=count)(length)
