"""The rows of the catalogue with all that is known of them, as Beam makes them."""

import csv
import functools
import json
import math
from collections import Counter

import apache_beam as beam
import numpy as np
import pytest

from beam_pipelines import splits_and_shards
from beam_pipelines.track_rows import track_rows
from common.catalogue import Track
from common.dataset_config import DatasetConfig
from common.errors import UserFacingError
from common.inputs import HISTORIES
from configs import dataset_artist

DAY = 24 * 3600
COUNT = 150
INPUTS = {"numbers": ["date_created"], "categories": ["mood"]} | dict.fromkeys(HISTORIES, True)


def as_json(row) -> str:
    split, order, values = row
    track = Track.unpacked(values)
    return json.dumps([split, order, track])


def rows_of(tmp_path, tracks: list[dict], *, tables=(), **values) -> dict[int, tuple[str, Track]]:
    """{track id: (split, track)} of what the pipeline makes of a plain catalogue."""
    catalog = tmp_path / "tracks.csv"
    with catalog.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(tracks[0]))
        writer.writeheader()
        writer.writerows(tracks)
    paths = []
    for place, table in enumerate(tables):
        paths.append(str(tmp_path / f"{place}.csv"))
        (tmp_path / f"{place}.csv").write_text(table)
    config = DatasetConfig.from_dict(dataset_artist.get_config().to_dict() | values)
    out = tmp_path / "rows"
    with beam.Pipeline("DirectRunner") as pipeline:
        rows = track_rows(pipeline, config, tracks_csv=str(catalog), features_csv=tuple(paths))
        _ = (
            rows
            | beam.Map(as_json)
            | beam.io.WriteToText(str(out), num_shards=1, shard_name_template="")
        )
    found = {}
    for line in out.read_text().splitlines():
        split, _, track_values = json.loads(line)
        track = Track(*track_values)
        assert track.track_id not in found
        found[track.track_id] = (split, track)
    assert len(found) == len(tracks)
    return found


def made_tracks(seed=0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "track_id": number,
            "path": f"{number}.mp3",
            "listens": int(rng.integers(0, 9_000)),
            "artist": rng.choice(["", *(f"Artist {n}" for n in range(20))]),
            # Some by several artists.
            "album": rng.choice(["", *(f"Album {n}" for n in range(8))]),
            "date_created": f"20{rng.integers(10, 14)}-{rng.integers(1, 13):02}-11",
            "mood": rng.choice(["calm", "wild", ""]),
        }
        for number in rng.permutation(10_000)[:COUNT].tolist()
    ]


@pytest.fixture(scope="module")
def rows_by_split(tmp_path_factory):
    """The rows of the made tracks with all inputs, by what the split is by; made once for each."""

    @functools.cache
    def of(split_by):
        folder = tmp_path_factory.mktemp(split_by)
        return rows_of(folder, made_tracks(), split_by=split_by, inputs=INPUTS)

    return of


def test_tables_are_joined_by_track_id(tmp_path):
    tracks = made_tracks()
    ids = [track["track_id"] for track in tracks]
    first = "track_id,energy\n" + "".join(f"{i},{i / 2}\n" for i in ids[:100])
    second = "track_id,mood,energy\n" + "".join(f"{i},loud,7\n" for i in [*ids[50:], 99_999])
    rows = rows_of(
        tmp_path,
        tracks,
        tables=(first, second),
        inputs={"categories": ["mood"], "numbers": ["energy", "date_created"]},
    )
    for place, track in enumerate(tracks):
        _, found = rows[track["track_id"]]
        mood = track["mood"] or ("loud" if place >= 50 else "")
        assert found.categories == [mood]
        assert found.numbers[0] == (track["track_id"] / 2 if place < 100 else 7)
        assert found.numbers[1] == found.date_created > 0


def test_a_mistake_in_a_table_ends_the_job_in_one_line(tmp_path):
    with pytest.raises(Exception, match=r'1\.csv, row 3, column energy: "much" is neither'):
        rows_of(
            tmp_path,
            made_tracks(),
            tables=("track_id,mood\n", "track_id,energy\n1,2\n2,much\n"),
            inputs={"numbers": ["energy"]},
        )


@pytest.mark.parametrize("split_by", ["track", "artist", "date"])
def test_histories_are_of_other_tracks_in_the_training_split(rows_by_split, split_by):
    tracks = made_tracks()
    rows = rows_by_split(split_by)
    seen = Counter()
    for track in tracks:
        _, found = rows[track["track_id"]]
        for same in (["artist"], ["artist", "album"]):
            num_tracks = getattr(found, f"{'_'.join(same)}_tracks")
            mean = getattr(found, f"{'_'.join(same)}_mean_log_listens")
            if not all(track[name] for name in same):
                assert num_tracks == -1
                assert math.isnan(mean)
                continue
            others = [
                math.log(1 + other["listens"])
                for other in tracks
                if all(other[name] == track[name] for name in same)
                and other is not track
                and rows[other["track_id"]][0] == "train"
            ]
            assert num_tracks == len(others)
            wanted = np.mean(others) if others else math.nan
            assert mean == pytest.approx(wanted, rel=1e-8, nan_ok=True)
            seen[same[-1], bool(others)] += 1
    assert seen["artist", True] and seen["album", True] and seen["album", False]


