"""A dataset whose records carry more than a picture, through the whole job."""

import csv
import json
import math

import numpy as np
import pytest

from common import dataset_reader
from common.catalogue import clip_path
from tests.common.test_chroma_and_tempo import chroma_by_librosa, tempo_by_librosa
from tests.common.test_spectrogram import window_by_librosa
from tests.support.commands import IN_MEMORY, assert_refused, build, counted, read_csv

FLAGS = (
    "--config.inputs.categories=('genre','mood')",
    "--config.inputs.numbers=('date_created','energy')",
    "--config.inputs.texts=('lyrics',)",
    "--config.inputs.artist_history=True",
    "--config.inputs.album_history=True",
    "--config.inputs.chroma=True",
    "--config.inputs.tempo=True",
    "--config.split_by=track",
    "--config.split_sizes=(0.5,0.25,0.25)",
)


@pytest.fixture(scope="module")
def table(library, tmp_path_factory):
    """A table of every other track."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    ids = [int(row[0]) for row in read_csv(library.tracks_csv)[3:]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "energy", "mood", "lyrics"])
        for number in ids[::2]:
            writer.writerow([number, number / 8, f"mood {number % 3}", f"Love, love {number}"])
    return path


@pytest.fixture(scope="module")
def built(library, table, tmp_path_factory):
    """The folder of the dataset, and what the command printed."""
    folder = tmp_path_factory.mktemp("more") / "dataset"
    result = build(library.tracks_csv, library.audio_dir, folder, *FLAGS, f"--features_csv={table}")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def examples_of(folder):
    info = dataset_reader.load_dataset_info(str(folder))
    return info, list(dataset_reader.read_examples(info, str(folder)))


def test_records_hold_their_track(built, table, library):
    info, examples = examples_of(built[0])
    with table.open() as file:
        rows = {int(row["track_id"]): row for row in csv.DictReader(file)}
    num_known = 0
    for _, values in examples:
        assert values.keys() <= info.features.keys()
        row = rows.get(values["track_id"], {"energy": "nan", "mood": "", "lyrics": ""})
        num_known += values["track_id"] in rows
        assert values.get("category/mood", b"").decode() == row["mood"]
        assert values.get("text/lyrics", b"").decode() == row["lyrics"]
        energy = values.get("number/energy", math.nan)
        assert energy == pytest.approx(float(row["energy"]), nan_ok=True)
    assert 0 < num_known < len(examples) == library.num_examples
    printed = counted(built[1], "tracks with unknown inputs: number/energy")
    assert printed == len(examples) - num_known


def test_chroma_and_tempo_are_those_of_librosa(built, library):
    info, examples = examples_of(built[0])
    assert info.features["chroma"] == {"dtype": "uint8", "shape": [12, 159]}
    assert info.features["tempo"] == {"dtype": "uint8", "shape": [384]}
    for _, values in examples[:6]:
        data = (library.audio_dir / clip_path(values["track_id"])).read_bytes()
        window = window_by_librosa(data)
        for name, wanted in (
            ("chroma", chroma_by_librosa(window)),
            ("tempo", tempo_by_librosa(window)),
        ):
            stored = np.frombuffer(values[name], np.uint8).reshape(wanted.shape)
            off = np.abs(stored.astype(int) - wanted)
            assert (off <= 1).mean() > 0.99, name


def test_statistics_are_of_the_training_split(built):
    info, examples = examples_of(built[0])
    train = [values for split, values in examples if split == "train"]
    levels = np.stack([np.frombuffer(v["spectrogram"], np.uint8) for v in train])
    levels = levels.reshape(-1, 102, 159).astype(float)
    np.testing.assert_allclose(info.statistics.spectrogram.mean, levels.mean(axis=(0, 2)))
    np.testing.assert_allclose(info.statistics.spectrogram.deviation, levels.std(axis=(0, 2)))
    for name, feature in info.config.inputs.number_features.items():
        known = [v[feature] for v in train if v.get(feature, -1) != -1]
        statistics = info.statistics.numbers[name]
        assert statistics.count == len(known) > 0
        np.testing.assert_allclose(statistics.mean, np.mean(known))
        np.testing.assert_allclose(statistics.quantiles, np.quantile(known, np.arange(33) / 32))
    assert info.statistics.texts["lyrics"][0] == "love"
    moods = [v["category/mood"].decode() for v in train if "category/mood" in v]
    by_count = sorted(set(moods), key=lambda mood: (-moods.count(mood), mood))
    assert info.statistics.categories["mood"] == tuple(by_count)


def test_pictures_and_labels_are_those_of_a_dataset_without_more(built, dataset_dir):
    pictures = {v["track_id"]: v for _, v in examples_of(dataset_dir)[1]}
    info = json.loads((built[0] / "dataset_info.json").read_text())
    assert info["config"]["inputs"]["tempo"] is True
    for _, values in examples_of(built[0])[1]:
        plain = pictures[values["track_id"]]
        assert {name: values[name] for name in plain} == plain


@pytest.mark.parametrize(
    ("table_text", "flags", "message"),
    [
        ("track_id,energy\n2,1\n", ["--config.inputs.numbers=('loudness',)"], "no column loudness"),
        ("track,energy\n2,1\n", ["--config.inputs.numbers=('energy',)"], "no track ids"),
        ("track_id,energy\n2,1\n", ["--config.inputs.numbers=('interest',)"], "only after"),
    ],
)
def test_bad_inputs_are_refused_before_anything_is_written(
    library, tmp_path, table_text, flags, message
):
    (tmp_path / "table.csv").write_text(table_text)
    out = tmp_path / "out"
    flags = [*flags, f"--features_csv={tmp_path / 'table.csv'}"]
    assert_refused(build(library.tracks_csv, library.audio_dir, out, *flags), message)
    assert not out.exists() or not any(out.iterdir())


def test_a_column_that_no_row_has_is_refused(library, tmp_path):
    (tmp_path / "table.csv").write_text("track_id,energy\n99999999,1\n")
    result = build(
        library.tracks_csv,
        library.audio_dir,
        tmp_path / "out",
        "--config.inputs.numbers=('energy',)",
        f"--features_csv={tmp_path / 'table.csv'}",
        *IN_MEMORY,
    )
    assert_refused(result, "config.inputs.numbers: energy is unknown of all")
