"""FMA's tracks.csv: what is read of it, and what is said of mistakes."""

import bisect
import csv
import io
import itertools
import os
import random
import re

import pytest

from common import catalogue
from common.errors import UserFacingError

GROUPS = ["", "track", "track", "track", "artist", "artist", "set", "set"]
NAMES = ["", "listens", "genre_top", "date_created", "id", "bio", "subset", "split"]
ROWS = [
    ["2", "1293", "Hip-Hop", "2008-11-26 01:48:12", "1", 'said "hi",\nthen left', "small", "test"],
    ["3", "514", "Hip-Hop", "2008-11-26 01:48:14", "1", "", "medium", "training"],
    ["20", "361", "", "", "", "", "large", "training"],
    ["134", "0", "Ünïcode", "1970-01-01 00:00:10", "7", "", "full", "training"],
]


def file_of(rows, groups=GROUPS, names=NAMES, index=("track_id",)):
    text = io.StringIO()
    csv.writer(text).writerows([groups, names, [*index, *[""] * (len(groups) - 1)], *rows])
    return io.BytesIO(text.getvalue().encode())


def read(file, subset="full"):
    return list(catalogue.read_tracks(file, name="tracks.csv", subset=subset))


def changed(row, column, value):
    rows = [list(cells) for cells in ROWS]
    rows[row][column] = value
    return file_of(rows)


def test_values():
    tracks = read(file_of(ROWS))
    assert tracks[0][:7] == (2, "000/000002.mp3", 1293, 1, "Hip-Hop", 1227664092, "test")
    assert tracks[2][:7] == (20, "000/000020.mp3", 361, -1, "", -1, "train")
    assert tracks[3][:7] == (134, "000/000134.mp3", 0, 7, "Ünïcode", 10, "train")


def plain(text) -> io.BytesIO:
    return io.BytesIO(text.encode())


def test_plain_catalogues():
    tracks = read(plain("listens,track_id,path\r\n5,1,a/b c.flac\r\n"), subset="small")
    assert tracks == [catalogue.Track(1, "a/b c.flac", 5, -1, "", -1, "")]
    text = "\ufefftrack_id,path,listens,artist,genre,date_created,mood\n"
    text += (
        "1,a.mp3,5,Björk,Pop,2001-01-01,calm\n2,b.mp3,6,Björk,,,\n3,c.mp3,7,Can,,,\n4,d.mp3,8,,,,\n"
    )
    one, two, three, four = read(plain(text))
    assert (one.genre, one.date_created) == ("Pop", 978307200)
    assert one.artist_id == two.artist_id != three.artist_id
    assert min(one.artist_id, three.artist_id) > 0
    assert four.artist_id == -1
    (track,) = read(plain("track_id,path,listens,artist_id,artist\n1,a.mp3,5,77,Can\n"))
    assert track.artist_id == 77


def test_plain_catalogues_as_other_programs_write_them():
    text = "track_id, path , listens,date_created\n1,a.mp3,5.0,{}\n"
    for date, seconds in (
        ("2001-01-01T00:00:00", 978307200),
        ("2001-01-01T00:00:00Z", 978307200),
        ("2001-01-01T02:00:00+02:00", 978307200),
        ("2001-01-01 00:00:01", 978307201),
    ):
        assert read(plain(text.format(date))) == [
            catalogue.Track(1, "a.mp3", 5, -1, "", seconds, "")
        ]
    with pytest.raises(UserFacingError, match=r'"5\.5" is not a whole number'):
        read(plain("track_id,path,listens\n1,a.mp3,5.5\n"))


def test_names_of_files_may_be_any_bytes():
    name = b"line\nbreak \xff\xfe.mp3"
    file = io.BytesIO(b'track_id,path,listens\n1,"' + name + b'",5\n')
    (track,) = read(file)
    assert os.fsencode(track.path) == name
    assert track.packed()[1] == name
    assert catalogue.Track.unpacked(track.packed()) == track


@pytest.mark.parametrize(
    ("subset", "ids"),
    [("small", [2]), ("medium", [2, 3]), ("large", [2, 3, 20]), ("full", [2, 3, 20, 134])],
)
def test_each_subset_contains_the_ones_before_it(subset, ids):
    assert [track.track_id for track in read(file_of(ROWS), subset)] == ids


