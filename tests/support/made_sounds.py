"""Sounds of which one knows what should be heard in them."""

import functools

import numpy as np

from common.spectrogram import SpectrogramParams


def made_sounds(
    params: SpectrogramParams, *, beats_a_minute: float = 120, seed: int = 0
) -> dict[str, np.ndarray]:
    """{name: float32 [num_samples]}: noise, beats, the same quietly, chords, a hum; `short` is
    chords whose second half is zeros."""
    rng = np.random.default_rng(seed)
    count, rate = params.num_samples, params.sample_rate
    seconds = np.arange(count) / rate
    noise = rng.normal(0, 0.1, count)
    since_beat = seconds % (60 / beats_a_minute)
    beats = noise * np.exp(-since_beat * 30) + 0.01 * np.sin(2 * np.pi * 220 * seconds)
    chord = (seconds // 2).astype(int) % 4
    chords = np.zeros(count)
    for place, root in enumerate((48, 53, 55, 57)):
        for step in (0, 4, 7):
            frequency = 440 * 2 ** ((root + step - 69) / 12)
            chords += (chord == place) * 0.2 * np.sin(2 * np.pi * frequency * seconds)
    sounds = {
        "noise": noise,
        "beats": beats,
        "quiet beats": beats * 1e-3,
        "chords": chords + 1e-3 * noise,
        "short": np.where(seconds < seconds[-1] / 2, chords + 1e-2 * noise, 0),
        "hum": 0.3 * np.sin(2 * np.pi * 110 * seconds),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


# Semitones above a C, of the notes of two keys that share none.
KEYS = {"white": (0, 2, 4, 7, 9), "black": (1, 3, 6, 8, 10)}
_NOTE_SECONDS = 0.5


@functools.cache
def _note(rate: int, pitch: int, timbre: int) -> np.ndarray:
    """A note that dies away, of a pitch in semitones above the C of 65 Hz, float32 [samples]."""
    rng = np.random.default_rng(timbre)
    seconds = np.arange(int(_NOTE_SECONDS * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 33) / 12)
    tone = np.zeros(len(seconds))
    for octave in range(3):  # overtones of the same pitch class alone
        tone += rng.uniform(0.1, 1) * np.sin(2 * np.pi * frequency * 2**octave * seconds)
    envelope = np.exp(-seconds * rng.uniform(8, 20)) * np.minimum(1, seconds * 200)
    return (tone * envelope).astype(np.float32)


def made_piece(
    params: SpectrogramParams, *, key: str, notes_a_minute: float, seed: int
) -> np.ndarray:
    """Notes of one of KEYS at a steady pace, in float32 [num_samples].

    Octaves, timbres, loudness, the noise behind the notes and how many of them are played in a
    minute, the others being left out, are drawn, and tell neither key nor pace.
    """
    rng = np.random.default_rng(seed)
    rate, count = params.sample_rate, params.num_samples
    piece = rng.normal(0, 10 ** rng.uniform(-3, -2), count).astype(np.float32)
    timbres = rng.integers(12, size=2)
    lowest = rng.integers(2, 4)
    is_played = rng.uniform(100, 150) / notes_a_minute
    step = 60 * rate / notes_a_minute
    for begin in np.arange(rng.uniform(0, step), count, step).astype(int):
        if rng.random() > is_played:
            continue
        pitch = 12 * (lowest + rng.integers(3)) + rng.choice(KEYS[key])
        note = _note(rate, int(pitch), int(rng.choice(timbres)))[: count - begin]
        piece[begin : begin + len(note)] += note * np.float32(rng.uniform(0.3, 1))
    return piece / np.abs(piece).max() * np.float32(10 ** rng.uniform(-1, 0))
