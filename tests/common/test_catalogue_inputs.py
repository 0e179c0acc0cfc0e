"""Further columns of catalogues and of tables by track id, as FMA writes them and as people do."""

import io
import math

import numpy as np
import pytest

from common import catalogue
from common.catalogue import Columns, Track
from common.errors import UserFacingError
from common.inputs import Inputs

FMA = """\
,album,album,album,artist,artist,artist,artist,set,set,track,track,track,track,track,track,track
,date_released,listens,title,id,location,name,tags,split,subset,\
bit_rate,date_created,duration,genre_top,listens,tags,title
track_id,,,,,,,,,,,,,,,
2,2009-01-05 00:00:00,6073,A Way Of Life,1,New Jersey,AWOL,[],training,small,\
256000,2008-11-26 01:48:12,168,Hip-Hop,1293,[],Food
3,,6073,,1,,AWOL,[],training,small,nan,,237,,514,"['x', 'y']",
"""
FEATURES = """\
feature,chroma_cens,chroma_cens,mfcc
statistics,kurtosis,kurtosis,mean
number,01,02,01
track_id,,,
2,7.18,5.2,-1.6e2
3,,nan,+.5
"""
ECHONEST = """\
,echonest,echonest,echonest
,audio_features,metadata,audio_features
,acousticness,artist_location,tempo
track_id,,,
2,0.4166752327,"Philadelphia, PA US",92.528
"""


def read(text: str, inputs: Inputs) -> list[Track]:
    file = io.BytesIO(text.encode())
    return list(catalogue.read_tracks(file, name="tracks.csv", subset="small", inputs=inputs))


def read_table(text: str, inputs: Inputs) -> dict[int, Columns]:
    file = io.BytesIO(text.encode())
    return dict(catalogue.read_columns(file, name="table.csv", inputs=inputs))


def test_columns_of_fma():
    inputs = Inputs(
        categories=("genre", "location"),
        numbers=("date_created", "date_released", "duration", "bit_rate"),
        texts=("title", "album_title", "tags"),
    )
    first, second = read(FMA, inputs)
    assert first.categories == ("Hip-Hop", "New Jersey")
    assert first.numbers == (1227664092, 1231113600, 168, 256000)
    assert first.texts == ("Food", "A Way Of Life", "[]")
    assert second.categories == ("", "")
    np.testing.assert_array_equal(second.numbers, [math.nan, math.nan, 237, math.nan])
    assert second.texts == ("", "", "['x', 'y']")


def test_the_real_catalogue(fma_sample):
    inputs = Inputs(
        categories=("genre", "location", "license"),
        numbers=("date_created", "date_released", "duration", "bit_rate", "active_year_begin"),
        texts=("title", "tags", "album_title"),
    )
    path = fma_sample / "fma_metadata" / "tracks.csv"
    with path.open("rb") as file:
        tracks = list(catalogue.read_tracks(file, name="x", subset="full", inputs=inputs))
    assert tracks[0].categories[1:] == (
        "New Jersey",
        "Attribution-NonCommercial-ShareAlike 3.0 International",
    )
    assert tracks[0].numbers == (1227664092, 1231113600, 168, 256000, 1136073600)
    assert tracks[0].texts == ("Food", "[]", "AWOL - A Way Of Life")


def test_columns_of_a_plain_catalogue():
    text = "track_id,path,listens,Release Date,mood,genre\n1,a.mp3,5,2001-01-01,calm,Pop\n"
    inputs = Inputs(categories=("mood", "genre"), numbers=("release_date", "date_created"))
    (track,) = read(text, inputs)
    assert track.categories == ("calm", "Pop")
    np.testing.assert_array_equal(track.numbers, [978307200, math.nan])
    file = io.BytesIO(text.encode())
    found = catalogue.inputs_of_catalogue(file, name="x", inputs=inputs)
    assert found == {"mood", "genre", "release_date"}


def test_albums_are_read_where_their_history_is_an_input():
    inputs = Inputs(album_history=True)
    with pytest.raises(UserFacingError, match=r"tracks.csv: there is no column \(album, id\)"):
        read(FMA, inputs)
    fma = FMA.replace("date_released,listens", "date_released,id").replace("6073,A", "58,A")
    first, second = read(fma.replace("3,,6073", "3,,-1"), inputs)
    assert (first.album_id, second.album_id) == (58, -1)
    assert read(fma, Inputs())[0].album_id == -1

    text = (
        "track_id,path,listens,album\n1,a.mp3,5,Food\n2,b.mp3,5,Food\n3,c.mp3,5,Drink\n4,d.mp3,5,\n"
    )
    first, second, third, fourth = read(text, inputs)
    assert first.album_id == second.album_id != third.album_id >= 0
    assert fourth.album_id == -1
    (track,) = read("track_id,path,listens,album,album_id\n1,a.mp3,5,Food,7\n", inputs)
    assert track.album_id == 7


