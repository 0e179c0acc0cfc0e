"""A miniature FMA: synthetic clips whose popularity can be heard, in FMA's own layout and format.

The demo and the tests need a music library that is small, free and has a right answer. Each track
here has a latent popularity, an artist part plus a track part. It sets what is heard (onsets a
second, brightness, number of layers, each with its own noise), and the listens follow it, with
noise again. So a network that listens can predict the class for artists it never met, though not
perfectly, and one that does not listen cannot beat the majority class. Genre, artist, key, tempo,
timbre, loudness and encoding vary independently of popularity (genre shifts it a little).

Beside the good clips there is a fixed set of the faults that FMA has: broken, short, silent and
missing audio, and rows outside the `small` subset. `Library` says which.

    python -m examples.miniature_library --output_dir=DIR [--num_clips=240] [--seed=0]
"""

import concurrent.futures
import csv
import dataclasses
import datetime
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import sys
import time

import numpy as np
import soundfile
from absl import app, flags

VERSION = 2  # Goes up when the same parameters give other bytes, so that old libraries are rebuilt.

# Log-normal listens with FMA small's class shares: 17 % below 1000, 36 % from 3500 on.
LISTENS_MEDIAN = 2486
LISTENS_LOG_SD = 0.955

# The latent popularity has a variance of about 1. The two kinds of noise limit what can be learned.
ARTIST_PART = 0.6
TRACK_PART = 0.8
GENRE_SHIFT_SD = 0.1
CUE_NOISE_SD = 0.2
LISTENS_NOISE_SD = 0.1

CLIP_SECONDS = (29.976576, 30.002698)  # The two lengths of FMA's clips.
SAMPLE_RATES = (44_100, 44_100, 48_000)
# Encoding takes most of the time: stereo twice that of mono, CBR more than coarse VBR.
STEREO_SHARE = 1 / 6
CBR_SHARE = 1 / 4
COMPRESSION = {"CONSTANT": (0.0, 0.83), "VARIABLE": (0.2, 0.83)}  # libsndfile's level, 0 to 1

STEPS_PER_BAR = 16
TABLE_BITS = 14  # One cycle of a wave in 2**14 samples, read by a 32-bit phase accumulator.

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)
PHRYGIAN_DOMINANT = (0, 1, 4, 5, 7, 8, 10)
# Scale degrees of the chord roots: 0 is the tonic, -3 the dominant below it.
PROGRESSIONS = ((0, -3, -2, 3), (0, -2, 3, -3), (-2, 3, 0, -3), (0, 3, 0, -3), (0, 2, 3, -3))


@dataclasses.dataclass(frozen=True)
class Genre:
    """A genre's sound: what distinguishes it must not look like popularity."""

    fma_id: int
    bpm: float
    scale: tuple[int, ...]
    slope: float  # Partial k has the amplitude k**-slope.
    even: float  # Amplitude of the even partials: 1 like a sawtooth, 0 like a square wave.
    drums: float  # Level of kick and snare, 0 to 1.
    decay: float  # Seconds in which a plucked note falls to 1/e.
    echo: float  # Level of the echo, 0 to 1.


GENRES = {
    "Electronic": Genre(15, 124, MINOR, 0.9, 0.3, 1.0, 0.18, 0.3),
    "Experimental": Genre(38, 100, PHRYGIAN_DOMINANT, 0.6, 0.1, 0.6, 0.35, 0.45),
    "Folk": Genre(17, 104, MAJOR, 1.3, 0.9, 0.4, 0.40, 0.1),
    "Hip-Hop": Genre(21, 90, DORIAN, 1.2, 0.5, 1.0, 0.22, 0.15),
    "Instrumental": Genre(1235, 96, MAJOR, 1.5, 0.7, 0.5, 0.50, 0.35),
    "International": Genre(2, 110, PHRYGIAN_DOMINANT, 1.0, 0.8, 0.8, 0.25, 0.15),
    "Pop": Genre(10, 116, MAJOR, 1.1, 0.6, 0.9, 0.25, 0.2),
    "Rock": Genre(12, 132, MINOR, 0.8, 1.0, 1.0, 0.30, 0.1),
}


