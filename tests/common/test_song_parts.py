"""Parts of a song that are decoded alone are those of the whole song, bit for bit."""

import itertools
import os

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from common import audio, clips, rejection, song_parts
from common.pieces import NotAtHand, Pieces
from tests.support import made_songs

RATE = 22_050
SECONDS = 20
SEEDS = range(int(os.environ.get("SOAK_SONGS", len(made_songs.FATES))))


def assert_same(data, choose, *, whole=None):
    """Decodes parts, and compares them with those of the whole; returns how they were decoded.

    Of a song that can't be decoded as a whole they have to be refused for the same reason.
    """
    try:
        if whole is None:
            whole = audio.load_waveform(data, sample_rate=RATE)
    except rejection.ClipError as error:
        with pytest.raises(rejection.ClipError) as found:
            song_parts.load_parts(data, choose, sample_rate=RATE)
        assert (found.value.reason, str(found.value)) == (error.reason, str(error))
        return None
    found = song_parts.load_parts(data, choose, sample_rate=RATE)
    assert found.length == len(whole)
    for part, (start, stop) in zip(found.parts, choose(len(whole)), strict=True):
        np.testing.assert_array_equal(part, whole[start:stop])
    return found.how


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_of_mp3s_of_all_kinds(seed):
    rng = np.random.default_rng(seed)
    fate = made_songs.FATES[seed % len(made_songs.FATES)]
    data = made_songs.mp3(
        rng.uniform(0.7, 1.3) * SECONDS,
        rate=int(rng.choice(made_songs.RATES)),
        channels=int(rng.integers(1, 3)),
        mode="CONSTANT" if fate == "free format" else str(rng.choice(made_songs.MODES)),
        compression=float(rng.uniform(0, 0.95)),
        seed=seed,
    )
    choose = clips.choose_even(
        num_samples=int(rng.uniform(0.5, 4) * RATE), count=int(rng.integers(1, 4))
    )
    how = assert_same(made_songs.with_fate(data, fate), choose)
    if fate in made_songs.ODD_FATES:
        assert how != song_parts.ALONE
    elif fate in ("as it was", "with tags", "with a picture in its tag"):
        assert how == song_parts.ALONE


def test_parts_of_real_clips(fma_sample):
    """They are cut out of songs, so all of them is decoded; of songs made of them, the parts."""
    choose = clips.choose_even(num_samples=3 * RATE, count=3)
    paths = sorted((fma_sample / "fma_small").rglob("*.mp3"))
    for path in paths:
        assert assert_same(path.read_bytes(), choose) == song_parts.IN_DOUBT
    for path, mode in zip(paths[::3], itertools.cycle(made_songs.MODES), strict=False):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        song = np.concatenate([samples[: 15 * rate]] * 2)
        song = made_songs.encoded(song, rate, bitrate_mode=mode)
        assert assert_same(song, choose) == song_parts.ALONE