def test_an_id_of_minus_one_is_unknown_as_fma_writes_it():
    text = "track_id,path,listens,artist_id,album_id\n1,a.mp3,5,-1,-1\n"
    (track,) = read(text, Inputs(album_history=True))
    assert (track.artist_id, track.album_id) == (-1, -1)


def test_tables_of_fma():
    inputs = Inputs(numbers=("chroma_cens_kurtosis_02", "mfcc_mean_01", "duration"))
    table = read_table(FEATURES, inputs)
    np.testing.assert_array_equal(table[2].numbers, [5.2, -160, math.nan])
    np.testing.assert_array_equal(table[3].numbers, [math.nan, 0.5, math.nan])
    inputs = Inputs(categories=("artist_location",), numbers=("acousticness", "tempo"))
    table = read_table(ECHONEST, inputs)
    assert table[2] == Columns(("Philadelphia, PA US",), (0.4166752327, 92.528), ())
    file = io.BytesIO(ECHONEST.encode())
    assert catalogue.inputs_of_table(file, name="x", inputs=inputs) == {
        "artist_location",
        "acousticness",
        "tempo",
    }


def test_a_table_of_ones_own():
    inputs = Inputs(numbers=("energy",), texts=("lyrics",))
    table = read_table('lyrics,track_id,Energy\n"two\nlines",7,1\n,8,\n', inputs)
    assert table[7] == Columns((), (1.0,), ("two\nlines",))
    assert math.isnan(table[8].numbers[0])


def test_tables_say_what_those_before_them_do_not():
    track = Track(
        1, "a", 5, -1, "", -1, "", categories=("x", ""), numbers=(math.nan, 1.0), texts=("",)
    )
    tables = [Columns(("y", ""), (math.nan, 2.0), ("a",)), Columns(("z", "z"), (3.0, 3.0), ("b",))]
    merged = catalogue.merged(track, tables)
    assert merged.categories == ("x", "z")
    assert merged.numbers == (3.0, 1.0)
    assert merged.texts == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("energy,mood\n1,2\n", "table.csv: no track ids"),
        ("", "table.csv: no track ids"),
        ("a,b\nc,d\ne,f\ng,h\ntrack_id,\n", "table.csv: no track ids"),
        ("track_id,energy\n1,2\n2,3\n1,4\n", r'row 4, column track_id: "1" stands in an earlier'),
        ("track_id,energy\n1,high\n", r'row 2, column energy: "high" is neither a number nor'),
        ("track_id,energy\n1,1_000\n", "is neither a number"),
        ("track_id,energy\n1,inf\n", "is neither a number"),
        ("track_id,energy\n1,1e39\n", "is too large a number"),
        ("track_id,energy\nx,1\n", 'column track_id: "x" is not a whole number'),
        ("track_id,energy\n1\n", "row 2: 1 cells where the header has 2"),
        (
            FEATURES.replace("-1.6e2", "loud"),
            r"row 5, column \(mfcc, mean, 01\): \"loud\" is neith",
        ),
    ],
)
def test_what_is_no_such_table_is_refused(text, message):
    with pytest.raises(UserFacingError, match=message) as error:
        read_table(text, Inputs(numbers=("energy", "mfcc_mean_01")))
    assert "\n" not in str(error.value)


def test_a_name_that_may_be_several_columns_is_refused():
    with pytest.raises(UserFacingError, match=r"kurtosis_01 of config\.inputs may be"):
        text = "f,chroma,mfcc\ns,kurtosis,kurtosis\nn,01,01\ntrack_id,,\n"
        read_table(text, Inputs(numbers=("kurtosis_01",)))


def test_text_in_a_number_of_the_catalogue_names_row_and_column():
    with pytest.raises(UserFacingError, match=r'row 4, column \(track, title\): "Food" is neither'):
        read(FMA, Inputs(numbers=("title",)))


def test_categories_and_texts_are_bounded():
    text = f"track_id,path,listens,mood,lyrics\n1,a.mp3,5,{'x' * 900},{'y ' * 90_000}\n"
    (track,) = read(text, Inputs(categories=("mood",), texts=("lyrics",)))
    assert len(track.categories[0]) == 200
    assert len(track.texts[0]) == 20_000


def test_a_name_of_a_column_that_is_no_text_is_shown_escaped():
    table = b",\x9bechonest\x1b[2J\n,metadata\n,license\ntrack_id,\n2,\xc3C\n"
    with pytest.raises(UserFacingError) as error:
        list(
            catalogue.read_columns(
                io.BytesIO(table), name="echonest.csv", inputs=Inputs(categories=("license",))
            )
        )
    assert str(error.value) == (
        r'echonest.csv, row 5, column (\udc9bechonest\x1b[2J, metadata, license): "\udcc3C" is not '
        "UTF-8"
    )