@pytest.mark.parametrize("split_by", ["track", "artist", "date"])
def test_no_listens_of_validation_or_test_and_not_its_own_reach_a_row(
    tmp_path, rows_by_split, split_by
):
    tracks = made_tracks()
    before = rows_by_split(split_by)
    own = next(t for t in tracks if t["artist"] and before[t["track_id"]][0] == "train")
    changed = [
        track | {"listens": track["listens"] * 7 + 5_000}
        if before[track["track_id"]][0] != "train" or track is own
        else track
        for track in tracks
    ]
    after = rows_of(tmp_path, changed, split_by=split_by, inputs=INPUTS)
    num_changed = num_moved = 0
    for track in tracks:
        (split, first), (split_after, second) = before[track["track_id"]], after[track["track_id"]]
        assert split == split_after
        num_changed += first.listens != second.listens
        # Compared as text, where NaN equals NaN.
        rest, rest_after = (str(t._replace(listens=0)) for t in (first, second))
        if track["artist"] == own["artist"] and track is not own:
            num_moved += rest != rest_after
        else:
            assert rest == rest_after
    assert num_changed > 10
    assert num_moved > 0


def test_the_newest_tracks_are_the_test(rows_by_split):
    rows = rows_by_split("date")
    dates = {
        name: [track.date_created for split, track in rows.values() if split == name]
        for name in ("train", "validation", "test")
    }
    assert max(dates["train"]) < min(dates["validation"])
    assert max(dates["validation"]) < min(dates["test"])
    assert abs(len(dates["train"]) - 0.8 * COUNT) < 6
    assert abs(len(dates["test"]) - 0.1 * COUNT) < 6


def test_listens_of_an_average_year_up_to_the_newest_track(tmp_path):
    tracks = made_tracks()
    rows = rows_of(tmp_path, tracks, popularity="listens_per_year")
    newest = max(track.date_created for _, track in rows.values())
    for _, track in rows.values():
        years = max(newest - track.date_created, 30 * DAY) / (365.25 * DAY)
        assert track.value == round(track.listens / years)


def test_listens_of_an_average_year_up_to_when_they_were_counted(tmp_path):
    tracks = [track | {"counted_at": "2020-01-11"} for track in made_tracks()]
    rows = rows_of(tmp_path, tracks, popularity="listens_per_year")
    for _, track in rows.values():
        years = (1578700800 - track.date_created) / (365.25 * DAY)
        assert track.value == round(track.listens / years)


def test_ranks_among_the_tracks_of_a_quarter(tmp_path):
    tracks = made_tracks()
    rows = rows_of(tmp_path, tracks, popularity="rank_among_contemporaries", thresholds=(0.2, 0.6))

    def quarter(track):
        year, month, _ = track["date_created"].split("-")
        return year, (int(month) - 1) // 3

    for track in tracks:
        peers = [other["listens"] for other in tracks if quarter(other) == quarter(track)]
        below = sum(listens < track["listens"] for listens in peers)
        equal = sum(listens == track["listens"] for listens in peers)
        rank = rows[track["track_id"]][1].value
        assert rank == pytest.approx((below + equal / 2) / len(peers), abs=6e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"split_by": "date"},
        {"popularity": "listens_per_year"},
        {"popularity": "rank_among_contemporaries", "thresholds": (0.2, 0.6)},
    ],
)
def test_tracks_without_a_date_are_counted_and_refused(tmp_path, values):
    tracks = made_tracks()
    for track in tracks[:7]:
        track["date_created"] = ""
    tracks[0]["date_created"] = "1965-08-06"  # of a release: no time from which listens count
    with pytest.raises(Exception, match=r"7 of 150 tracks have no date_created from 1970 on"):
        rows_of(tmp_path, tracks, **values)


def test_first_days():
    counts = [(day, 1) for day in range(100)]
    assert splits_and_shards.first_days(counts, (0.8, 0.1, 0.1)) == (80, 90)
    assert splits_and_shards.first_days(counts[:10], (1.0, 0.0, 0.0)) == (10, 10)
    days = splits_and_shards.first_days([(5, 70), (6, 20), (9, 10)], (0.7, 0.2, 0.1))
    assert [splits_and_shards.split_of_day(day, days) for day in (5, 6, 9)] == [
        "train",
        "validation",
        "test",
    ]
    with pytest.raises(UserFacingError, match="no tracks are left for validation, since all 20"):
        splits_and_shards.first_days([(5, 10), (6, 10)], (0.8, 0.1, 0.1))
