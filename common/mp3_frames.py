"""Finds the frames of an mp3 (MPEG audio, layer III) in its bytes, so that a part can be decoded.

A frame is a header of 4 bytes, side information and main data, and stands for 1,152 samples of each
channel (576 at 24 kHz and below). Three things reach from one frame into others. Its main data may
begin up to 511 bytes before it, in the *reservoir* that the frames before have left. Its samples
overlap with those of the frame before. And an encoder tells in a first frame of its own (`Info`,
`Xing`) how many frames follow and how many samples of silence it has put before and behind the
song, which decoders leave out. `excerpt` makes of some frames an mp3 whose samples are those of the
whole one, bit for bit: libsndfile's, whose decoder is mpg123.

What is not as plain as the `Frames` here can tell (free format, anything between two frames, a
change of the sample rate) gives None: such a file has to be decoded as a whole.

Sources: ISO/IEC 11172-3 and 13818-3; http://gabriel.mp3-tech.org/mp3infotag.html; how mpg123
reads them, src/libmpg123/parse.c and gapless.h of its sources.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from common.pieces import Pieces

# What of the first frames is looked at: those of a period of padding (49) at 320 kbit/s.
HEAD_BYTES = 1 << 16
_TAIL_BYTES = 1 << 12
# An ID3v2 tag up to this leaves enough frames in the first HEAD_BYTES of the file.
_SMALL_TAG = 1 << 13
_ID3V1_BYTES = 128
# What a decoder leaves out before the encoder's own delay.
_DECODER_DELAY = 529
# Frames before the first one of which the decoder starts; it does not decode those before.
_MOST_DROPPED_FRAMES = 4

# The synthesis filter has 16 places, and a frame turns them by 36, or by 18: after 8 frames it is
# where it was, and adds its terms in the same order, which their last bits depend on.
_TURN = 8
# Frames that are decoded before the first one whose samples are wanted. Two granules are needed.
_LEAD = 4

_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # low sample rates
)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


class Header(NamedTuple):
    """What the header of a frame says.

    Attributes:
        size: of the frame in bytes, with its header.
        padding: how many of them are there so that the frames have the bitrate on average, 0 or 1.
        bitrate: in bits a second.
        rate: sample rate in Hz.
        channels: 1 or 2.
        is_low: whether the sample rate is one of the low ones (MPEG-2).
        side_start: where its side information starts.
        side_stop: where that ends, and its main data start.
    """

    size: int
    padding: int
    bitrate: int
    rate: int
    channels: int
    is_low: bool
    side_start: int
    side_stop: int

    @property
    def samples(self) -> int:
        """Returns how many samples of each channel the frame stands for."""
        return 576 if self.is_low else 1_152

    @property
    def reservoir(self) -> int:
        """Returns the most bytes before the frame that its main data may begin at."""
        return 255 if self.is_low else 511

    def goes_with(self, other: "Header") -> bool:
        """Returns whether a decoder takes both for frames of one song."""
        return (self.rate, self.channels) == (other.rate, other.channels)


@functools.lru_cache(maxsize=4096)
def header_of(word: bytes) -> Header | None:
    """Returns what 4 bytes say if they are the header of a frame of layer III with a bitrate."""
    if len(word) < 4 or word[0] != 0xFF or word[1] & 0xE0 != 0xE0:
        return None
    version, layer = word[1] >> 3 & 3, word[1] >> 1 & 3
    bitrate_index, rate_index = word[2] >> 4, word[2] >> 2 & 3
    if version == 1 or layer != 1 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    is_low = version != 3
    rate = _RATES[version][rate_index]
    bitrate = 1_000 * _KBITS[is_low][bitrate_index]
    padding = word[2] >> 1 & 1
    channels = 1 if word[3] >> 6 == 3 else 2
    side_start = 4 if word[1] & 1 else 6  # a checksum of two bytes comes first
    side_stop = side_start + ((9, 17) if is_low else (17, 32))[channels - 1]
    size = (72 if is_low else 144) * bitrate // rate + padding
    if size < side_stop:
        return None
    return Header(size, padding, bitrate, rate, channels, is_low, side_start, side_stop)


class Frames(NamedTuple):
    """Where the frames of an mp3 lie and what is decoded of them.

    Attributes:
        header: of the first frame.
        num_frames: how many are decoded.
        dropped: samples of each channel that are left out at the start.
        claimed: how many samples libsndfile says there are, before it has decoded them.
        begin: where the first frame starts.
        starts: of the frames of a period, and of the one behind it, counted from its first one;
            the periods follow one another.
    """

    header: Header
    num_frames: int
    dropped: int
    claimed: int
    begin: int
    starts: Sequence[int]

    @property
    def length(self) -> int:
        """Returns how many samples of each channel a decoder gives."""
        return max(0, min(self.claimed, self.num_frames * self.header.samples - self.dropped))

    def start(self, index: int) -> int:
        """Returns where a frame starts; that of `num_frames` is where the last one ends."""
        periods, rest = divmod(index, len(self.starts) - 1)
        return self.begin + periods * self.starts[-1] + self.starts[rest]

    def span(self, start: int, stop: int) -> "Span":
        """Returns which frames are needed for the samples from `start` up to `stop`."""
        samples = self.header.samples
        first = max(0, (start + self.dropped) // samples - _LEAD)
        last = min(self.num_frames, -(-(stop + self.dropped) // samples))
        carrier, carried = first, 0
        while carrier > 0 and carried < self.header.reservoir:
            carrier -= 1
            size = self.start(carrier + 1) - self.start(carrier)
            carried += size - self.header.side_stop - 2  # at least; one may have a checksum
        carrier = carrier // _TURN * _TURN
        return Span(carrier, first if carrier else 0, last)


class Span(NamedTuple):
    """Frames `carrier` up to `last`, of which those before `first` only carry main data."""

    carrier: int
    first: int
    last: int


def frames_of(pieces: Pieces, *, is_listed: bool = False) -> Frames | None:
    """Finds the frames of an mp3.

    Args:
        pieces: its bytes.
        is_listed: whether to go from each frame to the next, which needs all bytes. Else they have
            to have a constant bitrate, of which the first frames and the last one tell where all
            others are.

    Returns:
        None if the bytes are no mp3, or not as plain as one has to be.

    Raises:
        NotAtHand: more bytes are needed.
    """
    opening = pieces.read(0, HEAD_BYTES)
    tag = _id3v2_bytes(opening)
    if tag is None or tag >= pieces.size:
        return None
    head = opening[tag:] if tag <= _SMALL_TAG else pieces.read(tag, tag + HEAD_BYTES)
    first = header_of(head[:4])
    if first is None or len(head) < first.size + 4:
        return None
    following = header_of(head[first.size : first.size + 4])
    if following is None or not first.goes_with(following):
        return None
    info = _info_of(head[: first.size], first)
    if info is None:
        return None
    skipped = first.size if info.is_there else 0
    if skipped:
        first = following
    if not _is_self_contained(head[skipped:]):
        return None
    begin = tag + skipped
    tail = pieces.read(max(begin, pieces.size - _TAIL_BYTES), pieces.size)
    end = pieces.size - (_ID3V1_BYTES if tail[-_ID3V1_BYTES:][:3] == b"TAG" else 0)
    if is_listed:
        found = _listed(pieces.all(), begin, end, first, info.num_frames)
    else:
        found = None if info.is_variable else _periodic(head[skipped : end - tag], first)
    if found is None or len(found) < 2:
        return None
    claimed = int(end / first.size * first.samples)  # as libsndfile does, from the first frame
    unbounded = Frames(first, 0, info.dropped, claimed, begin, found)
    if is_listed:
        count = len(found) - 1
    else:
        count = max(0, (end - begin) // found[-1] - 1) * (len(found) - 1)
        while unbounded.start(count + 1) <= end:
            count += 1
        if info.is_there:
            count = min(count, info.num_frames)
        last = unbounded.start(count - 1)
        word = pieces.read(last, last + 4)
        if count < 1 or not _is_like(word, first, unbounded.start(count) - last):
            return None
    if info.is_there:
        full = info.num_frames * first.samples
        kept = min(full, full - info.padding + _DECODER_DELAY) if info.is_exact else full
        claimed = kept - info.dropped
    return unbounded._replace(num_frames=count, claimed=claimed)


def _is_like(word: bytes, first: Header, size: int) -> bool:
    """Returns whether 4 bytes are the header of a frame of a size in the song of another."""
    header = header_of(word)
    return header is not None and header.goes_with(first) and header.size == size


def _id3v2_bytes(head: bytes) -> int | None:
    """Returns how long the ID3v2 tag at the start is, 0 if there is none; None for an odd one."""
    if head[:3] != b"ID3":
        return 0
    if len(head) < 10 or head[5] & 0x1F or max(head[6:10]) > 127:  # as of one with a footer
        return None
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte
    return 10 + size


class _Info(NamedTuple):
    """What a first frame that is none of the song tells: how many follow, and what is silence.

    `is_exact` says whether an encoder told its padding.
    """

    is_there: bool = False
    is_variable: bool = False
    num_frames: int = 0
    dropped: int = 0
    padding: int = 0
    is_exact: bool = False


def _info_of(frame: bytes, header: Header) -> _Info | None:
    """Reads the first frame; None if it tells something that is not as usual."""
    body = frame[4:]
    # The decoder looks for it here, with a checksum or without.
    place = header.side_stop - header.side_start
    if any(body[2:place]) or body[place : place + 4] not in (b"Info", b"Xing"):
        return _Info()
    is_variable = body[place : place + 4] == b"Xing"
    told = int.from_bytes(body[place + 4 : place + 8], "big")
    place += 8
    count = int.from_bytes(body[place : place + 4], "big")
    if not told & 1 or len(body) < place + 4 or not 0 < count < 1 << 31:
        return None
    place += 4 + 4 * bool(told & 2) + 100 * bool(told & 4) + 4 * bool(told & 8)
    encoder = body[place : place + 24]
    if len(encoder) < 24:
        return None
    if not encoder[0]:
        return _Info(True, is_variable, count, _DECODER_DELAY)
    delay, padding = encoder[21] << 4 | encoder[22] >> 4, (encoder[22] & 15) << 8 | encoder[23]
    dropped = delay + _DECODER_DELAY
    if dropped // header.samples > _MOST_DROPPED_FRAMES:
        return None
    # Variable, average or constant, where the encoder says so.
    is_variable = is_variable or encoder[9] & 15 not in (0, 1, 8)
    return _Info(True, is_variable, count, dropped, padding, is_exact=True)


def _is_self_contained(head: bytes) -> bool:
    """Returns whether the main data of the first frames begin in them.

    Else they are cut out of a longer song, and the decoder leaves some of them out.
    """
    place = carried = 0
    while header := header_of(head[place : place + 4]):
        if carried >= header.reservoir:
            return True
        side = head[place + header.side_start : place + header.side_stop]
        if len(side) >= 2 and _main_data_begin(side, header) > carried:
            return False
        carried += header.size - header.side_stop
        place += header.size
    return True


def _main_data_begin(side: bytes, header: Header) -> int:
    """Returns how many bytes of main data before a frame belong to it."""
    return side[0] if header.is_low else side[0] << 1 | side[1] >> 7


def _periodic(head: bytes, first: Header) -> list[int] | None:
    """Returns the starts of the frames of a period if the first frames have one bitrate."""
    coefficient = 72 if first.is_low else 144
    period = first.rate // math.gcd(coefficient * first.bitrate, first.rate)
    starts = [0]
    while starts[-1] + 4 <= len(head):
        header = header_of(head[starts[-1] : starts[-1] + 4])
        if header is None or not header.goes_with(first) or header.bitrate != first.bitrate:
            return None
        starts.append(starts[-1] + header.size)
    found = starts[: period + 1]
    if len(found) <= period:
        return None
    for index, start in enumerate(starts):
        if start != index // period * found[-1] + found[index % period]:
            return None
    return found


def _listed(data: bytes, begin: int, end: int, first: Header, announced: int) -> list[int] | None:
    """Returns the starts of all frames, and the end of the last one, counted from the first.

    None unless they follow one another to the end of the file, or up to as many as are announced.
    """
    starts = [0]
    place = begin
    while place < end and not len(starts) - 1 == announced > 0:
        header = header_of(data[place : place + 4])
        if header is None or not header.goes_with(first):
            return None
        place += header.size
        if place > end:  # the last one is cut off, and not decoded
            break
        starts.append(place - begin)
    return starts


def is_as_told(pieces: Pieces, frames: Frames, span: Span) -> bool:
    """Returns whether a header stands where each of the frames of a span starts.

    Raises:
        NotAtHand: its bytes are not there.
    """
    begin = frames.start(span.carrier)
    data = pieces.read(begin, frames.start(span.last))
    place = 0
    for index in range(span.carrier, span.last):
        size = frames.start(index + 1) - begin - place
        if not _is_like(data[place : place + 4], frames.header, size):
            return False
        place += size
    return True


def excerpt(pieces: Pieces, frames: Frames, span: Span) -> tuple[bytes, int]:
    """Makes an mp3 of the frames of a span.

    The first frames are silent and as short as can be, since libsndfile concludes from the first
    one how many there may be. Those that only carry main data are made silent.

    Returns:
        Its bytes, and how many samples of each channel it gives before those of the frame `first`.

    Raises:
        NotAtHand: the bytes of the frames are not there.
    """
    begin = frames.start(span.carrier)
    data = bytearray(pieces.read(begin, frames.start(span.last)))
    silent = _silent_frame(bytes(data[:4]))
    for index in range(span.carrier, span.first):
        _silence(data, frames.start(index) - begin)
    before = _TURN + span.first - span.carrier
    return silent * _TURN + bytes(data), before * frames.header.samples


def _silent_frame(word: bytes) -> bytes:
    """Returns a frame without sound of the lowest bitrate, for the song of a header."""
    low = bytes([word[0], word[1] | 1, 0x10 | word[2] & 0x0C, word[3] & 0xC0])
    header = header_of(low)
    assert header is not None  # only the bitrate, padding and checksum are other ones
    return low + bytes(header.size - 4)


def _silence(data: bytearray, start: int) -> None:
    """Lets the frame at a place have no sound of its own, and still carry its main data."""
    header = header_of(bytes(data[start : start + 4]))
    assert header is not None  # `is_as_told`
    side = start + header.side_start
    # Where its main data begin stays, since the next frame's reservoir reaches back over it.
    first, second = data[side], 0 if header.is_low else data[side + 1] & 0x80
    data[side : start + header.side_stop] = bytes(header.side_stop - header.side_start)
    data[side], data[side + 1] = first, second
