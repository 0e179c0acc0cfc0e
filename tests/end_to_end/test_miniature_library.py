"""The miniature FMA is laid out like FMA, holds what it declares, and is the same every time."""

import collections
import csv
import json
import shutil

import numpy as np
import pytest
import soundfile

from examples import miniature_library
from tests.support.commands import assert_refused, run_module

# Copied from the head of FMA's own tracks.csv.
FMA_HEADER = """\
album/comments album/date_created album/date_released album/engineer album/favorites album/id
album/information album/listens album/producer album/tags album/title album/tracks album/type
artist/active_year_begin artist/active_year_end artist/associated_labels artist/bio
artist/comments artist/date_created artist/favorites artist/id artist/latitude artist/location
artist/longitude artist/members artist/name artist/related_projects artist/tags artist/website
artist/wikipedia_page set/split set/subset track/bit_rate track/comments track/composer
track/date_created track/date_recorded track/duration track/favorites track/genre_top
track/genres track/genres_all track/information track/interest track/language_code
track/license track/listens track/lyricist track/number track/publisher track/tags track/title
"""


def read_tracks(library):
    """The rows of tracks.csv: {track_id: {"group/name": cell}}."""
    with library.tracks_csv.open(encoding="utf-8", newline="") as file:
        groups, names, third, *rows = csv.reader(file)
    assert third == ["track_id", *[""] * len(FMA_HEADER.split())]
    columns = [f"{group}/{name}" for group, name in zip(groups, names, strict=True)]
    assert columns == ["/", *FMA_HEADER.split()]
    return {int(row[0]): dict(zip(columns, row, strict=True)) for row in rows}


def clip_ids(library):
    return sorted(int(path.stem) for path in library.audio_dir.glob("*/*.mp3"))


