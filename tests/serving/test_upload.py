"""The JSON that is taken, and what parsing strangers' bodies costs; more is in test_app.py."""

import asyncio
import base64
import contextlib
import json
import math
import time

import numpy as np
import pytest
from starlette.requests import Request

from common import rejection
from common.errors import UserFacingError
from serving.web import service
from serving.web.limits import Limits, Refusal
from serving.web.upload import Uploads, uploaded_of_json
from tests.support.running_app import multipart

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
    assert uploaded_of_json(bytearray(body.encode())) == (SONG, {})


def test_a_song_of_no_bytes():
    assert uploaded_of_json(b'{"audio": ""}') == (b"", {})


def test_what_is_told_after_the_song():
    body = json.dumps({"audio": TEXT, "inputs": {"genre": 'Rock "n" Roll', "year": 3}}).encode()
    assert uploaded_of_json(body) == (SONG, {"genre": 'Rock "n" Roll', "year": 3})
    assert uploaded_of_json(b'{"audio": "", "inputs": []}').told == []  # which is refused later


@pytest.mark.parametrize(
    "body",
    [
        b'{"audio": "QUFB", "inputs": {}, "inputs": {}}',
        b'{"audio": "QUFB", "inputs": {}, "audio": ""}',
        b'{"inputs": {}, "audio": "QUFB"}',
        b'{"audio": "QUFB", "inputs": {"x": "' + b"x" * 70_000 + b'"}}',
        b'{"audio": "QUFB", "inputs": ' + b"[" * 60_000 + b"}",
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
        uploaded_of_json(body)
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
            uploaded_of_json(body)
        return time.thread_time() - started

    with pytest.raises(Refusal):
        uploaded_of_json(body)
    assert seconds(body) < 10 * seconds(b'{"audio": "' + b"QUFB" * 9_750_000 + b'"}')


def song_of(body: bytes, content_type: str) -> bytes:
    """What the server makes of a request's body; it comes in pieces as a socket gives them."""
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]

    async def receive():
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def read():
        headers = [(b"content-type", content_type.encode("latin-1"))]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        async with Uploads(Limits()).song(request) as song:
            return bytes(song.song)

    return asyncio.run(read())


FORM = "multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
END = b"\r\n--b--\r\n"


def text_field(charset):
    field = b'--b\r\nContent-Disposition: form-data; name="text-"\r\n\r\n'
    return (
        lambda size: field + b"b" * size + b"\r\n" + FILE + b"\r\nx" + END,
        f"{FORM}; charset={charset}",
    )


# Of each a body of a size, and its content type.
SHAPES = {
    **{
        f"a field in {charset}": text_field(charset)
        for charset in ("punycode", "idna", "unicode_escape", "utf-7", "none-such")
    },
    "a file": (lambda size: FILE + b"\r\n" + bytes(size) + END, FORM),
    "CR": (lambda size: FILE + b"\r\n" + b"\r" * size + END, FORM),
    "CRLF": (lambda size: FILE + b"\r\n" + b"\r\n" * (size // 2) + END, FORM),
    "almost the boundary": (lambda size: FILE + b"\r\n" + b"\r\n--c" * (size // 5) + END, FORM),
    "a preamble": (lambda size: b"\r\n" * (size // 2) + FILE + b"\r\nx" + END, FORM),
    "an epilogue": (lambda size: FILE + b"\r\nx" + END + b"\r\n" * (size // 2), FORM),
    "a header's name": (lambda size: FILE + b"x" * size + b": y\r\n\r\nx" + END, FORM),
    "a header's value": (lambda size: FILE + b"x: " + b"y" * size + b"\r\n\r\nx" + END, FORM),
    "headers": (lambda size: FILE + b"x: y\r\n" * (size // 6) + b"\r\nx" + END, FORM),
    "a file's name": (
        lambda size: FILE.replace(b'"f"', b'"' + b"f" * size + b'"') + b"\r\nx" + END,
        FORM,
    ),
    "semicolons": (
        lambda size: FILE.replace(b'"f"', b'"f"' + b';"' * (size // 2)) + b"\r\nx" + END,
        FORM,
    ),
    "parts": (lambda size: (FILE + b"\r\nx\r\n") * (size // 70) + END, FORM),
    "JSON": (lambda size: b'{"audio": "' + b"QUFB" * (size // 4) + b'"}', "application/json"),
    "escapes": (lambda size: b'{"audio": "' + b"\\/" * (size // 2) + b'"}', "application/json"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_costs_time_in_proportion_to_its_size(shape):
    """Twice the size takes about twice as long; what is quadratic takes 64 times for 8 times."""
    body_of, content_type = SHAPES[shape]

    def seconds(size):
        body, best = body_of(size), float("inf")
        for _ in range(3):
            started = time.thread_time()  # whatever else the machine does
            with contextlib.suppress(Refusal):
                song_of(body, content_type)
            best = min(best, time.thread_time() - started)
        return best

    small, large = seconds(50_000), seconds(400_000)
    assert large < 24 * max(small, 0.002)


@pytest.mark.parametrize("charset", ["", "; charset=punycode", "; charset=none-such"])
def test_the_charset_of_a_form_is_not_used(charset):
    body, kind = multipart(SONG, filename="lied-tda.mp3")
    assert song_of(body, kind + charset) == SONG


def test_the_headers_of_a_part_are_bounded():
    for body in (SHAPES["a header's name"], SHAPES["a file's name"], SHAPES["headers"]):
        with pytest.raises(Refusal, match="can't be read") as refusal:
            song_of(body[0](20_000), FORM)
        assert refusal.value.status == 400


def test_every_reason_for_a_rejection_has_its_advice():
    assert service.ADVICE.keys() == {*rejection.REASONS, *rejection.UNDECODABLE_CODES}


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_limits_that_are_none(value):
    """An endless --max_upload_mb is no number of bytes, and made every upload a bug."""
    for name in ("max_seconds", "max_upload_mb"):
        with pytest.raises(UserFacingError, match=f"--{name}: {value} is not a finite number"):
            Limits(**{name: value})
