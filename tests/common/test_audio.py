"""The decoder: every clip ends as a window or as a reason."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from common import audio, clips, rejection

LIMITS = dict(sample_rate=22_050, num_samples=660_920, min_seconds=3.0, silence_dbfs=-80.0)


def encoded(samples, rate=44_100, kind="WAV", subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(seconds=5.0, rate=44_100, level=0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("f4")


def windows_of(data):
    return clips.decode_windows(data, **LIMITS).windows


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
        (encoded(np.full(220_500, 3e38, np.float32), subtype="FLOAT"), "not_finite"),
        (encoded(tone() * 2.0**33, subtype="FLOAT"), "not_finite"),
        (encoded(np.repeat([[3e38, -3e38]], 220_500, 0).astype("f4"), subtype="FLOAT"), "silent"),
    ],
)
def test_reasons(data, reason):
    with pytest.raises(rejection.ClipError) as error:
        windows_of(data)
    assert error.value.reason == reason
    assert reason in rejection.REASONS
    assert "\n" not in str(error.value)


def test_floats_in_the_range_of_integers_are_taken():
    """As some programs write them: 32-bit integers that were never scaled to full scale 1."""
    (loud,), (plain,) = (
        windows_of(encoded(tone() * factor, subtype="FLOAT")) for factor in (2.0**31, 1.0)
    )
    np.testing.assert_allclose(loud / 2**31, plain, atol=1e-6)


def test_the_samples_of_all_channels_are_bounded():
    data = encoded(np.zeros((200_000, 8), np.float32), 192_000, "FLAC")
    with pytest.raises(rejection.ClipError, match="more than 1,000,000 samples") as error:
        audio.load_waveform(data, sample_rate=22_050, max_samples=1_000_000)
    assert (error.value.reason, error.value.code) == ("undecodable", "too_long")
    audio.load_waveform(data, sample_rate=22_050, max_samples=1_600_000)


@pytest.mark.parametrize("kind", ["MP3", "WAV", "FLAC", "OGG"])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (22_050, 1), (8_000, 2)])
def test_formats_by_content(kind, rate, channels):
    samples = np.repeat(tone(6.0, rate)[:, np.newaxis], channels, axis=1)
    (window,) = windows_of(encoded(samples, rate, kind))
    assert window.shape == (660_920,) and window.dtype == np.float32
    heard = window[22_050 : 5 * 22_050]
    loudest = np.abs(np.fft.rfft(heard)).argmax() * 22_050 / len(heard)
    assert abs(loudest - 440) < 1
    assert np.abs(heard).max() == pytest.approx(0.5, rel=0.1)


def test_reading_in_blocks_changes_no_sample(library, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", 100_003)
    compared = 0
    for path in sorted(library.audio_dir.rglob("*.mp3")):
        data = path.read_bytes()
        try:
            samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue
        expected = soxr.resample(audio.to_mono(samples), rate, 22_050, quality="HQ")
        np.testing.assert_array_equal(audio.load_waveform(data, sample_rate=22_050), expected)
        compared += 1
    assert compared >= 20


def test_many_channels_cost_no_more_memory_than_two():
    samples = np.random.default_rng(0).integers(-99, 99, (40_000, 256)).astype(np.int16)
    data = encoded(samples, rate=22_050)
    tracemalloc.start()
    waveform = audio.load_waveform(data, sample_rate=22_050)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = audio.to_mono(samples.astype(np.float32) / 2**15)
    np.testing.assert_array_equal(waveform, expected)
    assert peak < 5_000_000


@pytest.mark.parametrize("rate", [1, 999, 900_000, 2**31 - 1])
def test_absurd_rates_are_damage(rate):
    data = bytearray(encoded(tone()))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(rejection.ClipError, match="its header says") as error:
        audio.load_waveform(bytes(data), sample_rate=22_050)
    assert error.value.reason == "undecodable"


def test_the_mean_of_the_channels():
    left, right = tone(level=0.5), tone(level=0.1)
    mono = audio.to_mono(np.stack([left, right], axis=1))
    np.testing.assert_allclose(mono, (left + right) / 2, atol=1e-7)


def test_the_middle_of_a_long_clip_and_the_end_of_a_short_one():
    def window(length, size):
        return clips.even_windows(np.arange(length), num_samples=size)[0].tolist()

    assert window(10, 4) == [3, 4, 5, 6]
    assert window(3, 5) == [0, 1, 2, 0, 0]


@pytest.mark.parametrize("length", [5, 99, 100, 250, 300, 301, 1000])
def test_several_windows_are_evenly_spaced_and_side_by_side(length):
    windows = clips.even_windows(np.arange(1, length + 1), num_samples=100, count=3)
    assert len(windows) == max(1, min(3, length // 100))
    starts = [int(window[0]) - 1 for window in windows]
    gaps = np.diff([0, *(edge for s in starts for edge in (s, s + 100)), max(length, 100)])[::2]
    assert gaps.min() >= 0 and gaps.max() - gaps.min() <= 2
