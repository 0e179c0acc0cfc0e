"""The audio features of a window (spectrogram, chroma, tempo), from one STFT."""

import numpy as np
from numpy.typing import NDArray

from common import spectrogram
from common.chroma import chroma, pitch_class_bank
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams
from common.tempo import tempo


def load_banks(params: SpectrogramParams, inputs: Inputs) -> None:
    """Makes the filter banks before the first clip needs them; those of chroma take a second."""
    spectrogram.mel_filter_bank(params)
    if inputs.chroma:
        pitch_class_bank(params)


def of_window(
    window: NDArray[np.float32], params: SpectrogramParams, inputs: Inputs
) -> dict[str, NDArray[np.uint8]]:
    """Returns {feature: uint8 array} of a window float32 [num_samples], values in ±1.

    Always `spectrogram` [num_mels, width]; `chroma` [12, width] and `tempo` [384] where the inputs
    ask for them.
    """
    power = spectrogram.frame_power(window, params)
    columns = spectrogram.column_power(power, params)
    heard = {"spectrogram": spectrogram.picture_of(columns, params)}
    if inputs.chroma:
        heard["chroma"] = chroma(columns, params)
    if inputs.tempo:
        heard["tempo"] = tempo(power, params)
    return heard
