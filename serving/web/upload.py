"""Reads the song in a request's body, within bounds, and counts it while it is in memory.

Of the three kinds of body none is given to a parser that strangers could keep busy: a form is
parsed as it comes in, and of JSON only the one shape is taken that the API describes.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.web.limits import Limits, Refusal

_JSON_START = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"audio"[ \t\r\n]*:[ \t\r\n]*"')
_JSON_END = re.compile(rb'"[ \t\r\n]*\}[ \t\r\n]*')
# Characters of base64 that are decoded at once, a multiple of 4: other threads wait meanwhile.
_BASE64_BLOCK = 1 << 20


# Bytes of the JSON that is told beside a song.
_MAX_TOLD = 64_000
# Parts of a form beside the song.
_MAX_FIELDS = 600


class Uploaded(NamedTuple):
    """A song, and what is told of it, unchecked."""

    song: bytes | bytearray
    told: Any


class Uploads:
    """The songs that are in memory.

    Attributes:
        held: their bytes.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self.held = 0

    @contextlib.asynccontextmanager
    async def song(self, request: Request) -> AsyncIterator[Uploaded]:
        """Reads the song of a request and what is told of it, and holds it inside the block.

        Raises:
            Refusal: 400, 408, 413, 415 for what the client sends, 503 if too much is held.
            ClientDisconnect: it went away.
        """
        share = _Share(self, self._limits.buffered_mb * 1e6)
        try:
            try:
                uploaded = await asyncio.wait_for(
                    self._read(request, share), self._limits.upload_seconds
                )
            except asyncio.TimeoutError:
                raise Refusal(
                    408,
                    "too_slow",
                    f"The upload took longer than {self._limits.upload_seconds:g} s.",
                ) from None
            if len(uploaded.song) > self._limits.max_upload:
                raise self._too_large()
            share.resize(len(uploaded.song))
            yield uploaded
        finally:
            share.resize(0)

    async def _read(self, request: Request, share: "_Share") -> Uploaded:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._file_of_form(request, share)
        if kind == "application/json":
            body = await self._body(request, share)
            share.resize(3 * len(body))  # while it is decoded
            return await asyncio.to_thread(uploaded_of_json, body)
        if kind in ("", "application/octet-stream") or kind.startswith("audio/"):
            return Uploaded(await self._body(request, share), {})
        raise Refusal(
            415,
            "unsupported",
            "Send the song as multipart/form-data with a part `file`, as audio/* or "
            'application/octet-stream, or as JSON {"audio": base64}.',
        )

    async def _chunks(self, request: Request, share: "_Share") -> AsyncGenerator[bytes, None]:
        """Yields a request's body in parts; each has been added to the share."""
        # A third more for base64, and a little for what is around a file.
        most = int(self._limits.max_upload * 4 / 3) + 10_000
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise self._too_large()
        async for chunk in request.stream():
            if share.size + len(chunk) > most:
                raise self._too_large()
            share.resize(share.size + len(chunk))
            yield chunk

    async def _body(self, request: Request, share: "_Share") -> bytearray:
        body = bytearray()
        async for chunk in self._chunks(request, share):
            body += chunk
        return body

    async def _file_of_form(self, request: Request, share: "_Share") -> Uploaded:
        chunks = self._chunks(request, share)
        parser = MultiPartParser(
            _without_charset(request),
            chunks,
            max_files=1,
            max_fields=_MAX_FIELDS,
        )
        parser.spool_max_size = 2 * self._limits.max_upload  # never to a disk
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            message = getattr(error, "message", "") or "the multipart body is damaged"
            raise Refusal(400, "unreadable", f"The request can't be read: {message}") from None
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise Refusal(400, "unreadable", "The form has no part `file` with a file in it.")
        # A copy, but of one form at a time: none of this waits for anything.
        song = await file.read()
        told = {name: value for name, value in form.items() if name != "file"}
        await form.close()
        return Uploaded(song, told)

    def _too_large(self) -> Refusal:
        most = self._limits.max_upload_mb
        return Refusal(413, "too_large", f"The file is too large; up to {most:g} MB.")


def _without_charset(request: Request) -> Headers:
    """Returns the content type of a form with its boundary alone.

    In a charset of the client's choice, such as punycode, decoding a field may take time that grows
    with the square of its length.
    """
    _, options = parse_options_header(request.headers["content-type"])
    quoted = options.get(b"boundary", b"").replace(b"\\", rb"\\").replace(b'"', rb"\"")
    value = b'multipart/form-data; boundary="' + quoted + b'"'
    return Headers(raw=[(b"content-type", value if quoted else b"multipart/form-data")])


class _Share:
    """What one upload holds of the memory for all of them, `size` bytes."""

    def __init__(self, uploads: Uploads, most: float):
        self._uploads, self._most = uploads, most
        self.size = 0

    def resize(self, size: int) -> None:
        """Refusal where that would be more than there is."""
        held = self._uploads.held + size - self.size
        if size > self.size and held > self._most:
            raise Refusal(503, "busy", "The server is busy; try again soon.", retry_after=5)
        self._uploads.held, self.size = held, size


def uploaded_of_json(body: bytes | bytearray) -> Uploaded:
    r"""Decodes the JSON {"audio": base64} or {"audio": base64, "inputs": {…}}.

    Refusal where it is anything else. What comes after the audio is given to a JSON parser if it is
    short; the audio not: on nested lists of the size of a song one holds all threads up for
    seconds, and takes a gigabyte. Of JSON's escapes `\/`, `\n` and `\r` are taken, which encoders
    put into base64.
    """
    start = _JSON_START.match(body)
    end = body.find(b'"', start.end()) if start else -1
    try:
        if not start or end < 0:
            raise ValueError
        told = {}
        if not _JSON_END.fullmatch(body, end):
            told = _told_after_audio(bytes(body[end : end + _MAX_TOLD + 1]))
        encoded: bytes | memoryview = memoryview(body)[start.end() : end]
        if body.find(b"\\", start.end(), end) >= 0:
            escaped = bytes(encoded)
            encoded = escaped.replace(rb"\/", b"/").replace(rb"\n", b"").replace(rb"\r", b"")
        song = bytearray()
        for place in range(0, len(encoded), _BASE64_BLOCK):
            song += base64.b64decode(encoded[place : place + _BASE64_BLOCK], validate=True)
        return Uploaded(song, told)
    except (ValueError, binascii.Error, RecursionError):
        raise Refusal(
            400,
            "unreadable",
            'The JSON is not {"audio": "<an audio file, base64>"}, nor has it "inputs": {…} after '
            "that and nothing else.",
        ) from None


def _told_after_audio(tail: bytes) -> Any:
    """Parses what follows the audio, from its closing quote on; ValueError or RecursionError."""
    if len(tail) > _MAX_TOLD:
        raise ValueError("it is too long")
    pairs = json.loads(b'{"audio":"' + tail, object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs) or [name for name, _ in pairs] != ["audio", "inputs"]:
        raise ValueError("other keys")
    (_, audio), (_, told) = pairs
    if audio != "":
        raise ValueError("another audio")
    return dict(told) if isinstance(told, _Pairs) else told


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON as it was written, in order and with every key."""