def all_bytes(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_catalogue_has_fmas_format(library):
    tracks = read_tracks(library)
    assert list(tracks) == sorted(tracks)
    for cells in tracks.values():
        assert int(cells["track/listens"]) > 0
        assert 95 <= int(cells["track/duration"]) < 400
        assert cells["track/date_created"][:2] == "20" and len(cells["track/date_created"]) == 19
        assert int(cells["artist/id"]) > 0 and cells["artist/name"]
        assert cells["set/split"] in ("training", "validation", "test")
    text = library.tracks_csv.read_text(encoding="utf-8")
    assert "</p>\n<p>" in text and '""' in text and not text.isascii()
    assert any("," in cells["artist/name"] for cells in tracks.values())


def test_audio_is_where_fma_has_it(library):
    tracks = read_tracks(library)
    small = {i for i, cells in tracks.items() if cells["set/subset"] == "small"}
    assert small == tracks.keys() - set(library.outside_subset)
    assert set(clip_ids(library)) == (small - set(library.missing_audio)) | set(
        library.outside_subset_with_audio
    )
    assert len(library.missing_audio) == 3 and len(library.outside_subset_with_audio) == 2
    assert len(small) == library.num_examples + len(library.rejected) + len(library.missing_audio)
    assert (library.audio_dir / "000" / "000002.mp3").exists()
    assert len({path.parent for path in library.audio_dir.glob("*/*.mp3")}) >= 2
    without_genre = {i for i, cells in tracks.items() if not cells["track/genre_top"]}
    assert without_genre and without_genre < set(library.outside_subset)


def test_good_clips_vary_in_encoding_and_last_30_s(library):
    special = {*library.rejected, *library.truncated}
    good = [i for i in clip_ids(library) if i not in special]
    infos = [soundfile.info(miniature_library.audio_path(library.audio_dir, i)) for i in good]
    assert {info.format for info in infos} == {"MP3"}
    assert {info.samplerate for info in infos} == {44_100, 48_000}
    assert {info.channels for info in infos} == {1, 2}
    assert {round(info.duration, 2) for info in infos} == {29.98, 30.0}
    sizes = [miniature_library.audio_path(library.audio_dir, i).stat().st_size for i in good]
    assert max(sizes) > 3 * min(sizes)


def test_faults_are_as_declared(library):
    assert sorted(library.rejected.values()) == ["empty_file", "silent", "too_short", "undecodable"]
    path = {
        kind: miniature_library.audio_path(library.audio_dir, i)
        for i, kind in library.rejected.items()
    }
    assert path["empty_file"].stat().st_size == 0
    assert path["undecodable"].stat().st_size > 1000
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(path["undecodable"])
    samples, rate = soundfile.read(path["too_short"])
    assert 1.4 < len(samples) / rate < 1.6 and np.abs(samples).max() > 0.01
    samples, rate = soundfile.read(path["silent"])
    assert len(samples) / rate > 29 and np.abs(samples).max() < 1e-6
    (truncated,) = library.truncated
    samples, rate = soundfile.read(miniature_library.audio_path(library.audio_dir, truncated))
    assert 11 < len(samples) / rate < 13 and np.abs(samples).max() > 0.01


def test_bytes_do_not_depend_on_workers_or_on_what_was_there(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    of_two = miniature_library.make_library(first, num_clips=2, num_workers=2)
    shutil.copytree(first, second)
    for path in (second / "fma_small").rglob("*.mp3"):
        path.write_bytes(b"of a library of another seed")
    (second / "fma_small" / "999.mp3").touch()
    description = second / "library.json"
    description.write_text(description.read_text().replace('"seed": 0', '"seed": 7'))
    of_one = miniature_library.make_library(second, num_clips=2, num_workers=1)
    assert all_bytes(second) == all_bytes(first)
    assert (of_one.rejected, of_one.truncated) == (of_two.rejected, of_two.truncated)


def test_a_finished_libraryis_left_alone(library):
    folder = library.audio_dir.parent

    def times():
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = times()
    text = (folder / "library.json").read_text()
    parameters = json.loads(text)["parameters"]
    del parameters["version"]
    assert miniature_library.make_library(folder, **parameters) == library
    assert times() == before
    assert parameters == {"num_clips": 24, "seed": 1}
    assert str(folder) not in text


def test_never_replaces_somebody_elses_music(tmp_path):
    song = tmp_path / "fma_small" / "000" / "000002.mp3"
    song.parent.mkdir(parents=True)
    song.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="choose another folder"):
        miniature_library.make_library(tmp_path, num_clips=1)
    result = run_module("examples.miniature_library", f"--output_dir={tmp_path}")
    assert_refused(result, song.parent.parent, "choose another folder")
    assert song.read_bytes() == b"precious"


@pytest.mark.parametrize("seed", [0, 1])
def test_catalogue_of_the_demo_resembles_fma(seed):
    catalog = miniature_library.make_catalog(num_clips=240, seed=seed)
    small = [track for track in catalog if track.subset == "small"]
    listens = np.array([track.listens for track in small])
    shares = np.bincount(np.digitize(listens, [1000, 3500])) / len(small)
    np.testing.assert_allclose(shares, [0.17, 0.47, 0.36], atol=0.02)
    assert listens.max() > 20_000 and listens.min() < 500

    artists = collections.defaultdict(set)
    for track in catalog:
        artists[track.artist_id].add(track.split)
    assert len(artists) == 40 and all(len(splits) == 1 for splits in artists.values())
    num = collections.Counter(track.split for track in small)
    assert num["training"] == pytest.approx(0.8 * len(small), rel=0.05)
    assert num["validation"] == pytest.approx(0.1 * len(small), rel=0.2)
    assert num["test"] == pytest.approx(0.1 * len(small), rel=0.2)
    assert {track.genre for track in small} == set(miniature_library.GENRES)


def test_popularity_is_in_the_cues_and_not_in_the_id():
    catalog = miniature_library.make_catalog(num_clips=240, seed=0)
    log_listens = np.log([track.listens for track in catalog])
    for cue in ("rhythm", "brightness", "layers"):
        heard = [getattr(track, cue) for track in catalog]
        assert 0.85 < np.corrcoef(heard, log_listens)[0, 1] < 0.99
    ids = [track.track_id for track in catalog]
    assert abs(np.corrcoef(ids, log_listens)[0, 1]) < 0.15
