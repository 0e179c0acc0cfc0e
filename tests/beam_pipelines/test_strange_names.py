"""Genres and dates that a catalogue may have, in the tables and pictures of a dataset."""

import types
import warnings
from collections import Counter

import numpy as np
import pytest

from beam_pipelines.card import contents, data_card, plots, summary
from common import dataset_reader, tables
from common.dataset_config import DatasetConfig
from configs import dataset_artist

CONFIG = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
INFO = types.SimpleNamespace(
    config=CONFIG, class_names=CONFIG.class_names, thresholds=(1, 2), num_examples=7
)
STRANGE = [
    "Rock\x00\x07\x1b[31m\nPop",
    "x" * 1_000_000,
    "x" * 999_999,
    r"$\frac{1}$ and $",
    "音楽",
    "\u202etxet",
    "",
]


def of_genres(genres) -> contents.Contents:
    picture = np.zeros(CONFIG.spectrogram.shape, np.uint8).tobytes()
    examples = [
        {"spectrogram": picture, "genre": genre.encode(), "track_id": 1, "listens": 1}
        for genre in genres
    ]
    counts = Counter({(genre, 0): 1 for genre in genres})
    shown = {0: examples, 1: [], 2: []}
    return contents.Contents(Counter({1: len(genres)}), counts, Counter(), Counter(), shown)


def test_tables_show_no_control_characters_and_no_novels():
    rows = summary.genre_rows(of_genres(STRANGE), INFO)
    text = "\n".join(tables.aligned(rows))
    assert text.isprintable() or set(text) - {"\n"} == set(filter(str.isprintable, text))
    assert max(map(len, text.splitlines())) < 200
    assert sum(int(row[4]) for row in rows[1:]) == len(STRANGE)  # two of them look alike
    assert len("".join(data_card._markdown(rows))) < 5_000


def test_pictures_show_them_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        for picture in (plots.genres, plots.contact_sheet):
            assert picture(INFO, of_genres(STRANGE)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("seconds", "year"),
    [
        (0, 1970),
        (-62135596800, 1),
        (-62135596800 - 14 * 3600, 0),
        (253402300799, 9999),
        (253402300799 + 12 * 3600, 10_000),
        (-(2**62), None),
    ],
)
def test_dates_that_python_has_no_year_for(monkeypatch, seconds, year):
    """0001-01-01T00:00+14:00 lies in the year before the first."""
    example = {"label": 0, "listens": 1, "genre": b"", "artist_id": 1, "date_created": seconds}
    monkeypatch.setattr(dataset_reader, "read_examples", lambda *_: [("train", example)])
    found = contents.read(INFO, "dataset")
    assert len(found.years) == 1
    if year is not None:
        assert found.years == Counter({(year, 0): 1})