@dataclasses.dataclass(frozen=True)
class Track:
    """A row of the catalogue; `kind` says what becomes of its audio."""

    track_id: int
    artist_id: int
    genre: str
    split: str  # training, validation or test, the same for all of an artist's tracks
    subset: str
    kind: str
    listens: int
    rhythm: float  # The three cues, each in [0, 1].
    brightness: float
    layers: float


# What is planted beside the good clips: (kind, subset), in FMA's words and the job's reasons.
REJECTED_KINDS = ("empty_file", "undecodable", "too_short", "silent")
EXTRAS = (
    ("truncated", "small"),
    *((kind, "small") for kind in REJECTED_KINDS),
    *[("missing_audio", "small")] * 3,
    *[("missing_audio", "medium")] * 3,
    *[("missing_audio", "large")] * 3,
    ("good", "medium"),
    ("good", "large"),
)


@dataclasses.dataclass(frozen=True)
class Library:
    """What was made, for tests to check against. Ids are sorted."""

    audio_dir: pathlib.Path
    tracks_csv: pathlib.Path
    num_good_clips: int  # In `small`, whole and decodable.
    truncated: tuple[int, ...]  # In `small`, cut to about 12 s: valid examples too.
    rejected: dict[int, str]  # In `small`, track id to the reason why the job rejects it.
    missing_audio: tuple[int, ...]  # In `small`, no file.
    outside_subset: tuple[int, ...]  # In `medium` or `large` only.
    outside_subset_with_audio: tuple[int, ...]  # Those of them that have a good clip all the same.

    @property
    def num_examples(self) -> int:
        """Clips in the `small` subset of which the job must make an example."""
        return self.num_good_clips + len(self.truncated)


# ------------------------------------------------------------------------------------- synthesis


def partials_table(amplitudes: np.ndarray) -> np.ndarray:
    """One cycle, float32 [2**TABLE_BITS], peak 1, of the sine partials 1, 2, ... given."""
    spectrum = np.zeros(2 ** (TABLE_BITS - 1) + 1, np.complex64)
    spectrum[1 : len(amplitudes) + 1] = -1j * amplitudes
    cycle = np.fft.irfft(spectrum).astype(np.float32)
    normalized: np.ndarray = cycle / np.abs(cycle).max()
    return normalized


def tone(
    midi: int,
    *,
    rate: int,
    seconds: float,
    attack: float,
    decay: float,
    genre: Genre,
    slope: float,
    cutoff: float,
) -> np.ndarray:
    """A note, float32 [seconds * rate], peak about 1: `attack` and `decay` in s, `cutoff` in Hz."""
    pitch = 440.0 * 2 ** ((midi - 69) / 12)
    k = np.arange(1, max(2, int(min(0.45 * rate, 5 * cutoff) / pitch) + 1))
    amplitudes = k**-slope / (1 + (k * pitch / cutoff) ** 4)
    amplitudes[1::2] *= genre.even
    num_samples = int(seconds * rate)
    samples = np.arange(num_samples, dtype=np.uint32)
    phase = samples * np.uint32(pitch / rate * 2**32)
    t = samples / np.float32(rate)
    envelope = np.minimum(1, t / attack) * np.exp(-t / decay) * np.minimum(1, (seconds - t) / 0.02)
    cycle = partials_table(amplitudes)
    note: np.ndarray = cycle[phase >> (32 - TABLE_BITS)] * envelope.astype(np.float32)
    return note


def kick(rate: int, *, pitch: float) -> np.ndarray:
    """A drum whose pitch falls to `pitch` Hz, float32, 0.3 s, peak about 1."""
    t = np.arange(int(0.3 * rate), dtype=np.float32) / rate
    phase = pitch * t + 0.1 * pitch * (1 - np.exp(-t / 0.03))
    drum: np.ndarray = np.sin(2 * np.pi * phase) * np.exp(-t / 0.09)
    return drum


def noise_hit(rate: int, rng: np.random.Generator, *, decay: float, highpass: bool) -> np.ndarray:
    """A burst of noise (snare, hat), float32, peak 1, that falls to 1/e in `decay` seconds."""
    t = np.arange(int(5 * decay * rate), dtype=np.float32) / rate
    noise = rng.standard_normal(len(t) + 2, dtype=np.float32)
    noise = np.diff(noise, 2) if highpass else noise[2:]
    hit = noise * np.exp(-t / decay)
    normalized: np.ndarray = hit / np.abs(hit).max()
    return normalized


