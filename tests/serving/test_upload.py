"""The one shape of JSON that is taken; the other kinds of body are in test_app.py."""

import base64
import contextlib
import json
import time

import numpy as np
import pytest

from serving.web.limits import Refusal
from serving.web.upload import song_of_json

SONG = np.random.default_rng(0).integers(0, 256, 3_000_001, np.uint8).tobytes()
TEXT = base64.b64encode(SONG).decode()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"audio": TEXT}),
        json.dumps({"audio": TEXT}, indent=4) + "\r\n",
        ' {\n"audio"\t:"' + TEXT + '"} ',
        '{"audio":"' + TEXT.replace("/", r"\/") + '"}',  # as PHP writes it
        json.dumps({"audio": base64.encodebytes(SONG).decode()}),  # a line break each 76
        json.dumps({"audio": base64.encodebytes(SONG).decode().replace("\n", "\r\n")}),
    ],
    ids=["compact", "indented", "spaced", "slashes", "lines", "windows-lines"],
)
def test_a_song_in_json(body):
    assert json.loads(body).keys() == {"audio"}
    assert song_of_json(bytearray(body.encode())) == SONG


def test_a_song_of_no_bytes():
    assert song_of_json(b'{"audio": ""}') == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"audio": "}',
        b'{"audio": 3}',
        b'{"audio": null}',
        b'{"audio": ["QUFB"]}',
        b'{"audio": "#"}',
        b'{"audio": "QUF"}',
        b'{"audio": "QUFB", "name": "x"}',
        b'{"name": "x", "audio": "QUFB"}',
        b'{"audio": "QUFB", "audio": "QUFB"}',
        b'{"audio": "QUFB"',
        b'{"audio": "QUFB"}}',
        b'{"audio": "QUFB\nQUFB"}',
        rb'{"audio": "QUFB\u002f"}',
        rb'{"audio": "QUFB\"}',
        b'{"audio": "QUFB=QUFB"}',
        b"[" * 100_000,
        b"\xff",
        b'{"audio": "' + b"\xc3" * 99 + b'"}',
    ],
)
def test_any_other_json_is_refused(body):
    with pytest.raises(Refusal, match="The JSON is not") as refusal:
        song_of_json(body)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"audio": [' + b"[]," * 13_000_000 + b"[]]}",
        b'{"audio": "' + b'"' * 39_000_000 + b'"}',
        b" " * 39_000_000,
        b'{"audio": "QUFB"' + b" " * 39_000_000,
        b'{"audio": "' + b"\\" * 39_000_000 + b'"}',
    ],
    ids=["lists", "quotes", "spaces", "spaces-at-the-end", "backslashes"],
)
def test_large_nonsense_takes_about_as_long_as_a_song(body):
    """A JSON parser takes a hundred times as long on some of these."""

    def seconds(body):
        started = time.thread_time()  # whatever else the machine does
        with contextlib.suppress(Refusal):
            song_of_json(body)
        return time.thread_time() - started

    with pytest.raises(Refusal):
        song_of_json(body)
    assert seconds(body) < 10 * seconds(b'{"audio": "' + b"QUFB" * 9_750_000 + b'"}')
