"""Of a file on a disk or in a bucket no more is read than what is wanted."""

import os

import google.auth
import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from common import clips, files, song_parts
from common.pieces import NotAtHand, Pieces
from tests.support import made_songs
from tests.support.bucket_server import BucketServer

RATE = 22_050
CHOOSE = clips.choose_even(num_samples=5 * RATE, count=1)
BOUNDS = dict(at_most=10_000_000, seconds=60.0)


def wanted(pieces):
    return song_parts.bytes_wanted(pieces, CHOOSE, sample_rate=RATE)


@pytest.fixture(scope="module")
def song():
    return made_songs.mp3(40)


@pytest.fixture(scope="module")
def server():
    with BucketServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        patch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "project"))
        files._client.cache_clear()
        yield server
        files._client.cache_clear()


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    """The path of a folder, and what writes a file there."""
    if request.param == "disk":
        return str(tmp_path), lambda name, data: (tmp_path / name).write_bytes(data)
    request.getfixturevalue("server")
    bucket = Client(project="project", credentials=AnonymousCredentials()).bucket("bucket")
    return "gs://bucket", lambda name, data: bucket.blob(name).upload_from_string(data)


def test_what_is_wanted_of_a_song_is_read(folder, song):
    path, write = folder
    write("song.mp3", song)
    pieces = files.begin_reading(f"{path}/song.mp3", wanted, **BOUNDS).result()
    assert pieces.size == len(song) and pieces.num_bytes < len(song) / 2
    for start, part in pieces.parts.items():
        assert part == song[start : start + len(part)]
    found = song_parts.load_parts(pieces, CHOOSE, sample_rate=RATE)
    assert found.how == song_parts.ALONE
    expected = song_parts.load_parts(song, CHOOSE, sample_rate=RATE)
    np.testing.assert_array_equal(found.parts[0], expected.parts[0])


def test_all_of_it_is_read_where_that_is_wanted(folder, song):
    path, write = folder
    for name, data in {
        "variable.mp3": made_songs.mp3(20, mode="VARIABLE"),
        "short.mp3": song[: len(song) // 8],
        "text.mp3": b"no music",
        "empty.mp3": b"",
    }.items():
        write(name, data)
        assert files.begin_reading(f"{path}/{name}", wanted, **BOUNDS).result().all() == data
    with pytest.raises(FileNotFoundError):
        files.begin_reading(f"{path}/none.mp3", wanted, **BOUNDS).result()
    with pytest.raises(OSError, match="larger than"):
        files.begin_reading(f"{path}/variable.mp3", wanted, at_most=100, seconds=60.0).result()


def test_a_clip_in_a_bucket_costs_one_request(server, song):
    bucket = Client(project="project", credentials=AnonymousCredentials()).bucket("bucket")
    bucket.blob("clip.mp3").upload_from_string(song)
    server.reset()
    reading = files.begin_reading("gs://bucket/clip.mp3", wanted, **BOUNDS, is_long=False)
    assert reading.result().is_whole
    assert (server.requests["read"], server.requests["look"]) == (1, 0)


def test_a_file_that_gets_shorter_is_read_as_it_is(tmp_path, song):
    path = tmp_path / "song.mp3"
    path.write_bytes(song)

    def cut_off(pieces):
        os.truncate(path, 70_000)
        return wanted(pieces)

    assert files.begin_reading(str(path), cut_off, **BOUNDS).result().all() == song[:70_000]


def test_what_is_not_at_hand_is_named():
    pieces = Pieces(100, {10: b"abcdef", 14: b"efgh"})
    assert pieces.read(12, 16) == b"cdef" and pieces.read(14, 18) == b"efgh"
    with pytest.raises(NotAtHand) as error:
        pieces.read(12, 18)
    assert (error.value.start, error.value.stop) == (12, 18)
    with pytest.raises(ValueError, match="of a file of 100"):
        pieces.add(98, b"abc")
    with pieces.open() as file:
        assert file.read() == bytes(10) + b"abcdefgh" + bytes(82)
        file.seek(-90, 2)
        assert file.read(2) == b"ab"
