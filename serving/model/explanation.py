"""Which seconds speak for a prediction, by occlusion.

Each second is covered in turn, together with its two neighbours since a single one is little to
cover: in every mel band the mean of the whole picture takes the place of what was heard. How far
the predicted class's probability falls by that is how much the second speaks for it; a negative
number speaks against it. (M. D. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional
Networks", 2014.)
"""

from typing import NamedTuple

import numpy as np

from common.spectrogram import SpectrogramParams

_NEIGHBOURS = 1


class Span(NamedTuple):
    """A part of a window, in seconds from its start."""

    start: float
    end: float


def spans(params: SpectrogramParams, seconds: float) -> list[Span]:
    """Cuts the sound of a window into seconds; the last may be half a second shorter or longer."""
    seconds = min(seconds, params.seconds)
    starts = range(max(1, round(seconds)))
    return [Span(float(s), float(min(s + 1, seconds) if s + 1 < len(starts) else seconds))
            for s in starts]  # fmt: skip


def occluded(picture: np.ndarray, params: SpectrogramParams, parts: list[Span]) -> np.ndarray:
    """Covers each part and its neighbours in a picture: uint8 [parts, height, width]."""
    columns_per_second = params.sample_rate / (params.hop * params.frames_per_column)
    mean = np.rint(picture.mean(axis=1, keepdims=True)).astype(np.uint8)
    pictures = np.repeat(picture[np.newaxis], len(parts), axis=0)
    for place, part in enumerate(parts):
        first = round(max(0.0, part.start - _NEIGHBOURS) * columns_per_second)
        last = round((part.end + _NEIGHBOURS) * columns_per_second)
        pictures[place, :, first:last] = mean
    return pictures


def weights(whole: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Returns how far the predicted class's probability falls: float [parts].

    Args:
        whole: probabilities [classes] of the picture.
        covered: probabilities [parts, classes] of `occluded`.
    """
    answer = int(whole.argmax())
    fall: np.ndarray = whole[answer] - covered[:, answer]
    return fall
