"""Decodes the bytes of an audio file to a mono waveform; the project has no other decoder.

The dataset job and the serving client both use it, so that a song is heard the same way on both
sides. Decoding is libsndfile's (mp3, wav, flac, ogg, told apart by content, not by name),
resampling libsoxr's.
"""

import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from common.rejection import ClipError

# What a header may claim before it is taken for damaged: more would cost memory without bound.
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_SECONDS = 2400
# Of all channels, as many as of MAX_SECONDS in stereo at 192 kHz: silence in FLAC costs a byte for
# thousands of samples, and a processor as much as any sound.
MAX_SAMPLES = MAX_SECONDS * 192_000 * 2
# Of a sample, full scale being 1: what 32-bit integers reach that nobody has scaled. From some 1e16
# on the power spectrum is beyond float32.
MAX_PEAK = 2.0**31

# Samples that are read at once, those of all channels: few enough to stay in a core's cache, and
# to cost no memory worth speaking of, however many channels a header claims.
BLOCK = 1 << 17

Waveform = NDArray[np.float32]


class Stream(soundfile.SoundFile):
    """A sound file that is read from the start to the end.

    soundfile seeks after each read of a file that can be sought in, and after that the mp3
    decoder's samples differ from those of one long read, in some files by a quarter of full scale.
    """

    def seekable(self) -> bool:
        return False


def load_waveform(
    data: bytes,
    *,
    sample_rate: int,
    max_seconds: float = MAX_SECONDS,
    max_samples: int = MAX_SAMPLES,
) -> Waveform:
    """Decodes an audio file to the mean of its channels at `sample_rate` Hz: float32 [samples].

    It reads and resamples (soxr HQ) block by block, which gives the same samples as all at once,
    so that a long song costs the memory of one channel at this rate.

    Args:
        data: the bytes of the file.
        sample_rate: of the waveform, in Hz.
        max_seconds: the longest file that is taken.
        max_samples: the most samples of all channels that are decoded.

    Raises:
        ClipError: `empty_file`; `undecodable` if libsndfile can't read it, or its header claims
            what no song is like; `not_finite` if a sample is NaN, infinite or beyond MAX_PEAK.
    """
    if not data:
        raise ClipError("empty_file", "the file has 0 bytes")
    parts = []
    try:
        with Stream(io.BytesIO(data)) as file:
            rate, length = file.samplerate, 0
            if not MIN_RATE <= rate <= MAX_RATE:
                raise ClipError("undecodable", f"its header says {rate:,} Hz")
            resampler = resampler_of(rate, sample_rate)
            while len(mono := read_mono(file, BLOCK)):
                length += len(mono)
                check_bounds(
                    length,
                    rate,
                    channels=file.channels,
                    max_seconds=max_seconds,
                    max_samples=max_samples,
                )
                parts.append(resampler.resample_chunk(mono))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        message = getattr(error, "error_string", None) or str(error)
        raise ClipError("undecodable", f"{len(data):,} bytes: {message}") from None
    if not parts:
        raise ClipError("undecodable", f"{len(data):,} bytes hold no audio")
    parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)


def resampler_of(rate: int, sample_rate: int) -> soxr.ResampleStream:
    """Returns what resamples one channel from a rate to another, in Hz."""
    return soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")


def read_mono(file: Stream, samples: int) -> Waveform:
    """Reads the next samples of a file, those of all channels together, as one channel.

    Raises:
        ClipError: `not_finite`.
    """
    block = file.read(max(1, samples // file.channels), dtype="float32", always_2d=True)
    mono = to_mono(block)
    # A maximum can't be had of nothing, and NaN is not at most anything.
    if len(mono) and not peak_of(mono) <= MAX_PEAK:
        message = f"the decoded samples hold NaN or a value beyond {MAX_PEAK:,.0f}"
        raise ClipError("not_finite", message)
    return mono


def peak_of(waveform: Waveform) -> float:
    """Returns how far a waveform is from 0 at most; NaN where a sample is."""
    return max(float(waveform.max()), -float(waveform.min()))


def check_bounds(
    length: int, rate: int, *, channels: int, max_seconds: float, max_samples: int
) -> None:
    """Raises ClipError `undecodable` where so many samples of each channel are too many."""
    if length * channels > max_samples:
        message = f"more than {max_samples:,} samples"
        raise ClipError("undecodable", message, code="too_long")
    if length > max_seconds * rate:
        message = f"longer than {max_seconds:g} s"
        raise ClipError("undecodable", message, code="too_long")


def to_mono(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the mean of the channels: float32 [samples] of float32 [samples, channels]."""
    # Column by column: `samples.mean(axis=1)` takes ten times as long on two channels.
    first, *others = samples.T
    mean: NDArray[np.float32] = first + others[0] if others else first.copy()
    for channel in others[1:]:
        mean += channel
    mean /= np.float32(len(samples.T))
    return mean
