"""The picture against librosa alone, written here from the definition in the README."""

import io

import librosa
import numpy as np
import pytest
import soundfile

from common import audio, clips, dataset_reader, spectrogram
from common.spectrogram import SpectrogramParams


def window_by_librosa(data: bytes) -> np.ndarray:
    waveform, _ = librosa.load(io.BytesIO(data), sr=22_050, mono=True, res_type="soxr_hq")
    start = max(0, (len(waveform) - 660_920) // 2)
    return librosa.util.fix_length(waveform[start : start + 660_920], size=660_920)


def picture_by_librosa(data: bytes) -> np.ndarray:
    waveform = window_by_librosa(data)
    power = np.abs(librosa.stft(waveform, n_fft=2048, hop_length=520, pad_mode="constant")) ** 2
    mel = librosa.feature.melspectrogram(S=power, sr=22_050, n_mels=102)
    columns = librosa.util.sync(mel, np.arange(0, 1273, 8), aggregate=np.mean, pad=False)
    decibels = librosa.power_to_db(columns, ref=np.max, top_db=80)
    return np.rint((decibels + 80) / 80 * 255).astype(np.uint8)


def assert_equal_pictures(ours: np.ndarray, theirs: np.ndarray):
    assert ours.shape == theirs.shape == (102, 159)
    off = np.abs(ours.astype(int) - theirs.astype(int))
    assert (off <= 1).mean() >= 0.999, f"{(off > 1).sum()} pixels, up to {off.max()} levels off"


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("fft_size", "num_mels"), [(512, 16), (2048, 102), (2048, 128), (4096, 64)]
)
def test_the_filters_are_librosas_to_the_bit(sample_rate, fft_size, num_mels):
    ours = spectrogram.mel_filter_bank(
        SpectrogramParams(
            sample_rate=sample_rate, fft_size=fft_size, hop=fft_size // 4, num_mels=num_mels
        )
    )
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=fft_size, n_mels=num_mels, dtype=np.float64)
    assert ours.dtype == theirs.dtype
    assert (ours == theirs).all()


def test_frequencies_on_the_mel_scale_and_back():
    hz = np.geomspace(1, 24_000, 1_000)
    assert (spectrogram.hz_to_mel(hz) == librosa.hz_to_mel(hz)).all()
    np.testing.assert_allclose(spectrogram.mel_to_hz(spectrogram.hz_to_mel(hz)), hz, rtol=1e-12)


def check_dataset(dataset_dir, audio_dir) -> int:
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    count = 0
    for _, example in dataset_reader.read_examples(info, str(dataset_dir)):
        name = f"{example['track_id']:06d}"
        data = (audio_dir / name[:3] / f"{name}.mp3").read_bytes()
        stored = np.frombuffer(example["spectrogram"], np.uint8).reshape(102, 159)
        assert_equal_pictures(stored, picture_by_librosa(data))
        count += 1
    return count


def test_stored_pictures_of_the_miniature_library(dataset_dir, library):
    assert check_dataset(dataset_dir, library.audio_dir) == library.num_examples


def test_pictures_of_real_clips(fma_sample):
    params = SpectrogramParams()
    for path in sorted((fma_sample / "fma_small").rglob("*.mp3")):
        data = path.read_bytes()
        waveform = audio.load_waveform(data, sample_rate=params.sample_rate)
        (window,) = clips.even_windows(waveform, num_samples=params.num_samples)
        assert_equal_pictures(spectrogram.picture(window, params), picture_by_librosa(data))


@pytest.mark.parametrize("seconds", [4, 29.97, 41])
def test_pictures_of_short_and_long_clips(seconds):
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.1, (int(44_100 * seconds), 2)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, 44_100, format="FLAC")
    params = SpectrogramParams()
    ((window,), _, _) = clips.decode_windows(
        file.getvalue(),
        sample_rate=params.sample_rate,
        num_samples=params.num_samples,
        min_seconds=3,
        silence_dbfs=-80,
    )
    assert_equal_pictures(spectrogram.picture(window, params), picture_by_librosa(file.getvalue()))


def test_other_parameters_give_other_shapes():
    params = SpectrogramParams(num_mels=64, num_samples=220_500, hop=441, frames_per_column=5)
    window = np.random.default_rng(0).normal(0, 0.1, params.num_samples).astype(np.float32)
    assert params.shape == (64, 100)
    assert spectrogram.picture(window, params).shape == params.shape
