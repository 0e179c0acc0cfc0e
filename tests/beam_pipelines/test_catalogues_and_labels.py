"""Other catalogues, labels and splits than the default, through the whole job."""

import csv

import numpy as np
import pytest

from common import dataset_reader, labels
from common.errors import UserFacingError
from tests.support.commands import IN_MEMORY, assert_refused, build, read_csv


def column(rows, *pair):
    place = list(zip(rows[0], rows[1], strict=True)).index(pair)
    return [row[place] for row in rows[3:]]


def test_a_plain_catalogue_of_the_same_music_gives_the_same_labels(dataset_dir, library, tmp_path):
    rows = read_csv(library.tracks_csv)
    plain = tmp_path / "songs.csv"
    with plain.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "track_id", "listens", "artist_id"])
        columns = [
            [row[0] for row in rows[3:]],
            column(rows, "set", "subset"),
            column(rows, "track", "listens"),
            column(rows, "artist", "id"),
        ]
        for track_id, subset, listens, artist_id in zip(*columns, strict=True):
            if subset == "small":
                path = library.audio_dir / f"{int(track_id):06d}"[:3] / f"{int(track_id):06d}.mp3"
                writer.writerow([path, track_id, listens, artist_id])
    out = tmp_path / "out"
    sizes = "--config.split_sizes=(0.5,0.25,0.25)"
    result = build(plain, library.audio_dir, out, sizes, *IN_MEMORY)
    assert result.returncode == 0, result.stderr

    def records(folder):
        info = dataset_reader.load_dataset_info(str(folder))
        for split, example in dataset_reader.read_examples(info, str(folder)):
            kept = ("track_id", "label", "listens", "artist_id", "spectrogram")
            yield split, *(example[name] for name in kept)

    assert list(records(out)) == list(records(dataset_dir))


def test_official_splits_and_quantiles_and_several_clips(library, tmp_path):
    result = build(
        library.tracks_csv,
        library.audio_dir,
        tmp_path,
        "--config.split_by=official",
        "--config.thresholds=()",
        "--config.quantiles=(0.25,0.75)",
        "--config.clips_per_track=3",
        "--config.spectrogram.num_samples=220500",
        *IN_MEMORY,
    )
    assert result.returncode == 0, result.stderr
    info = dataset_reader.load_dataset_info(str(tmp_path))
    rows = read_csv(library.tracks_csv)
    small = [value == "small" for value in column(rows, "set", "subset")]
    listens = np.array(list(map(int, column(rows, "track", "listens"))))[small]
    low, high = info.thresholds
    assert abs((listens < low).mean() - 0.25) <= 1 / len(listens)
    assert abs((listens < high).mean() - 0.75) <= 1 / len(listens)
    official = dict(zip((row[0] for row in rows[3:]), column(rows, "set", "split"), strict=True))
    by_track = {}
    for split, example in dataset_reader.read_examples(info, str(tmp_path)):
        assert official[str(example["track_id"])] == {"train": "training"}.get(split, split)
        assert example["label"] == (example["listens"] >= low) + (example["listens"] >= high)
        assert len(example["spectrogram"]) == np.prod(info.config.spectrogram.shape)
        by_track.setdefault(example["track_id"], []).append(example["spectrogram"])
    assert len(by_track) == library.num_examples
    for track_id, pictures in by_track.items():
        # Windows of 10 s: 12 s of audio hold one, 29.98 s two and 30 s three.
        assert len(pictures) in ({1} if track_id in library.truncated else {2, 3})
    assert info.split_check["artists_in_two_splits"] == 0


def test_official_splits_need_their_column(library, tmp_path):
    plain = tmp_path / "songs.csv"
    plain.write_text("track_id,path,listens\n1,000/000002.mp3,5\n")
    result = build(plain, library.audio_dir, tmp_path / "out", "--config.split_by=official")
    assert_refused(result, plain, "config.split_by is official")


def test_a_catalogue_without_tracks(library, tmp_path):
    plain = tmp_path / "songs.csv"
    plain.write_text("track_id,path,listens\n")
    out = tmp_path / "out"
    assert_refused(build(plain, library.audio_dir, out), plain, "no tracks")
    assert not out.exists()


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_of_random_listens(seed):
    rng = np.random.default_rng(seed)
    listens = np.exp(rng.normal(7, 1, 5000)).astype(int)
    values, numbers = np.unique(listens, return_counts=True)
    order = rng.permutation(len(values))
    counts = list(zip(values[order].tolist(), numbers[order].tolist(), strict=True))
    quantiles = (0.168, 0.635)
    found = labels.thresholds_at(counts, quantiles=quantiles)
    for threshold, quantile in zip(found, quantiles, strict=True):
        assert (listens < threshold).mean() <= quantile < (listens <= threshold).mean()


def test_quantiles_of_listens_that_are_alike():
    with pytest.raises(UserFacingError, match="fall on the same listens"):
        labels.thresholds_at([(5, 90), (6, 10)], quantiles=(0.2, 0.6))
