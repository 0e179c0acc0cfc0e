"""Pitch classes and tempo against librosa alone, on real clips and on made sounds."""

import librosa
import numpy as np
import pytest

from common import audio, audio_features, chroma, clips, spectrogram
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams
from tests.support.made_sounds import made_sounds

PARAMS = SpectrogramParams()
BOTH = Inputs(chroma=True, tempo=True)


def stft_power(window: np.ndarray) -> np.ndarray:
    return np.abs(librosa.stft(window, n_fft=2048, hop_length=520, pad_mode="constant")) ** 2


def chroma_by_librosa(window: np.ndarray) -> np.ndarray:
    strength = librosa.feature.chroma_stft(S=stft_power(window), sr=22_050, norm=None, tuning=0)
    columns = librosa.util.sync(strength, np.arange(0, 1273, 8), aggregate=np.mean, pad=False)
    # A column of silence has no classes; librosa leaves it as it is.
    columns[:, columns.max(axis=0) < 1e-10] = 0
    return np.rint(librosa.util.normalize(columns, axis=0) * 255).astype(np.uint8)


def tempo_by_librosa(window: np.ndarray) -> np.ndarray:
    mel = librosa.feature.melspectrogram(S=stft_power(window), sr=22_050, n_mels=102)
    onsets = librosa.onset.onset_strength(
        S=librosa.power_to_db(mel), sr=22_050, n_fft=2048, hop_length=520
    )
    tempogram = librosa.feature.tempogram(onset_envelope=onsets[:1272], sr=22_050, hop_length=520)
    return np.rint(np.clip(tempogram.mean(axis=1), 0, 1) * 255).astype(np.uint8)


def assert_heard_as_by_librosa(window: np.ndarray, *, tempo_within: int = 1) -> None:
    heard = audio_features.of_window(window, PARAMS, BOTH)
    assert heard["chroma"].shape == (12, 159)
    assert heard["tempo"].shape == (384,)
    off = np.abs(heard["chroma"].astype(int) - chroma_by_librosa(window))
    assert off.max() <= 1
    off = np.abs(heard["tempo"].astype(int) - tempo_by_librosa(window))
    assert off.max() <= tempo_within


def test_real_clips(fma_sample):
    paths = sorted((fma_sample / "fma_small").rglob("*.mp3"))
    assert len(paths) == 12
    for path in paths:
        waveform = audio.load_waveform(path.read_bytes(), sample_rate=22_050)
        (window,) = clips.even_windows(waveform, num_samples=PARAMS.num_samples)
        assert_heard_as_by_librosa(window)


@pytest.mark.parametrize("name", ["noise", "beats", "quiet beats", "chords"])
def test_made_sounds(name):
    assert_heard_as_by_librosa(made_sounds(PARAMS)[name])


def test_a_sound_that_ends_early():
    # Where a window has next to no onset, librosa makes it as loud as the others and we do not.
    assert_heard_as_by_librosa(made_sounds(PARAMS)["short"], tempo_within=5)


def test_a_note_is_its_pitch_class_and_nothing_else():
    seconds = np.arange(PARAMS.num_samples) / PARAMS.sample_rate
    for place, frequency in ((9, 440.0), (0, 261.63), (4, 659.26)):
        note = (0.5 * np.sin(2 * np.pi * frequency * seconds)).astype(np.float32)
        classes = audio_features.of_window(note, PARAMS, Inputs(chroma=True))["chroma"]
        assert (classes.argmax(axis=0) == place).all()
        assert (np.delete(classes, place, axis=0) < 128).all()


@pytest.mark.parametrize("beats_a_minute", [80, 120, 150])
def test_beats_come_again_after_their_time(beats_a_minute):
    frames_a_second = PARAMS.sample_rate / PARAMS.hop
    beat = made_sounds(PARAMS, beats_a_minute=beats_a_minute)["beats"]
    spectrum = audio_features.of_window(beat, PARAMS, Inputs(tempo=True))["tempo"].astype(int)
    lag = frames_a_second * 60 / beats_a_minute
    strongest = 5 + spectrum[5:60].argmax()
    assert abs(strongest - lag) <= 1


def test_what_never_changes_has_no_tempo_and_silence_no_pitch():
    sounds = made_sounds(PARAMS)
    assert tempo_by_librosa(sounds["hum"]).max() == 255
    assert audio_features.of_window(sounds["hum"], PARAMS, BOTH)["tempo"].max() < 50
    half = audio_features.of_window(sounds["short"], PARAMS, BOTH)["chroma"]
    assert half[:, :70].max() == 255
    assert not half[:, 90:].any()


def test_what_is_not_asked_for_is_not_made_and_the_picture_is_the_same():
    window = made_sounds(PARAMS)["chords"]
    heard = audio_features.of_window(window, PARAMS, Inputs())
    assert list(heard) == ["spectrogram"]
    picture = spectrogram.picture(window, PARAMS)
    assert np.array_equal(heard["spectrogram"], picture)
    assert np.array_equal(audio_features.of_window(window, PARAMS, BOTH)["spectrogram"], picture)


def test_other_parameters():
    params = SpectrogramParams(num_mels=64, num_samples=66_150, hop=441, frames_per_column=5)
    window = np.random.default_rng(0).normal(0, 0.1, params.num_samples).astype(np.float32)
    heard = audio_features.of_window(window, params, BOTH)
    assert heard["chroma"].shape == chroma.shape(params) == (12, 30)
    assert heard["tempo"].shape == (384,)
