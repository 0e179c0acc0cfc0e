"""Pictures that others made as a dataset: what its records hold, and what does not reach them."""

import itertools
import math

import numpy as np
import pytest

from common import dataset_reader
from common.errors import UserFacingError
from common.inputs import HISTORIES
from examples import real_pictures
from trainer.data import damaged_records

COUNT = 120
LABEL_FEATURES = {"listens", "label"}
HISTORY = set(itertools.chain(*HISTORIES.values()))
MEANS = {mean for _, mean in HISTORIES.values()}


def made_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    artists = np.array(["", *(f"Artist {number}" for number in range(25))])
    echonest = rng.normal(0, 1, (COUNT, 2)).astype(np.float32)
    echonest[rng.random(COUNT) < 0.4] = np.nan
    created = rng.integers(1_200_000_000, 1_400_000_000, COUNT)
    return {
        "levels": rng.integers(0, 256, (COUNT, 102, 159), np.uint8),
        "track_id": rng.permutation(10_000)[:COUNT],
        "listens": rng.integers(10, 9_000, COUNT),
        "genre": rng.choice(["Rock", "Folk", "Pop"], COUNT, p=[0.6, 0.3, 0.1]),
        "artist": rng.choice(artists, COUNT),
        "title": rng.choice(["Love me", "The love of Ça", ""], COUNT),
        "location": rng.choice(["Brooklyn, NY", ""], COUNT),
        "date_created": np.where(rng.random(COUNT) < 0.5, created, -1),
        "date_released": rng.choice([1_100_000_000, 1_150_000_000], COUNT),
        "echonest": echonest,
        "echonest_names": np.array(["energy", "tempo"]),
    }


def dataset_of(arrays, folder, *, split_by="track"):
    np.savez(folder / "pictures.npz", **arrays)
    pictures = real_pictures.read(str(folder))
    config = real_pictures.config_of(pictures, split_by=split_by, salt="fma")
    info = real_pictures.write_dataset(pictures, config, str(folder / "dataset"))
    read = dataset_reader.load_dataset_info(str(folder / "dataset"))
    assert read == info
    assert not dataset_reader.damage(info, str(folder / "dataset"))
    examples = {}
    for split, values in dataset_reader.read_examples(info, str(folder / "dataset")):
        examples[values["track_id"]] = (split, values)
    assert len(examples) == COUNT
    return info, examples


def test_a_dataset_is_not_taken_for_one_of_other_pictures(tmp_path):
    arrays = made_arrays()
    dataset_of(arrays, tmp_path)
    real_pictures.require_made_of(str(tmp_path), str(tmp_path / "dataset"))
    np.savez(tmp_path / "pictures.npz", **(arrays | {"listens": arrays["listens"] + 1}))
    with pytest.raises(UserFacingError, match="dataset: made of other pictures than"):
        real_pictures.require_made_of(str(tmp_path), str(tmp_path / "dataset"))


def test_records_hold_what_the_file_says(tmp_path):
    arrays = made_arrays()
    info, examples = dataset_of(arrays, tmp_path)
    for row in range(COUNT):
        values = examples[int(arrays["track_id"][row])][1]
        assert values.keys() <= info.features.keys()
        assert values["spectrogram"] == arrays["levels"][row].tobytes()
        assert values["listens"] == arrays["listens"][row]
        assert values["label"] == np.digitize(arrays["listens"][row], [1_000, 3_500])
        assert values["genre"].decode() == arrays["genre"][row]
        assert values["date_created"] == arrays["date_created"][row]
        assert values.get("category/location", b"").decode() == arrays["location"][row]
        assert values.get("text/title", b"").decode() == arrays["title"][row]
        assert values["number/date_released"] == np.float32(arrays["date_released"][row])
        for place, name in enumerate(["energy", "tempo"]):
            wanted = arrays["echonest"][row, place]
            assert values.get(f"number/{name}", math.nan) == pytest.approx(wanted, nan_ok=True)
        artist, released = arrays["artist"][row], arrays["date_released"][row]
        if not artist:
            assert values["artist_id"] == -1
            assert not values.keys() & HISTORY
            continue
        for name, is_another in (
            ("artist", arrays["artist"] == artist),
            ("artist_album", (arrays["artist"] == artist) & (arrays["date_released"] == released)),
        ):
            others = [
                math.log(1 + arrays["listens"][other])
                for other in np.flatnonzero(is_another)
                if other != row and examples[int(arrays["track_id"][other])][0] == "train"
            ]
            assert values[f"{name}_tracks"] == len(others)
            mean = np.mean(others) if others else math.nan
            stored = values.get(f"{name}_mean_log_listens", math.nan)
            assert stored == pytest.approx(mean, rel=1e-6, nan_ok=True)


