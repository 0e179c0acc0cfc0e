"""The decoder: every clip ends as a window or as a reason."""

import io

import numpy as np
import pytest
import soundfile

from beam_pipelines import audio

LIMITS = dict(sample_rate=22_050, num_samples=660_920, min_seconds=3.0, silence_dbfs=-80.0)


def encoded(samples, rate=44_100, kind="WAV", subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(seconds=5.0, rate=44_100, level=0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("f4")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"no music here\n" * 50, "undecodable"),
        (b"PK\x03\x04" + bytes(500), "undecodable"),
        (encoded(tone(1.5)), "too_short"),
        (encoded(np.zeros(0, np.float32)), "undecodable"),
        (encoded(tone(0.001)), "too_short"),
        (encoded(tone() * 0), "silent"),
        (encoded(tone(level=5e-5)), "silent"),
        (encoded(np.full(220_500, np.nan, np.float32), subtype="FLOAT"), "not_finite"),
        (encoded(np.where(np.arange(220_500) == 9, np.inf, 0.1), subtype="FLOAT"), "not_finite"),
    ],
)
def test_reasons(data, reason):
    with pytest.raises(audio.ClipError) as error:
        audio.clip_window(data, **LIMITS)
    assert error.value.reason == reason
    assert reason in audio.REJECT_REASONS
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["MP3", "WAV", "FLAC", "OGG"])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (22_050, 1), (8_000, 2)])
def test_formats_by_content(kind, rate, channels):
    samples = np.repeat(tone(6.0, rate)[:, np.newaxis], channels, axis=1)
    window = audio.clip_window(encoded(samples, rate, kind), **LIMITS)
    assert window.shape == (660_920,) and window.dtype == np.float32
    heard = window[22_050 : 5 * 22_050]
    loudest = np.abs(np.fft.rfft(heard)).argmax() * 22_050 / len(heard)
    assert abs(loudest - 440) < 1
    assert np.abs(heard).max() == pytest.approx(0.5, rel=0.1)


def test_the_mean_of_the_channels():
    left, right = tone(level=0.5), tone(level=0.1)
    mono = audio.to_mono(np.stack([left, right], axis=1))
    np.testing.assert_allclose(mono, (left + right) / 2, atol=1e-7)


def test_the_middle_of_a_long_clip_and_the_end_of_a_short_one():
    np.testing.assert_array_equal(audio.central_window(np.arange(10), 4), [3, 4, 5, 6])
    np.testing.assert_array_equal(audio.central_window(np.arange(3), 5), [0, 1, 2, 0, 0])
