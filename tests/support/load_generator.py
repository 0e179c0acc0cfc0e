r"""Sends songs to the web app as many clients do, and tells what became of each.

python -m tests.support.load_generator --url=http://127.0.0.1:8080/ --rate=20 --seconds=60 a.mp3 …

With --rate the requests start at their times, whether the ones before are answered or not, as
strangers' do; with --workers so many clients each wait for an answer before they ask again, until
--seconds are over or SIGTERM comes. Prints a JSON line for each request: status (0 where the
connection failed), seconds, Retry-After.
"""

import asyncio
import contextlib
import itertools
import json
import pathlib
import signal
import threading
import time
import urllib.parse

from absl import flags

from common import command

_URL = flags.DEFINE_string("url", None, "Of the app.", required=True)
_RATE = flags.DEFINE_float("rate", 0, "Requests a second; 0 for --workers.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Clients that ask one after another.")
_SECONDS = flags.DEFINE_float("seconds", 10, "How long.")
_REQUESTS = flags.DEFINE_integer("requests", 1 << 30, "At most so many requests.")
_FROM = flags.DEFINE_string("from", "127.0.0.1", "The address to send from.")
_SLOW = flags.DEFINE_integer("slow", 0, "Instead: so many clients that send a byte a second.")
_PIECES = flags.DEFINE_integer(
    "pieces", 0, "Instead: so many clients that send chunks of a byte as fast as they can."
)

_HEAD = (
    "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    "Content-Type: audio/mpeg\r\nContent-Length: {}\r\n\r\n"
)


_CHUNKED_HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/mpeg\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


_stopped = threading.Event()


def goes_on(end: float) -> bool:
    return time.perf_counter() < end and not _stopped.is_set()


async def connect():
    url = urllib.parse.urlsplit(_URL.value)
    return await asyncio.open_connection(url.hostname, url.port, local_addr=(_FROM.value, 0))


async def ask(data: bytes) -> dict:
    started = time.perf_counter()
    status, retry_after, problem = 0, None, ""
    try:
        reader, writer = await connect()
        try:
            writer.write(_HEAD.format(len(data)).encode() + data)
            with contextlib.suppress(ConnectionError):  # an answer may come before all is sent
                await writer.drain()
            head, _, _ = (await asyncio.wait_for(reader.read(), 120)).partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            status = int(first.split()[1])
            headers = dict(line.lower().split(": ", 1) for line in lines)
            retry_after = headers.get("retry-after")
        finally:
            writer.close()
    except (OSError, IndexError, asyncio.TimeoutError) as error:
        problem = repr(error)
    seconds = time.perf_counter() - started
    return {"status": status, "seconds": seconds, "retry_after": retry_after, "problem": problem}


async def at_a_rate(songs) -> list[dict]:
    started, asked = time.perf_counter(), []
    for place in range(min(int(_RATE.value * _SECONDS.value), _REQUESTS.value)):
        await asyncio.sleep(started + place / _RATE.value - time.perf_counter())
        asked.append(asyncio.create_task(ask(next(songs))))
    return await asyncio.gather(*asked)


async def by_workers(songs) -> list[dict]:
    end, left, answers = time.perf_counter() + _SECONDS.value, itertools.count(), []

    async def work():
        while goes_on(end) and next(left) < _REQUESTS.value:
            answers.append(await ask(next(songs)))

    await asyncio.gather(*(work() for _ in range(_WORKERS.value)))
    return answers


async def slowly() -> list[dict]:
    """Half of them trickle a head, half a body."""
    end = time.perf_counter() + _SECONDS.value

    async def trickle(place):
        while goes_on(end):
            with contextlib.suppress(OSError):
                _, writer = await connect()
                writer.write(_HEAD.format(1_000_000).encode()[: None if place % 2 else 20])
                while goes_on(end) and not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(trickle(place) for place in range(_SLOW.value)))
    return []


async def in_pieces() -> list[dict]:
    end = time.perf_counter() + _SECONDS.value

    async def send():
        while goes_on(end):
            with contextlib.suppress(OSError):
                _, writer = await connect()
                writer.write(_CHUNKED_HEAD)
                while goes_on(end) and not writer.is_closing():
                    writer.write(b"1\r\nx\r\n" * 2_000)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                writer.close()

    await asyncio.gather(*(send() for _ in range(_PIECES.value)))
    return []


def main(argv: list[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: _stopped.set())
    songs = itertools.cycle([pathlib.Path(path).read_bytes() for path in argv[1:]] or [b""])
    if _SLOW.value or _PIECES.value:
        way = slowly() if _SLOW.value else in_pieces()
    else:
        way = at_a_rate(songs) if _RATE.value else by_workers(songs)
    for answer in asyncio.run(way):
        print(json.dumps(answer))


if __name__ == "__main__":
    command.run(main)
