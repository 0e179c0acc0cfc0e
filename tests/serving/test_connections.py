"""The bounds of a connection, over real sockets and a small app behind them."""

import contextlib
import http.client
import socket
import threading
import time

import pytest
import uvicorn

from common import tensorflow_environment
from serving.web import connections
from serving.web.limits import Limits

LARGE = bytes(3_000_000)
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


async def measured(scope, receive, send):
    """Answers with the length of the body, or of the path where it need not be read."""
    length, more = 0, scope["method"] == "POST"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    headers = [(b"content-length", b"%d" % len(str(length)))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(length).encode()})


@contextlib.contextmanager
def serving(**limits):
    """The port of a server in a thread."""
    protocol = connections.protocol(Limits(**limits))
    server = uvicorn.Server(
        uvicorn.Config(measured, http=protocol, ws="none", lifespan="off", log_level="warning")
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(100)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port():
    with serving() as port:
        yield port


def ask(port, body=None, *, address="127.0.0.1", headers=None):
    """(status, body, headers) of a request from an address."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=20, source_address=(address, 0)
    )
    with contextlib.closing(connection):
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(
            "POST" if body is not None else "GET", "/", body, headers or {}, encode_chunked=chunked
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


@pytest.mark.parametrize("size", [1, 100, 1_000])
def test_a_body_in_small_pieces_is_refused(port, size):
    pieces, chunked = 3_000_000 // size, {"Transfer-Encoding": "chunked"}
    status, body, _ = ask(port, (bytes(size) for _ in range(200)), headers=chunked)
    assert (status, body) == (200, b"%d" % (200 * size))  # a few may be small
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(HEAD)
        with contextlib.suppress(ConnectionError):
            sock.sendall((b"%x\r\n" % size + bytes(size) + b"\r\n") * pieces + b"0\r\n\r\n")
        answer = sock.makefile("rb").read()
    if size < 512:
        assert answer.startswith(b"HTTP/1.1 400 ") and b"larger chunks" in answer
    else:
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"%d" % (size * pieces))


def test_small_pieces_hold_up_nobody(port):
    """Clients that send one-byte chunks as fast as they can, and come again when turned away."""
    done = threading.Event()

    def send():
        while not done.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
            ):
                sock.sendall(HEAD)
                while not done.is_set():
                    sock.sendall(b"1\r\na\r\n" * 2_000)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        for _ in range(5):
            started = time.monotonic()
            assert ask(port, LARGE)[:2] == (200, b"3000000")
            assert time.monotonic() - started < 1
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_an_address_has_half_of_the_connections():
    with serving(connections=8) as port, contextlib.ExitStack() as stack:
        for number in range(4):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.2", 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            if number == 0:
                first = sock
        # The refusal arrives though the whole request is sent before it is read.
        status, body, headers = ask(port, LARGE, address="127.0.0.2")
        assert (status, headers["Retry-After"]) == (503, "5") and b"connections" in body
        assert ask(port, LARGE)[:2] == (200, b"3000000")
        first.sendall(bytes(9))
        assert b" 200 " in first.recv(1_000)
        first.close()
        time.sleep(0.2)
        assert ask(port, LARGE, address="127.0.0.2")[0] == 200


def test_the_connections_of_all_are_bounded():
    with serving(connections=3) as port, contextlib.ExitStack() as stack:
        for number in range(3):
            sock = stack.enter_context(socket.socket())
            sock.bind((f"127.0.0.{3 + number}", 0))
            sock.connect(("127.0.0.1", port))
        time.sleep(0.2)
        assert ask(port, LARGE)[0] == 503
        assert ask(port)[0] == 503
        sock.close()
        time.sleep(0.2)
        assert ask(port)[0] == 200


def raw(port, *requests: bytes) -> bytes:
    """All that comes back for bytes on one connection, until the server closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        for request in requests:
            sock.sendall(request)
        return sock.makefile("rb").read()


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n\tb\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\nX-More: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    ],
    ids=["length-and-chunked", "chunked-and-length", "fold-space", "fold-tab", "bare-lf",
         "one-bare-lf", "bare-lf-at-the-end"],
)  # fmt: skip
def test_a_head_that_two_servers_may_read_in_two_ways_is_refused(port, head):
    """RFC 9112: what one takes for a header another may take for the next request (smuggling)."""
    rest = b"0\r\n\r\n" if b"chunked" in head else b""
    smuggled = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    good = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for before in (b"", good):
        answers = raw(port, before + head + rest + smuggled)
        assert answers.count(b"HTTP/1.1 ") == 1 + bool(before), answers
        assert answers.count(b"HTTP/1.1 200 ") == bool(before)
        assert b"HTTP/1.1 400 " in answers and b'"unreadable"' in answers
        assert b"Connection: close" in answers


@pytest.mark.parametrize("trailer", [b"X: a\n\r\n", b"X: a\r\n b\r\n\r\n", b"\n"])
def test_trailers_are_read_as_strictly(port, trailer):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    smuggled = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = raw(port, head + b"1\r\na\r\n0\r\n" + trailer + smuggled)
    assert answers.count(b"HTTP/1.1 ") == 1 and answers.startswith(b"HTTP/1.1 400 ")


def test_a_head_in_pieces_and_pipelined_requests_are_still_read(port):
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    last = request.replace(b"Host", b"Connection: close\r\nHost")
    pieces = [(request + last)[place : place + 1] for place in range(len(request + last))]
    for parts in (pieces, [request * 3 + last]):
        answers = raw(port, *parts)
        assert answers.count(b"HTTP/1.1 200 ") == answers.count(b"HTTP/1.1 ") >= 2


def test_memory_is_given_back_when_many_connections_have_gone(monkeypatch):
    """How much that is, test_load sees."""
    given_back = threading.Semaphore(0)
    monkeypatch.setattr(tensorflow_environment, "return_freed_memory", given_back.release)
    with serving(connections=400) as port:

        def come_and_go(number):
            with contextlib.ExitStack() as stack:
                for _ in range(number):
                    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
                    stack.enter_context(connection)
                assert ask(port)[0] == 200  # those before it have been taken

        come_and_go(20)
        come_and_go(150)
        assert given_back.acquire(timeout=60)
        assert not given_back.acquire(timeout=0.1)