@pytest.mark.parametrize(
    ("kind", "subtype", "how"),
    [
        ("WAV", "PCM_16", song_parts.ALONE),
        ("WAV", "FLOAT", song_parts.ALONE),
        ("AIFF", "PCM_24", song_parts.ALONE),
        ("FLAC", "PCM_16", song_parts.ALONE),
        ("OGG", "VORBIS", song_parts.ALONE),
        ("OGG", "OPUS", song_parts.IN_DOUBT),
        ("WAV", "IMA_ADPCM", song_parts.IN_DOUBT),
    ],
)
def test_parts_of_other_formats(kind, subtype, how):
    samples = made_songs.sound(SECONDS, rate=48_000, channels=2, seed=1)
    data = made_songs.encoded(samples, 48_000, kind, subtype=subtype)
    assert assert_same(data, clips.choose_even(num_samples=4 * RATE, count=2)) == how


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_songs_that_are_cut_off_but_say_how_long_they_were(kind):
    data = made_songs.encoded(made_songs.sound(SECONDS, rate=RATE, channels=1, seed=1), RATE, kind)
    cut_off = data[: len(data) * 2 // 3]
    choose = clips.choose_even(num_samples=4 * RATE, count=2)
    assert_same(cut_off, choose)


@pytest.fixture(scope="module", params=[(44_100, 2, "CONSTANT"), (24_000, 1, "VARIABLE")])
def song(request):
    rate, channels, mode = request.param
    data = made_songs.mp3(SECONDS, rate=rate, channels=channels, mode=mode)
    return data, audio.load_waveform(data, sample_rate=RATE)


@settings(max_examples=int(os.environ.get("SOAK_CUTS", "10")), deadline=None)
@given(edges=st.lists(st.integers(0, (SECONDS - 1) * RATE), min_size=2, max_size=6, unique=True))
def test_any_parts(song, edges):
    edges = sorted(edges)[: len(edges) // 2 * 2]
    data, whole = song
    assert_same(data, lambda length: list(zip(edges[::2], edges[1::2], strict=True)), whole=whole)


@settings(max_examples=int(os.environ.get("SOAK_CUTS", "10")), deadline=None)
@given(place=st.integers(0, 2**30), damage=st.binary(min_size=1, max_size=40))
def test_damage_in_what_is_read_is_heard_as_in_the_whole(song, place, damage):
    """But for the last bits: after a frame that can't be decoded, sums have another order."""
    song, _ = song
    choose = clips.choose_even(num_samples=5 * RATE, count=1)
    read = sorted(pieces_wanted(song, choose).parts.items())
    places = [start + index for start, part in read for index in range(0, len(part), 7)]
    place = places[place % len(places)]
    damaged = song[:place] + damage + song[place + len(damage) :]
    try:
        whole = audio.load_waveform(damaged, sample_rate=RATE)
    except rejection.ClipError as error:
        with pytest.raises(rejection.ClipError) as found:
            song_parts.load_parts(damaged, choose, sample_rate=RATE)
        assert found.value.reason == error.reason
        return
    found = song_parts.load_parts(damaged, choose, sample_rate=RATE)
    assert found.length == len(whole)
    for part, (start, stop) in zip(found.parts, choose(len(whole)), strict=True):
        np.testing.assert_allclose(part, whole[start:stop], atol=2e-6)


def pieces_wanted(data, choose):
    """Reads what is asked for, as from a disk."""
    pieces = Pieces(len(data))
    while wanted := song_parts.bytes_wanted(pieces, choose, sample_rate=RATE):
        pieces.add(wanted[0], data[slice(*wanted)])
    return pieces


def test_few_bytes_of_a_song_are_wanted():
    """No more than a clip of half a minute has, and a third."""
    choose = clips.choose_even(num_samples=660_920, count=1)
    data = made_songs.mp3(60, channels=1, compression=0.6)
    clip = made_songs.mp3(30, channels=1, compression=0.6)
    for song in (data, made_songs.with_fate(data, "with a picture in its tag")):
        pieces = pieces_wanted(song, choose)
        assert pieces.num_bytes <= 1.3 * len(clip)
        found = song_parts.load_parts(pieces, choose, sample_rate=RATE)
        assert found.how == song_parts.ALONE
        whole = audio.load_waveform(song, sample_rate=RATE)
        np.testing.assert_array_equal(
            found.parts[0], clips.even_windows(whole, num_samples=660_920)[0]
        )
    assert pieces_wanted(clip, choose).is_whole


def test_what_can_not_be_found_without_all_bytes_needs_them():
    choose = clips.choose_even(num_samples=5 * RATE, count=1)
    variable = made_songs.mp3(SECONDS, mode="VARIABLE")
    assert pieces_wanted(variable, choose).is_whole
    constant = made_songs.mp3(SECONDS)
    pieces = pieces_wanted(constant, choose)
    begin, part = max(pieces.parts.items(), key=lambda item: len(item[1]))
    # In the middle of what was read there are no frames where there should be.
    damaged = Pieces(len(constant), pieces.parts | {begin: bytes(len(part))})
    with pytest.raises(NotAtHand):
        song_parts.load_parts(damaged, choose, sample_rate=RATE)


def test_what_is_not_decoded_rejects_no_song():
    samples = made_songs.sound(SECONDS, rate=RATE, channels=1, seed=2)
    choose = clips.choose_even(num_samples=5 * RATE, count=1)
    for second, is_taken in ((2, True), (SECONDS // 2, False)):
        damaged = samples.copy()
        damaged[second * RATE] = np.nan
        data = made_songs.encoded(damaged, RATE, "WAV", subtype="FLOAT")
        with pytest.raises(rejection.ClipError, match="NaN"):
            audio.load_waveform(data, sample_rate=RATE)
        if is_taken:
            assert song_parts.load_parts(data, choose, sample_rate=RATE).how == song_parts.ALONE
            continue
        with pytest.raises(rejection.ClipError, match="NaN"):
            song_parts.load_parts(data, choose, sample_rate=RATE)


def test_a_song_that_is_too_long_is_refused():
    data = made_songs.mp3(SECONDS)
    choose = clips.choose_even(num_samples=5 * RATE, count=1)
    for bounds in ({"max_seconds": SECONDS - 1}, {"max_samples": SECONDS * 44_100}):
        with pytest.raises(rejection.ClipError) as error:
            song_parts.load_parts(data, choose, sample_rate=RATE, **bounds)
        assert error.value.code == "too_long"
