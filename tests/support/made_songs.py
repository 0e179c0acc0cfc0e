"""Songs in all the shapes that mp3s come in, of noise and tones: quick to make, hard to confuse."""

import io

import numpy as np
import soundfile

from common import mp3_frames

RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MODES = ("CONSTANT", "AVERAGE", "VARIABLE")
# What may have become of an mp3 since it was encoded.
FATES = (
    "as it was",
    "without its first frame",
    "with tags",
    "with a picture in its tag",
    "cut off at its end",
    "cut out of a longer one",
    "with garbage between frames",
    "with garbage at its end",
    "free format",
    "joined to itself",
)
# The fates in which the frames are not as plain as they have to be.
ODD_FATES = ("with garbage between frames", "free format")


def sound(seconds: float, *, rate: int, channels: int, seed: int) -> np.ndarray:
    """float32 [samples, channels]: noise whose level jumps, and a tone; the channels differ."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate)
    level = np.repeat(rng.uniform(0, 0.5, count // 2_000 + 1) ** 2, 2_000)[:count]
    noise = rng.standard_normal(count) * level
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)
    both = np.stack([np.roll(noise, 37 * c) * 0.8**c + tone for c in range(channels)], axis=1)
    return np.clip(both, -0.99, 0.99).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, kind: str = "MP3", **how) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **how)
    return file.getvalue()


def mp3(
    seconds: float = 40.0,
    *,
    rate: int = 44_100,
    channels: int = 2,
    mode: str = "CONSTANT",
    compression: float = 0.5,
    seed: int = 0,
) -> bytes:
    """An mp3 as LAME writes it; `compression` from 0, large, to 1, small."""
    samples = sound(seconds, rate=rate, channels=channels, seed=seed)
    return encoded(samples, rate, bitrate_mode=mode, compression_level=compression)


def frame_places(data: bytes) -> list[int]:
    """Where the frames of an mp3 start that has no tag, that with the encoder's words first."""
    places, place = [], 0
    while header := mp3_frames.header_of(data[place : place + 4]):
        places.append(place)
        place += header.size
    return places


def with_fate(data: bytes, fate: str) -> bytes:
    """What one of FATES makes of an mp3 of `mp3`."""
    places = frame_places(data)
    second, early = places[1], places[len(places) // 8]
    free = bytearray(data[second:])
    for place in places[1:]:
        free[place - second + 2] &= 0x0F
    return {
        "as it was": data,
        "without its first frame": data[second:],
        "with tags": tag(2_000) + data + b"TAG" + bytes(125),
        "with a picture in its tag": tag(300_000) + data,
        "cut off at its end": data[: len(data) * 3 // 4],
        "cut out of a longer one": data[early:],
        "with garbage between frames": data[:early] + b"\0garbage" * 5 + data[early:],
        "with garbage at its end": data + b"garbage" * 9,
        "free format": bytes(free),
        "joined to itself": data + data,
    }[fate]


def tag(size: int) -> bytes:
    """An ID3v2 tag of padding."""
    digits = [size >> 7 * place & 127 for place in (3, 2, 1, 0)]
    return b"ID3\x03\0\0" + bytes(digits) + bytes(size)