def test_a_record_that_leaves_out_what_is_unknown_is_whole(tmp_path):
    info, _ = dataset_of(made_arrays(), tmp_path)
    for split in info.splits.values():
        for shard in split.shards:
            found = list(damaged_records.scan_shard(info, str(tmp_path / "dataset"), shard))
            assert len(found) == shard.num_examples
            assert all(isinstance(record, bytes) for record in found)


def test_a_new_artist_has_no_history(tmp_path):
    _, examples = dataset_of(made_arrays(), tmp_path, split_by="artist")
    unseen = [v for split, v in examples.values() if split != "train" and v["artist_id"] >= 0]
    assert unseen
    for values in unseen:
        assert values["artist_tracks"] == values.get("artist_album_tracks", 0) == 0
        assert not values.keys() & MEANS


def test_statistics_are_of_the_training_split_alone(tmp_path):
    info, examples = dataset_of(made_arrays(), tmp_path)
    train = [values for split, values in examples.values() if split == "train"]
    levels = np.stack([np.frombuffer(v["spectrogram"], np.uint8) for v in train])
    levels = levels.reshape(-1, 102, 159).astype(float)
    statistics = info.statistics
    np.testing.assert_allclose(statistics.spectrogram.mean, levels.mean(axis=(0, 2)))
    np.testing.assert_allclose(statistics.spectrogram.deviation, levels.std(axis=(0, 2)))
    assert list(statistics.numbers) == [
        "date_created",
        "date_released",
        "energy",
        "tempo",
        "artist_tracks",
        "artist_mean_log_listens",
        "artist_album_tracks",
        "artist_album_mean_log_listens",
    ]
    for name, feature in info.config.inputs.number_features.items():
        known = [v[feature] for v in train if v.get(feature, -1) != -1]
        of_number = statistics.numbers[name]
        assert of_number.count == len(known) > 0
        np.testing.assert_allclose(of_number.mean, np.mean(known))
        np.testing.assert_allclose(of_number.deviation, np.std(known), rtol=1e-6)
        # The sample holds all records of so small a split.
        np.testing.assert_allclose(of_number.quantiles, np.quantile(known, np.arange(33) / 32))
    assert statistics.categories["genre"] == ("Rock", "Folk", "Pop")
    assert statistics.categories["location"] == ("Brooklyn, NY",)
    assert set(statistics.texts["title"]) == {"love", "me", "the", "of", "ça"}
    assert statistics.texts["title"][0] == "love"


@pytest.mark.parametrize("split_by", ["track", "artist"])
def test_no_listens_of_validation_or_test_and_not_its_own_reach_a_record(tmp_path, split_by):
    arrays = made_arrays()
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    info, before = dataset_of(arrays, tmp_path / "before", split_by=split_by)
    held_out = np.array([before[int(i)][0] != "train" for i in arrays["track_id"]])
    # Every held-out track, and one of the training split's.
    changed = held_out.copy()
    own = int(np.flatnonzero(~held_out & (arrays["artist"] != ""))[0])
    changed[own] = True
    arrays["listens"] = np.where(changed, arrays["listens"] * 7 + 5_000, arrays["listens"])
    after_info, after = dataset_of(arrays, tmp_path / "after", split_by=split_by)
    touched = 0
    for row, track_id in enumerate(map(int, arrays["track_id"])):
        assert before[track_id][0] == after[track_id][0]
        first, second = before[track_id][1], after[track_id][1]
        its_artists_other = arrays["artist"][row] == arrays["artist"][own] and row != own
        left_out = LABEL_FEATURES | (MEANS if its_artists_other else set())
        assert {k: v for k, v in first.items() if k not in left_out} == {
            k: v for k, v in second.items() if k not in left_out
        }
        touched += first != second
    assert touched > held_out.sum()
    assert info.statistics.numbers["energy"] == after_info.statistics.numbers["energy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("listens"), "not such pictures"),
        (lambda a: a.update(levels=a["levels"].astype(float)), "levels is float64"),
        (lambda a: a.update(genre=a["genre"][:-1]), "119 of genre for 120 of track_id"),
        (lambda a: a["track_id"].__setitem__(1, a["track_id"][0]), "stands there twice"),
        (lambda a: a.update(levels=a["levels"][:, :64]), "pictures of 64 × 159"),
        (lambda a: a.update(echonest_names=np.array(["energy", "song_hotttnesss"])), "only after"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path, change, message):
    arrays = made_arrays()
    change(arrays)
    with pytest.raises(UserFacingError, match=message) as error:
        dataset_of(arrays, tmp_path)
    assert "\n" not in str(error.value)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserFacingError, match=r"no \.npz file"):
        real_pictures.read(str(tmp_path))
    with pytest.raises(UserFacingError, match="no such file"):
        real_pictures.read(str(tmp_path / "none.npz"))
