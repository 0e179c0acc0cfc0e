"""Decodes only those parts of a song that are wanted, to the samples that decoding all of it gives.

Bit for bit, or all of it is decoded. The job and the server need half a minute of songs that last
several, and to fetch all of one from a bucket takes as long as to decode it; so `bytes_wanted` says
which bytes are needed.

What makes samples depend on those before is, in an mp3, the frames (see `mp3_frames`), and in the
resampler where its blocks begin and how far it stands between two samples. So it is given a zero
for every sample that is not decoded, which costs a twentieth of decoding it.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple, Protocol

import numpy as np
import soundfile

from common import audio, mp3_frames
from common.audio import Stream, Waveform
from common.pieces import NotAtHand, Pieces

# Of a waveform of so many samples, the parts that are wanted, in order: (start, stop).
Choose = Callable[[int], list[tuple[int, int]]]

# How the parts were decoded: alone; with all of the song, of which they are most; or with all of
# it because it was not certain that alone they would be the same.
ALONE, WHOLE, IN_DOUBT = "alone", "whole", "in doubt"

# How much of a song may be wanted before all of it is decoded: the rest costs little then.
_MOST_WANTED = 0.8
# What goes through the resampler on both sides of a part. It works in blocks, and what else is in a
# block moves the last bits of all that is: 3,000 samples at the rates of music, at most 50,000.
_LEAST_MARGIN, _MARGIN_SECONDS = 8_192, 0.25
# What libsndfile finds its place in exactly. Opus needs what came before, as an mp3 does.
_SOUGHT_FORMATS = ("WAV", "WAVEX", "AIFF", "AU", "FLAC", "OGG")
_SOUGHT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS")


class Parts(NamedTuple):
    """Parts of a waveform.

    Attributes:
        length: of the whole waveform, in samples.
        parts: float32 [samples] each, as they were chosen.
        how: ALONE, WHOLE or IN_DOUBT.
    """

    length: int
    parts: list[Waveform]
    how: str


class _Doubt(Exception):
    """It is not certain that parts would be the same if they were decoded alone."""


def load_parts(
    data: bytes | Pieces,
    choose: Choose,
    *,
    sample_rate: int,
    max_seconds: float = audio.MAX_SECONDS,
    max_samples: int = audio.MAX_SAMPLES,
) -> Parts:
    """Decodes parts of an audio file: those of what `audio.load_waveform` gives, bit for bit.

    Args:
        data: the bytes of the file, or those of them that `bytes_wanted` has asked for.
        choose: returns which parts of a waveform of so many samples are wanted.
        sample_rate: of the waveform, in Hz.
        max_seconds: the longest file that is taken.
        max_samples: the most samples of all channels of a file that is taken.

    Raises:
        ClipError: as `audio.load_waveform` does, but for what is not decoded.
        NotAtHand: all bytes are needed.
    """
    pieces = data if isinstance(data, Pieces) else Pieces.whole(data)
    for find in (_constant_mp3, _listed_mp3, _sought):
        try:
            song = find(pieces)
            if song is None:
                continue
            length = resampled_length(song.length, song.rate, sample_rate)
            wanted = choose(length)
            if not _are_few(wanted, length):
                break
            audio.check_bounds(
                song.length,
                song.rate,
                channels=song.channels,
                max_seconds=max_seconds,
                max_samples=max_samples,
            )
            parts = _decoded(song, wanted, sample_rate=sample_rate)
            return Parts(length, parts, ALONE)
        except (_Doubt, soundfile.LibsndfileError, RuntimeError):
            continue
    waveform = audio.load_waveform(
        pieces.all(), sample_rate=sample_rate, max_seconds=max_seconds, max_samples=max_samples
    )
    wanted = choose(len(waveform))
    how = IN_DOUBT if _are_few(wanted, len(waveform)) else WHOLE
    return Parts(len(waveform), [waveform[start:stop] for start, stop in wanted], how)


def bytes_wanted(pieces: Pieces, choose: Choose, *, sample_rate: int) -> tuple[int, int] | None:
    """Returns which bytes of a file `load_parts` needs next, (start, stop); None for no more.

    Args:
        pieces: what has been read of it.
        choose: as for `load_parts`.
        sample_rate: of the waveform, in Hz.
    """
    if pieces.is_whole:
        return None
    try:
        if needs_all(pieces, choose, sample_rate=sample_rate):
            return 0, pieces.size
    except NotAtHand as missing:
        return missing.start, missing.stop
    return None


def needs_all(pieces: Pieces, choose: Choose, *, sample_rate: int) -> bool:
    """Returns whether `load_parts` needs all bytes of a file; NotAtHand for some that it needs."""
    frames = mp3_frames.frames_of(pieces)
    if frames is None:
        return True
    rate = frames.header.rate
    length = resampled_length(frames.length, rate, sample_rate)
    wanted = choose(length)
    if not _are_few(wanted, length):
        return True
    for start, stop in _spans(wanted, frames.length, rate, sample_rate):
        span = frames.span(start, stop)
        pieces.read(frames.start(span.carrier), frames.start(span.last))
    return False


def resampled_length(length: int, rate: int, sample_rate: int) -> int:
    """Returns how many samples libsoxr makes of so many."""
    return int(length / (rate / sample_rate) + 0.5)


def _are_few(wanted: list[tuple[int, int]], length: int) -> bool:
    return sum(stop - start for start, stop in wanted) < _MOST_WANTED * length


def _spans(
    wanted: list[tuple[int, int]], length: int, rate: int, sample_rate: int
) -> list[tuple[int, int]]:
    """Returns what is to be decoded for the parts that are wanted, in samples of the file."""
    ratio, margin = rate / sample_rate, max(_LEAST_MARGIN, int(_MARGIN_SECONDS * rate))
    spans: list[tuple[int, int]] = []
    for begin, end in wanted:
        start = max(0, int(begin * ratio) - margin)
        stop = min(length, int(end * ratio) + 1 + margin)
        if spans and start <= spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, stop))
    return spans


class _Song(Protocol):
    """A file in which places can be found: `length` is its samples of each channel."""

    rate: int
    channels: int
    length: int

    def blocks(self, start: int, stop: int) -> Iterator[Waveform]:
        """Decodes the samples from `start` up to `stop`, as one channel, if there are so many."""


def _decoded(song: _Song, wanted: list[tuple[int, int]], *, sample_rate: int) -> list[Waveform]:
    """Decodes and resamples parts of a song; `_Doubt` if it has not what it says."""
    parts = [np.empty(stop - start, np.float32) for start, stop in wanted]
    resampler = audio.resampler_of(song.rate, sample_rate)
    silence = np.zeros(audio.BLOCK, np.float32)
    taken = given = 0

    def take(samples: Waveform) -> None:
        nonlocal given
        for (start, stop), part in zip(wanted, parts, strict=True):
            first, last = max(start, given), min(stop, given + len(samples))
            if first < last:
                part[first - start : last - start] = samples[first - given : last - given]
        given += len(samples)

    for start, stop in _spans(wanted, song.length, song.rate, sample_rate):
        while taken < start:
            zeros = silence[: start - taken]
            take(resampler.resample_chunk(zeros))
            taken += len(zeros)
        for block in song.blocks(start, stop):
            take(resampler.resample_chunk(block))
            taken += len(block)
        if taken != stop:
            raise _Doubt
    if taken == song.length:
        take(resampler.resample_chunk(silence[:0], last=True))
    if given < wanted[-1][1]:
        raise _Doubt
    return parts


def _blocks(file: Stream, count: int) -> Iterator[Waveform]:
    """Decodes the next `count` samples of a file."""
    while count and len(block := audio.read_mono(file, min(audio.BLOCK, count * file.channels))):
        count -= len(block)
        yield block


class _Mp3:
    """An mp3 whose frames are known."""

    def __init__(self, pieces: Pieces, frames: mp3_frames.Frames):
        self._pieces, self._frames = pieces, frames
        header = frames.header
        self.rate, self.channels, self.length = header.rate, header.channels, frames.length
        with Stream(pieces.open()) as file:
            said = (file.format, file.samplerate, file.channels, file.frames)
        if said != ("MP3", self.rate, self.channels, frames.claimed):
            raise _Doubt  # libsndfile takes it for something else

    def blocks(self, start: int, stop: int) -> Iterator[Waveform]:
        span = self._frames.span(start, stop)
        if not mp3_frames.is_as_told(self._pieces, self._frames, span):
            raise _Doubt
        data, before = mp3_frames.excerpt(self._pieces, self._frames, span)
        first = span.first * self._frames.header.samples - self._frames.dropped
        with Stream(BytesIO(data)) as file:
            for _ in _blocks(file, before + start - first):
                pass
            yield from _blocks(file, stop - start)


def _constant_mp3(pieces: Pieces) -> _Song | None:
    frames = mp3_frames.frames_of(pieces)
    return _Mp3(pieces, frames) if frames else None


def _listed_mp3(pieces: Pieces) -> _Song | None:
    frames = mp3_frames.frames_of(pieces, is_listed=True)
    return _Mp3(pieces, frames) if frames else None


class _Sought:
    """A file in which libsndfile finds each sample."""

    def __init__(self, data: bytes, file: Stream):
        self._data = data
        self.rate, self.channels, self.length = file.samplerate, file.channels, file.frames

    def blocks(self, start: int, stop: int) -> Iterator[Waveform]:
        with Stream(BytesIO(self._data)) as file:
            file.seek(start)
            yield from _blocks(file, stop - start)


def _sought(pieces: Pieces) -> _Song | None:
    data = pieces.all()
    with Stream(BytesIO(data)) as file:
        if file.format not in _SOUGHT_FORMATS or not file.subtype.startswith(_SOUGHT_SUBTYPES):
            return None
        # One that is cut off may say how long it was.
        file.seek(max(0, file.frames - 1))
        if len(file.read(1)) != 1 or not audio.MIN_RATE <= file.samplerate <= audio.MAX_RATE:
            return None
        return _Sought(data, file)
