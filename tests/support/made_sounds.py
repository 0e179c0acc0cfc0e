"""Sounds of which one knows what should be heard in them."""

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