def test_columns_are_found_by_name():
    order = [0, 6, 5, 4, 3, 2, 1, 7]
    pick = [[row[i] for i in order] for row in (GROUPS, NAMES, *ROWS)]
    assert read(file_of(pick[2:], pick[0], pick[1])) == read(file_of(ROWS))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            changed(1, 1, "abc"),
            'tracks.csv, row 5, column (track, listens): "abc" is not a whole number',
        ),
        (changed(3, 1, ""), 'row 7, column (track, listens): "" is not a whole number'),
        (changed(0, 1, "1_000"), '"1_000" is not a whole number'),
        (changed(0, 1, "-3"), '"-3" is not a whole number'),
        (changed(0, 1, "9" * 60), '9…" is not a whole number'),
        (changed(0, 4, "x1"), 'row 4, column (artist, id): "x1" is not a whole number'),
        (changed(2, 0, "two"), 'row 6, column track_id: "two" is not a whole number'),
        (changed(1, 0, "2"), 'row 5, column track_id: "2" stands in an earlier row too'),
        (changed(0, 3, "yesterday"), 'column (track, date_created): "yesterday" is not a date'),
        (changed(0, 6, "tiny"), 'row 4, column (set, subset): "tiny" is none of small'),
        (changed(0, 7, "tset"), 'column (set, split): "tset" is none of training'),
        (plain("track_id,path\n1,a.mp3\n"), "there is no column listens"),
        (plain("track_id,path,listens\n1,a.mp3,x\n"), 'row 2, column listens: "x" is not a'),
        (plain("track_id,path,listens\n1,,5\n"), 'row 2, column path: "" names no file'),
        (file_of([ROWS[0], ROWS[1][:4]]), "row 5: 4 cells where the header has 8"),
        (file_of(ROWS, names=["", "lissens", *NAMES[2:]]), "no column (track, listens)"),
        (file_of(ROWS, index=("id",)), "neither FMA's header"),
        (io.BytesIO(b""), "neither FMA's header"),
        (io.BytesIO(file_of(ROWS).getvalue() + b'5,"cut in the mid'), "row 8: unexpected end"),
        (
            io.BytesIO(file_of(ROWS).getvalue().replace(b"1293", b"12\xff93")),
            'row 4, column (track, listens): "12\\udcff93" is not UTF-8',
        ),
    ],
)
def test_mistakes_are_named(file, message):
    with pytest.raises(UserFacingError) as error:
        read(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def ends_of_rows(data):
    """Where each row of a catalogue ends, in bytes, as Python's csv reads it."""
    lines = list(io.StringIO(data.decode(), newline=""))
    ends_of_lines = list(itertools.accumulate(len(line.encode()) for line in lines))
    rows = csv.reader(lines)
    return [ends_of_lines[rows.line_num - 1] for _ in rows]


def check_cut(data, end, ends, whole):
    """Cut at a place, it is refused by the row that was cut, or has lost whole rows alone."""
    cut_row = bisect.bisect_right(ends, end) + 1
    try:
        tracks = read(io.BytesIO(data[:end]))
    except UserFacingError as error:
        assert end not in ends
        assert re.match(f"tracks.csv, row {cut_row}[:,] ", str(error))
        assert "\n" not in str(error)
    else:
        # A line end is whole without its second byte.
        num_rows = cut_row - 1 if end in ends else cut_row
        assert end in ends or data[end - 1 : end + 1] == b"\r\n"
        assert tracks == whole[: num_rows - 3]


def test_a_catalogue_that_is_cut_off_anywhere():
    data = file_of(ROWS).getvalue()
    ends, whole = ends_of_rows(data), read(file_of(ROWS))
    assert len(ends) == 3 + len(whole)
    for end in range(ends[2], len(data)):
        check_cut(data, end, ends, whole)


def test_the_real_catalogue_cut_off(fma_sample):
    data = (fma_sample / "fma_metadata" / "tracks.csv").read_bytes()
    ends, whole = ends_of_rows(data), read(io.BytesIO(data))
    rng = random.Random(7)
    for end in [
        *(rng.randrange(ends[2], len(data)) for _ in range(50)),
        *rng.sample(ends[3:], 5),
        len(data) - 1,
    ]:
        check_cut(data, end, ends, whole)


@pytest.mark.parametrize("seed", range(3))
def test_ids_that_stand_twice_are_found_in_any_order(seed):
    rng = random.Random(seed)
    ids = [rng.randrange(10 ** rng.choice([3, 17])) for _ in range(300)]
    if seed == 0:
        ids.sort()
    text = ["track_id,path,listens", *(f"{number},a.mp3,1" for number in ids)]
    first = next((row for row, i in enumerate(ids) if i in ids[:row]), None)
    assert first is not None
    with pytest.raises(UserFacingError, match=f"row {first + 2}, .*stands in an earlier row"):
        read(plain("\n".join(text)))
    unique = list(dict.fromkeys(ids))
    text = ["track_id,path,listens", *(f"{number},a.mp3,1" for number in unique)]
    assert [track.track_id for track in read(plain("\n".join(text)))] == unique


def test_the_real_catalogue(fma_sample):
    path = fma_sample / "fma_metadata" / "tracks.csv"
    counts = {}
    for subset in ("small", "medium", "large"):
        with path.open("rb") as file:
            counts[subset] = len(read(file, subset))
    assert counts == {"small": 58, "medium": 194, "large": 682}
