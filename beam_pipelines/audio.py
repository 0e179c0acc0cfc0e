"""From the bytes of an audio file to a mono waveform: the one decoder of the project.

The dataset job and the serving client both use it, so that a song is heard the same way on both
sides. Decoding is libsndfile's (mp3, wav, flac, ogg, told apart by content, not by name),
resampling libsoxr's.
"""

import io

import numpy as np
import soundfile
import soxr

from beam_pipelines.command import InputError

REJECT_REASONS = ("empty_file", "undecodable", "too_short", "silent", "not_finite")


class ClipError(InputError):
    """A clip that can't be used: `reason` is one of REJECT_REASONS, `str()` says more."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Decodes an audio file.

    Returns:
        samples float32 [samples, channels] in about ±1, and their rate in Hz.

    Raises:
        ClipError: `empty_file`, or `undecodable` if libsndfile can't read it.
    """
    if not data:
        raise ClipError("empty_file", "the file has 0 bytes")
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        message = getattr(error, "error_string", None) or str(error)
        raise ClipError("undecodable", f"{len(data):,} bytes: {message}") from None
    if not len(samples):
        raise ClipError("undecodable", f"{len(data):,} bytes hold no audio")
    return samples, rate


def to_mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels: float32 [samples] of float32 [samples, channels]."""
    # Column by column: `samples.mean(axis=1)` takes seven times as long on two channels.
    total = samples[:, 0].copy()
    for channel in range(1, samples.shape[1]):
        total += samples[:, channel]
    return total / np.float32(samples.shape[1])


def load_waveform(data: bytes, *, sample_rate: int) -> np.ndarray:
    """Decodes an audio file to mono at `sample_rate` Hz (soxr HQ): float32 [samples].

    Raises:
        ClipError: `empty_file`, `undecodable` or `not_finite`.
    """
    samples, rate = decode(data)
    mono = to_mono(samples)
    if not np.isfinite(mono).all():
        raise ClipError("not_finite", "the decoded samples hold NaN or infinity")
    return soxr.resample(mono, rate, sample_rate, quality="HQ")


def central_window(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """The middle `num_samples` of a waveform [samples], zero-padded at the end where shorter."""
    start = max(0, (len(waveform) - num_samples) // 2)
    window = waveform[start : start + num_samples]
    return np.pad(window, (0, num_samples - len(window)))


def clip_window(
    data: bytes, *, sample_rate: int, num_samples: int, min_seconds: float, silence_dbfs: float
) -> np.ndarray:
    """The window of an audio file that its picture is made of: float32 [num_samples], mono.

    Args:
        data: the bytes of the file.
        sample_rate: of the window, in Hz.
        num_samples: length of the window, from the middle of the clip.
        min_seconds: the shortest clip that is taken.
        silence_dbfs: a window whose peak lies below this level (dB of full scale) is silent.

    Raises:
        ClipError: for any of REJECT_REASONS.
    """
    waveform = load_waveform(data, sample_rate=sample_rate)
    seconds = len(waveform) / sample_rate
    if seconds < min_seconds:
        raise ClipError("too_short", f"{seconds:.2f} s, shorter than {min_seconds:g} s")
    window = central_window(waveform, num_samples)
    peak = float(np.abs(window).max())
    if peak < 10 ** (silence_dbfs / 20):
        level = f"{20 * np.log10(peak):.0f} dBFS" if peak else "digital zero"
        raise ClipError("silent", f"the peak is {level}, below {silence_dbfs:g} dBFS")
    return window
