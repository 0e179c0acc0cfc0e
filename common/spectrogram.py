"""The log-mel spectrogram of a clip, by default 102 bands × 159 columns of uint8.

The parameters travel with the dataset (`dataset_info.json`) and with the export
(`model_info.json`), so whoever comes later computes the same picture from the same numbers.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import require

# What spectrograms are shown in, and what an RGB network sees them in.
COLORMAP = "magma"

# Of the mel scale: linear up to 1 kHz, from where 27 steps take the frequency to 6.4 times as much.
_HZ_PER_MEL = 200 / 3
_LOG_HZ = 1_000.0
_LOG_MEL = _LOG_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27

# That are transformed together: few enough to stay in a core's cache, which takes a fifth less time
# than all of a clip.
_FRAMES_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrogramParams:
    """What turns a waveform into a log-mel spectrogram.

    Attributes:
        sample_rate: in Hz, of the waveform.
        num_samples: length of the window taken from the middle of the clip, in samples.
        fft_size: length of the Hann window and of the Fourier transform, in samples.
        hop: samples from one frame to the next.
        num_mels: Slaney mel bands from 0 Hz to half the sample rate; the picture's height.
        frames_per_column: frames whose power is averaged into one column.
        floor_db: what lies this far below the clip's loudest pixel, or lower, is black.
    """

    sample_rate: int = 22_050
    num_samples: int = 660_920
    fft_size: int = 2_048
    hop: int = 520
    num_mels: int = 102
    frames_per_column: int = 8
    floor_db: float = 80.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.type is float else int
            require(
                isinstance(value, kinds) and value > 0,
                f"config.spectrogram.{field.name}: {value!r} is not a number above 0",
            )
        require(
            self.hop <= self.fft_size,
            f"config.spectrogram.hop: {self.hop} is more than fft_size, {self.fft_size}",
        )
        require(
            self.shape[1] >= 1,
            f"config.spectrogram.num_samples: {self.num_samples} are not enough for one column",
        )

    @property
    def num_frames(self) -> int:
        return 1 + self.num_samples // self.hop

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (height, width) of the spectrogram: mel bands, columns of time."""
        return self.num_mels, self.num_frames // self.frames_per_column

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def hz_to_mel(hz: ArrayLike) -> NDArray[np.float64]:
    """Returns frequencies on the mel scale of M. Slaney (Auditory Toolbox, 1998).

    It is linear up to 1 kHz and logarithmic above, as `librosa.hz_to_mel` has it.
    """
    hz = np.asarray(hz, np.float64)
    above = _LOG_MEL + np.log(np.maximum(hz, _LOG_HZ) / _LOG_HZ) / _LOG_STEP
    return np.where(hz >= _LOG_HZ, above, hz / _HZ_PER_MEL)


def mel_to_hz(mel: ArrayLike) -> NDArray[np.float64]:
    """Returns the frequencies of places on the scale of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    above = _LOG_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _LOG_MEL) - _LOG_MEL))
    return np.where(mel >= _LOG_MEL, above, mel * _HZ_PER_MEL)


@functools.cache
def mel_filter_bank(params: SpectrogramParams) -> NDArray[np.float64]:
    """Returns the mel filters, float64 [num_mels, 1 + fft_size / 2], to the bit librosa's.

    Triangles of equal area, evenly spaced in mel: `librosa.filters.mel`, whose import takes a
    process longer than all else that it needs to decode.
    """
    top = hz_to_mel(params.sample_rate / 2)
    edges = mel_to_hz(np.linspace(0, top, params.num_mels + 2))
    ramps = np.subtract.outer(edges, np.fft.rfftfreq(params.fft_size, d=1 / params.sample_rate))
    widths = np.diff(edges)[:, np.newaxis]
    triangles = np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:])
    bank: NDArray[np.float64] = (
        np.maximum(0, triangles) * (2 / (edges[2:] - edges[:-2]))[:, np.newaxis]
    )
    bank.flags.writeable = False
    return bank


@functools.cache
def hann_window(size: int) -> NDArray[np.float32]:
    """Returns the periodic Hann window, float32 [size]."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    window.flags.writeable = False
    return window


def frame_power(window: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.float32]:
    """Returns the power spectrum of each frame of a column: float32 [frames, 1 + fft_size / 2].

    The short-time Fourier transform of `librosa.stft(center=True, pad_mode="constant")`, squared.

    Args:
        window: float32 [num_samples], values in ±1.
        params: of the picture.
    """
    import scipy.fft

    padded = np.pad(window, params.fft_size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, params.fft_size)[:: params.hop]
    frames = frames[: params.shape[1] * params.frames_per_column]
    power = np.empty((len(frames), 1 + params.fft_size // 2), np.float32)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        spectrum = scipy.fft.rfft(frames[part] * hann_window(params.fft_size), axis=1)
        power[part] = spectrum.real**2 + spectrum.imag**2
    return power


def column_power(power: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.float32]:
    """Averages the power of the frames of each column: float32 [width, 1 + fft_size / 2]."""
    by_column = power.reshape(params.shape[1], params.frames_per_column, -1)
    mean: NDArray[np.float32] = by_column.mean(axis=1)
    return mean


def picture(window: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.uint8]:
    """Returns the log-mel spectrogram uint8 [num_mels, width] of a window float32 [num_samples]."""
    return picture_of(column_power(frame_power(window, params), params), params)


def picture_of(columns: NDArray[np.float32], params: SpectrogramParams) -> NDArray[np.uint8]:
    """Returns the log-mel spectrogram uint8 [num_mels, width] of the power of its columns.

    255 is the loudest pixel of the clip, 0 is `floor_db` below it; row 0 is the lowest band.
    Averaging before the filter bank gives what averaging after it would (both are linear) at an
    eighth of the work. From there on it is float64: matrix products and logarithms differ in
    their last bits from one processor to the next, which in float64 no longer moves a byte.
    The decibels are those of `librosa.power_to_db(ref=np.max, amin=1e-10, top_db=floor_db)`.

    Args:
        columns: float32 [width, 1 + fft_size / 2] of `column_power`.
        params: of the picture.
    """
    mel = mel_filter_bank(params) @ columns.astype(np.float64).T
    decibels = 10 * np.log10(np.maximum(mel, 1e-10))
    above_floor = decibels - decibels.max() + params.floor_db
    levels: NDArray[np.uint8] = np.rint(np.clip(above_floor / params.floor_db, 0, 1) * 255).astype(
        np.uint8
    )
    return levels
