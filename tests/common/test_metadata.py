"""What is told of a track: taken, unknown, or refused in one line."""

import numpy as np
import pytest

from common import metadata
from common.errors import UserFacingError
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams
from configs import dataset_artist

INPUTS = Inputs(
    categories=("genre", "licence"),
    numbers=("date_created", "tempo"),
    texts=("title",),
    artist_history=True,
    chroma=True,
    tempo=True,
)
PARAMS = SpectrogramParams(**dataset_artist.get_config().spectrogram.to_dict())


def test_what_is_told_is_taken():
    told = {"genre": "Musique concrète", "tempo": 120, "date_created": "2015-03-31", "title": None}
    expected = {"genre": "Musique concrète", "tempo": 120.0, "date_created": 1_427_760_000.0}
    assert metadata.checked(told, INPUTS) == expected
    assert metadata.checked({"tempo": " 9e1 ", "genre": ""}, INPUTS) == {"tempo": 90.0}
    assert metadata.checked({}, Inputs()) == {}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (["genre"], "not an object"),
        ({"listens": 3}, "'listens': the model takes no such input; it takes title"),
        ({"genre": 3}, "genre: 3 is not a text"),
        ({"genre": ["Rock"]}, "genre: .* is not a text"),
        ({"genre": "x" * 20_001}, "genre: longer than 20,000 letters"),
        ({"title": "\ud800"}, "title: half a character"),
        ({"tempo": "fast"}, "tempo: 'fast' is not a number"),
        ({"tempo": True}, "tempo: 'True' is not a number"),
        ({"tempo": float("nan")}, "tempo: 'nan' is not a number"),
        ({"tempo": 10**400}, "tempo: .* is not a number"),
        ({"tempo": {}}, "tempo: '{}' is not a number"),
    ],
)
def test_what_is_of_another_type_is_one_line(told, problem):
    with pytest.raises(UserFacingError, match=problem) as error:
        metadata.checked(told, INPUTS)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_sound_alone():
    with pytest.raises(UserFacingError, match="it takes sound alone"):
        metadata.checked({"genre": "Rock"}, Inputs())


def test_columns_have_a_value_for_each_row():
    columns = metadata.columns([{"genre": "Rock", "tempo": 120.0}, {}], INPUTS)
    assert columns.keys() | {"chroma", "tempo"} == metadata.unknown(INPUTS, PARAMS).keys()
    assert columns["genre"].tolist() == [b"Rock", b""]
    np.testing.assert_array_equal(columns["number_tempo"], np.array([120, np.nan], np.float32))
    for name, unknown in metadata.unknown(INPUTS, PARAMS).items():
        if name in columns:
            assert columns[name].dtype == unknown.dtype and unknown.shape == (1,)
            assert columns[name][1] == unknown[0] or np.isnan(unknown[0])