def euclidean_rhythm(num_hits: int) -> np.ndarray:
    """`num_hits` steps of a bar of 16, as evenly spread as they can be."""
    return np.arange(num_hits) * STEPS_PER_BAR // num_hits


def synthesize(track: Track, *, seed: int, seconds: float, rate: int, channels: int) -> np.ndarray:
    """A piece of music that sounds as popular as the track is: float32 [samples, channels]."""
    artist_rng = np.random.default_rng([seed, track.artist_id, 1])
    rng = np.random.default_rng([seed, track.track_id, 2])
    genre = GENRES[track.genre]

    # The planted cues.
    onsets_per_second = 5.0**track.rhythm
    cutoff = 450 * 16**track.brightness
    hat_level = 0.02 * 12**track.brightness
    second_voice, snare_level, arpeggio, strings = np.clip(4.5 * track.layers - np.arange(4), 0, 1)

    # The artist's style, and the track's own variation of it.
    bpm = genre.bpm * artist_rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05)
    key = int(artist_rng.integers(-5, 7) + rng.choice([-2, 0, 0, 3]))
    slope = genre.slope * artist_rng.uniform(0.85, 1.2)
    progression = PROGRESSIONS[artist_rng.integers(len(PROGRESSIONS))]
    drums = genre.drums * artist_rng.uniform(0.6, 1.1)
    register = int(artist_rng.choice([57, 69]))
    pad_level, tune_level, bass_level = artist_rng.uniform([0.06, 0.2, 0.4], [0.14, 0.35, 0.6])
    pans = artist_rng.uniform(0.25, 0.75, 8)
    rotation = artist_rng.integers(4)

    step = 60 / bpm / 4
    bar = STEPS_PER_BAR * step
    hits = int(np.clip(round(onsets_per_second * bar), 2, STEPS_PER_BAR))
    hat_steps = euclidean_rhythm(hits)
    kick_steps = euclidean_rhythm(max(1, hits // 2))
    tune_steps = (euclidean_rhythm(max(2, 2 * hits // 3)) + rotation) % STEPS_PER_BAR
    # Two motifs, each a walk on the scale, alternate over the chords as A A B A.
    motifs = np.cumsum(rng.integers(-2, 3, (2, len(tune_steps))), axis=1) % 8

    @functools.cache
    def note(degree: int, base: int, length: float, attack: float, decay: float) -> np.ndarray:
        midi = base + key + genre.scale[degree % 7] + 12 * (degree // 7)
        envelope = {"seconds": length, "attack": attack, "decay": decay}
        return tone(midi, rate=rate, genre=genre, slope=slope, cutoff=cutoff, **envelope)

    pad = functools.partial(note, base=60, length=1.02 * bar, attack=0.08, decay=8.0)
    bass = functools.partial(note, base=40, length=1.0, attack=0.01, decay=0.4)
    pluck = functools.partial(note, length=4 * genre.decay, attack=0.005, decay=genre.decay)
    kick_drum = kick(rate, pitch=artist_rng.uniform(45, 75))
    snare = noise_hit(rate, rng, decay=artist_rng.uniform(0.04, 0.09), highpass=False)
    hat = noise_hit(rate, rng, decay=artist_rng.uniform(0.02, 0.045), highpass=True)

    # The clip is cut out of the middle of a song: whole bars, and 3 s for the last notes to end.
    num_bars = int(seconds / bar) + 2
    mix = np.zeros((channels, int((num_bars * bar + 3) * rate)), np.float32)

    def place(sample: np.ndarray, at: float, level: float, part: int) -> None:
        start = int(at * rate)
        gains = [1.0] if channels == 1 else [1.4 * (1 - pans[part]), 1.4 * pans[part]]
        gains = np.float32(level * rng.uniform(0.8, 1.0)) * np.array(gains, np.float32)
        mix[:, start : start + len(sample)] += gains[:, np.newaxis] * sample

    break_bar = rng.integers(16)  # The drums pause here.
    for number in range(num_bars):
        at = number * bar
        chord = progression[number % 4]
        for third in (0, 2, 4):
            place(pad(chord + third), at, pad_level, 0)
            place(pad(chord + third + 7), at, 0.7 * pad_level * strings, 1)
        for s in kick_steps:
            place(bass(chord), at + s * step, bass_level, 2)
            place(kick_drum, at + s * step, drums * (number != break_bar), 2)
        for s in (4, 12):
            place(snare, at + s * step, 0.35 * drums * snare_level * (number != break_bar), 3)
        for s in hat_steps:
            place(hat, at + s * step, hat_level, 4)
        for i, (s, walk) in enumerate(zip(tune_steps, motifs[int(number % 4 == 2)], strict=True)):
            degree, other = chord + int(walk), chord + (0, 2, 4, 7)[i % 4]
            place(pluck(degree, register), at + s * step, tune_level, 5)
            place(pluck(degree + 2, register), at + s * step, 0.7 * tune_level * second_voice, 6)
            place(pluck(other, register + 12), at + (s + 1) * step, 0.7 * tune_level * arpeggio, 7)

    delay = int(3 * step * rate)
    mix[:, delay:] += np.float32(genre.echo) * mix[:, :-delay]
    start, num_samples = int(rng.uniform(0, bar) * rate), round(seconds * rate)
    mix = mix[:, start : start + num_samples]
    # Tape hiss, so that the empty parts of the picture say nothing but how good the tape was.
    hiss = rng.standard_normal(rate, dtype=np.float32) * np.float32(10 ** -rng.uniform(2.2, 3.5))
    mix += np.resize(hiss, num_samples)
    mix *= np.float32(rng.uniform(0.25, 0.98)) / np.abs(mix).max()
    audio: np.ndarray = mix.T
    return audio


# ------------------------------------------------------------------------------------- catalogue


def make_catalog(*, num_clips: int, seed: int) -> list[Track]:
    """The tracks, sorted by id: `num_clips` good ones in `small`, and the `EXTRAS`."""
    rng = np.random.default_rng([seed, 3])
    kinds = [("good", "small")] * num_clips + list(EXTRAS)
    num_tracks, num_artists = len(kinds), max(8, num_clips // 6)
    normal = statistics.NormalDist()

    # Artists are in order of their popularity here. One for validation and one for test from
    # each stretch of about ten gives every split a like range, and no split shares an artist.
    artist_part = np.array([normal.inv_cdf((i + 0.5) / num_artists) for i in range(num_artists)])
    splits = ["training"] * num_artists
    for stretch in np.array_split(np.arange(num_artists), max(1, round(num_artists / 10))):
        validation, test = rng.choice(stretch, 2, replace=False)
        splits[validation], splits[test] = "validation", "test"
    artist_ids = 1 + rng.permutation(2 * num_artists)[:num_artists]
    artist_genres = rng.permutation(np.resize(list(GENRES), num_artists))
    genre_shift = dict(zip(GENRES, rng.normal(0, GENRE_SHIFT_SD, len(GENRES)), strict=True))

    artists = np.arange(num_tracks) % num_artists
    latent = ARTIST_PART * artist_part[artists] + TRACK_PART * rng.standard_normal(num_tracks)
    latent += [genre_shift[artist_genres[artist]] for artist in artists]
    noise = rng.normal(0, CUE_NOISE_SD, (num_tracks, 3))
    cues = [[normal.cdf(cue) for cue in track] for track in latent[:, np.newaxis] + noise]

    # By rank, so that the class shares hold in a small library too.
    rank = np.argsort(np.argsort(latent + rng.normal(0, LISTENS_NOISE_SD, num_tracks)))
    score = [normal.inv_cdf((r + 0.5) / num_tracks) for r in rank]
    listens = np.round(LISTENS_MEDIAN * np.exp(LISTENS_LOG_SD * np.array(score))).astype(int)

    ids = 3 + rng.choice(max(2_900, 12 * num_tracks), num_tracks, replace=False)
    ids[0] = 2  # As in FMA, so that 000/000002.mp3 is always there to listen to.
    tracks = []
    for i, (kind, subset) in enumerate(kinds):
        artist = artists[i]
        rhythm, brightness, layers = cues[i]
        tracks.append(
            Track(
                track_id=int(ids[i]),
                artist_id=int(artist_ids[artist]),
                genre=str(artist_genres[artist]),
                split=splits[artist],
                subset=subset,
                kind=kind,
                listens=int(listens[i]),
                rhythm=rhythm,
                brightness=brightness,
                layers=layers,
            )
        )
    return sorted(tracks, key=lambda track: track.track_id)


# The (group, name) of each of FMA's columns, in order.
COLUMNS = [
    (group, name)
    for group, names in {
        "album": "comments date_created date_released engineer favorites id information listens"
        " producer tags title tracks type",
        "artist": "active_year_begin active_year_end associated_labels bio comments date_created"
        " favorites id latitude location longitude members name related_projects tags website"
        " wikipedia_page",
        "set": "split subset",
        "track": "bit_rate comments composer date_created date_recorded duration favorites"
        " genre_top genres genres_all information interest language_code license listens lyricist"
        " number publisher tags title",
    }.items()
    for name in names.split()
]
FIRST_NAMES = "Ada Zoë Miro Nadia Łukasz Ines Björn Tomás Ayşe Đorđe Kofi Mai Søren Chloé"
BAND_WORDS = "Static Paper Velvet Northern Salt Copper Ночной Quiet Plastic Été Glass Low"
NOUNS = "Harbour Parade Motel Rivers Satellites Orchard Café Engine Winter Mirrors Lanterns"
LICENSE = "Attribution-NonCommercial-ShareAlike 3.0 International"
TOWNS = ("Łódź, Poland", "Malmö, Sweden", "Lisboa, Portugal", "Oakland, CA", "Kyoto, Japan")
TAGS = ("live", "lo-fi", "home recording", "remix")


def csv_row(track: Track, *, seed: int) -> list[str | int]:
    """The track's row of tracks.csv: the id and a cell for each of FMA's columns."""
    artist_rng = np.random.default_rng([seed, track.artist_id, 4])
    rng = np.random.default_rng([seed, track.track_id, 5])
    first, word, noun = (
        artist_rng.choice(words.split()) for words in (FIRST_NAMES, BAND_WORDS, NOUNS)
    )
    names = (f"{first} {noun}", f"{first}, {word} & the {noun}", f"{word} {noun}")
    name = names[track.artist_id % 3]
    # FMA's ids and dates rise together.
    created = datetime.datetime(2008, 11, 26, 1, 42) + datetime.timedelta(hours=8 * track.track_id)
    genres = f"[{GENRES[track.genre].fma_id}]"
    # What only some artists and tracks have.
    of_artist = np.random.default_rng([seed, track.artist_id, 8])
    location = of_artist.choice(TOWNS) if of_artist.random() < 0.7 else ""
    of_track = np.random.default_rng([seed, track.track_id, 9])
    released = created - datetime.timedelta(days=int(of_track.integers(1, 900)))
    tags = [str(tag) for tag in TAGS if of_track.random() < 0.2]
    cells = {
        ("album", "comments"): 0,
        ("album", "date_created"): created - datetime.timedelta(minutes=3),
        ("album", "date_released"): released if of_track.random() < 0.7 else "",
        ("album", "id"): track.artist_id,
        ("album", "tags"): "[]",
        ("album", "title"): f"{noun}, Vol. {track.artist_id % 4 + 1}",
        ("album", "type"): "Album",
        (
            "artist",
            "bio",
        ): f'<p>{name} plays "{word}" {track.genre}.</p>\n<p>On tape, mostly.</p>',
        ("artist", "comments"): 0,
        ("artist", "date_created"): datetime.datetime(2008, 11, 26, 1, 42, 32),
        ("artist", "id"): track.artist_id,
        ("artist", "location"): location,
        ("artist", "name"): name,
        ("artist", "members"): f"{first}, {artist_rng.choice(FIRST_NAMES.split())}",
        ("artist", "tags"): f"['{name.lower()}']",
        ("set", "split"): track.split,
        ("set", "subset"): track.subset,
        ("track", "bit_rate"): rng.choice([128_000, 192_000, 256_000, 320_000]),
        ("track", "comments"): 0,
        ("track", "date_created"): created,
        ("track", "duration"): rng.integers(95, 400),  # Of the whole song, not of the clip.
        # As in FMA, tracks outside `small` may have no top genre.
        ("track", "genre_top"): "" if track.subset == "large" else track.genre,
        ("track", "genres"): genres,
        ("track", "genres_all"): genres,
        ("track", "interest"): round(1.6 * track.listens),
        ("track", "language_code"): "en",
        ("track", "license"): LICENSE,
        ("track", "listens"): track.listens,
        ("track", "number"): rng.integers(1, 13),
        ("track", "tags"): str(tags),
        ("track", "title"): f"{rng.choice(BAND_WORDS.split())} {rng.choice(NOUNS.split())}",
    }
    return [track.track_id, *(cells.get(column, "") for column in COLUMNS)]


# --------------------------------------------------------------------------------------- writing


def audio_path(audio_dir: pathlib.Path, track_id: int) -> pathlib.Path:
    """FMA's path of a clip: fma_small/000/000002.mp3."""
    return audio_dir / f"{track_id:06d}"[:3] / f"{track_id:06d}.mp3"


def write_clip(track: Track, *, audio_dir: pathlib.Path, seed: int) -> None:
    """Writes the track's mp3, or what `kind` wants in its place."""
    rng = np.random.default_rng([seed, track.track_id, 6])
    seconds = 1.5 if track.kind == "too_short" else float(rng.choice(CLIP_SECONDS))
    rate = int(rng.choice(SAMPLE_RATES))
    channels = 1 + int(rng.random() < STEREO_SHARE)
    bitrate_mode = "CONSTANT" if rng.random() < CBR_SHARE else "VARIABLE"
    compression_level = rng.uniform(*COMPRESSION[bitrate_mode])
    path = audio_path(audio_dir, track.track_id)
    if track.kind == "empty_file":
        path.write_bytes(b"")
        return
    if track.kind == "undecodable":
        path.write_text("<html><body>404 Not Found</body></html>\n" * 40)
        return
    if track.kind == "silent":
        samples = np.zeros((round(seconds * rate), channels), np.float32)
    else:
        samples = synthesize(track, seed=seed, seconds=seconds, rate=rate, channels=channels)
    if track.kind == "truncated":
        bitrate_mode = "CONSTANT"  # So that 40 % of the bytes are 40 % of the music.
    encoding = {"bitrate_mode": bitrate_mode, "compression_level": compression_level}
    soundfile.write(path, samples, rate, format="MP3", subtype="MPEG_LAYER_III", **encoding)
    if track.kind == "truncated":
        os.truncate(path, int(0.4 * path.stat().st_size))


def write_tracks_csv(catalog: list[Track], path: pathlib.Path, *, seed: int) -> None:
    """Writes the catalogue in FMA's format: three header lines, then a row a track."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", *(group for group, _ in COLUMNS)])
        writer.writerow(["", *(name for _, name in COLUMNS)])
        writer.writerow(["track_id", *([""] * len(COLUMNS))])
        writer.writerows(csv_row(track, seed=seed) for track in catalog)


# Of FMA's echonest.csv, all between 0 and 1 but the tempo.
AUDIO_FEATURES = (
    "acousticness",
    "danceability",
    "energy",
    "instrumentalness",
    "liveness",
    "speechiness",
    "tempo",
    "valence",
)
ECHONEST_SHARE = 0.6


def write_echonest_csv(catalog: list[Track], path: pathlib.Path, *, seed: int) -> None:
    """Writes Echo Nest's features of some of the tracks in FMA's format: four header lines.

    The tempo is that of the sound; the others say nothing.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", *["echonest"] * len(AUDIO_FEATURES)])
        writer.writerow(["", *["audio_features"] * len(AUDIO_FEATURES)])
        writer.writerow(["", *AUDIO_FEATURES])
        writer.writerow(["track_id", *([""] * len(AUDIO_FEATURES))])
        for track in catalog:
            rng = np.random.default_rng([seed, track.track_id, 7])
            if rng.random() < ECHONEST_SHARE:
                cells = {name: round(float(rng.random()), 10) for name in AUDIO_FEATURES}
                cells["tempo"] = GENRES[track.genre].bpm
                writer.writerow([track.track_id, *(cells[name] for name in AUDIO_FEATURES)])


def describe(catalog: list[Track], output_dir: pathlib.Path) -> Library:
    """What a library of this catalogue holds, once it is written."""

    def ids(*kinds: str, inside: bool) -> tuple[int, ...]:
        return tuple(
            track.track_id
            for track in catalog
            if track.kind in kinds and (track.subset == "small") == inside
        )

    small_kinds = {track.track_id: track.kind for track in catalog if track.subset == "small"}
    return Library(
        audio_dir=output_dir / "fma_small",
        tracks_csv=output_dir / "fma_metadata" / "tracks.csv",
        num_good_clips=len(ids("good", inside=True)),
        truncated=ids("truncated", inside=True),
        rejected={i: kind for i, kind in small_kinds.items() if kind in REJECTED_KINDS},
        missing_audio=ids("missing_audio", inside=True),
        outside_subset=ids("good", "missing_audio", inside=False),
        outside_subset_with_audio=ids("good", inside=False),
    )


def make_library(
    output_dir: str | os.PathLike[str],
    *,
    num_clips: int = 240,
    seed: int = 0,
    num_workers: int | None = None,
) -> Library:
    """Writes the library under `output_dir`, or returns the same one if it is there already.

    The files depend on `num_clips` and `seed` only, to the byte. A library of other parameters or
    an unfinished one is replaced, but never folders that this function did not write.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, got {num_clips}")
    output_dir = pathlib.Path(output_dir)
    catalog = make_catalog(num_clips=num_clips, seed=seed)
    library = describe(catalog, output_dir)
    summary = dataclasses.asdict(library)
    summary.update(audio_dir=library.audio_dir.name, tracks_csv="fma_metadata/tracks.csv")
    parameters = {"version": VERSION, "num_clips": num_clips, "seed": seed}
    finished = json.dumps({"parameters": parameters, "library": summary}, indent=2) + "\n"

    finished_path, unfinished_path = output_dir / "library.json", output_dir / ".unfinished"
    if finished_path.exists() and finished_path.read_text() == finished:
        return library
    folders = (library.audio_dir, library.tracks_csv.parent)
    ours = finished_path.exists() or unfinished_path.exists()
    for folder in folders:
        if folder.exists() and not ours:
            raise FileExistsError(f"{folder} is not a library made here: choose another folder")
    output_dir.mkdir(parents=True, exist_ok=True)
    unfinished_path.touch()
    finished_path.unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    write_tracks_csv(catalog, library.tracks_csv, seed=seed)
    write_echonest_csv(catalog, library.tracks_csv.with_name("echonest.csv"), seed=seed)
    with_audio = [track for track in catalog if track.kind != "missing_audio"]
    for track in with_audio:
        audio_path(library.audio_dir, track.track_id).parent.mkdir(exist_ok=True)
    write = functools.partial(write_clip, audio_dir=library.audio_dir, seed=seed)
    num_workers = num_workers or os.cpu_count() or 1
    start = shown = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(
        num_workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        for done, _ in enumerate(pool.map(write, with_audio), start=1):
            if time.monotonic() - shown > 3 or done == len(with_audio):
                shown = time.monotonic()
                print(f"{done} of {len(with_audio)} clips, {shown - start:.0f} s", flush=True)
    finished_path.write_text(finished)
    unfinished_path.unlink()
    return library


# ----------------------------------------------------------------------------------------- flags

# Defined in the command only, since other modules that tests import have an --output_dir as well.
if __name__ == "__main__":
    OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to write.", required=True)
    NUM_CLIPS = flags.DEFINE_integer(
        "num_clips", 240, "Good clips; the faults come on top.", lower_bound=1
    )
    SEED = flags.DEFINE_integer("seed", 0, "Another seed makes another library.")

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {argv[1:]}")
        try:
            library = make_library(OUTPUT_DIR.value, num_clips=NUM_CLIPS.value, seed=SEED.value)
        except FileExistsError as error:
            sys.exit(f"error: {error}")
        print(f"{library.num_examples} valid clips: {library.audio_dir}, {library.tracks_csv}")

    app.run(main)
