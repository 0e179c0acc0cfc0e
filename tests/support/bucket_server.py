"""A storage emulator behind a proxy that lists in pages and, when told to, is too busy.

TensorFlow's own client of gs:// can't be told of an emulator. It does honour `https_proxy`, and
trusts whom CURL_CA_BUNDLE names; so it asks the proxy for Google's hosts, and the proxy answers as
them.
"""

import contextlib
import http.client
import http.server
import io
import json
import logging
import re
import socket
import ssl
import threading
import urllib.parse
from collections import Counter

import pytest
import trustme

# What is written only where a certain generation is there, in a path or in the name of an upload:
# the objects that tell who is at work in a folder, and manifests.
_VERSIONED = re.compile(rb'(?:/o/|"name": ?")([^"?\s]*(?:\.lock|/manifest\.json))')
_PAGE = 1000  # as many as a bucket lists at once

_KINDS = (
    ("list", r"GET \S*/b/[^/]+/o(\?|$)"),
    ("read", r"GET (\S*alt=media|/bucket/)"),
    ("layout", r"GET \S*/b/[^/]+/storageLayout"),
    ("bucket", r"GET \S*/b/[^/?]+(\?|$)"),  # the client's own business, in the background
    ("look", r"GET "),
    ("upload", r"(POST|PUT) /upload/"),
    ("copy", r"POST \S*/(rewriteTo|copyTo)/"),
    ("batch", r"POST /batch"),
    ("delete", r"DELETE "),
)


class BucketServer:
    """What a bucket's clients talk to; start it with `with`.

    Attributes:
        emulator: what keeps the objects.
        url: for STORAGE_EMULATOR_HOST.
        env: the environment in which its clients find it, TensorFlow's own among them.
        requests: how many came, by kind.
        turned_away: how many of them were answered with 503, by kind.
        busy_every: which requests of a kind are turned away: the first, and every so many-th.
        read_only: whether uploads are forbidden.
    """

    def __init__(self):
        server = pytest.importorskip("gcp_storage_emulator.server")
        logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
        with socket.create_server(("localhost", 0)) as free:
            self._emulator_port = free.getsockname()[1]
        self.emulator = server.create_server(
            "localhost", self._emulator_port, in_memory=True, default_bucket="bucket"
        )
        # It writes all it knows after each request, into memory, which gets slow.
        self.emulator._storage._write_config_to_file = lambda: None
        self.requests, self.turned_away = Counter(), Counter()
        self.busy_every, self.read_only = None, False
        self._lock = threading.Lock()
        self._generations, self._last_generation = {}, 0

    def __enter__(self) -> "BucketServer":
        bucket_server = self
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("www.googleapis.com", "storage.googleapis.com").configure_cert(tls)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self):
                bucket_server._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def do_CONNECT(self):
                self.send_response_only(200)
                self.end_headers()
                self.connection = tls.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb", buffering=0)

            def log_message(self, *_):
                pass

        self.emulator.start()
        self._proxy = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._proxy.server_address[1]}"
        self._certificate = contextlib.ExitStack()
        self.env = {
            "STORAGE_EMULATOR_HOST": self.url,
            "https_proxy": self.url,
            "CURL_CA_BUNDLE": self._certificate.enter_context(authority.cert_pem.tempfile()),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "10000",
        }
        return self

    def __exit__(self, *_):
        self._proxy.shutdown()
        self._proxy.server_close()
        self.emulator.stop()
        self._certificate.close()

    def reset(self, *, busy_every: int | None = None, read_only: bool = False) -> None:
        """Counts from 0 again."""
        self.requests, self.turned_away = Counter(), Counter()
        self.busy_every, self.read_only = busy_every, read_only

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = _body(request)
        kind = next(k for k, p in _KINDS if re.match(p, f"{request.command} {request.path}"))
        with self._lock:
            is_busy = bool(self.busy_every) and self.requests[kind] % self.busy_every == 0
            self.requests[kind] += 1
            self.turned_away[kind] += is_busy
        if is_busy:
            self._send(request, 503, {"Retry-After": "1"}, b"busy")
            return
        if self.read_only and kind == "upload":
            self._send(request, 403, {}, b"you may not")
            return
        if kind == "layout":  # which the emulator does not know
            self._send(request, 200, {}, b'{"hierarchicalNamespace": {"enabled": false}}')
            return
        versioned = _VERSIONED.search(
            urllib.parse.unquote(request.path).encode() + b" " + body[:1000]
        )
        if versioned and not self._takes_generation(request, versioned[1]):
            self._send(request, 412, {}, b"another generation is there")
            return
        path, headers = request.path, dict(request.headers)
        if "uploadType=media" in path and not body:
            path, headers, body = _in_parts(path, headers)
        connection = http.client.HTTPConnection("localhost", self._emulator_port)
        with contextlib.closing(connection):
            connection.request(request.command, path, body, headers)
            response = connection.getresponse()
            headers, data = dict(response.getheaders()), response.read()
        if versioned and response.status == 200 and data.startswith(b"{") and b'"kind"' in data:
            generation = self._generations.get(versioned[1], 0)
            data = json.dumps(json.loads(data) | {"generation": str(generation)}).encode()
        if kind == "list" and response.status == 200:
            data = _page(data, urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query))
        if response.status == 308 and headers.get("Range") == "bytes=0-0":
            del headers["Range"]  # nothing has come yet, which a bucket says so
        if "Location" in headers and isinstance(request.connection, ssl.SSLSocket):
            headers["Location"] = headers["Location"].replace("http:", "https:", 1)
        self._send(request, response.status, headers, data)

    def _takes_generation(self, request, name: bytes) -> bool:
        """Whether an object is of the generation that is asked for; the emulator knows none."""
        url = urllib.parse.urlsplit(request.path)
        asked = urllib.parse.parse_qs(url.query).get("ifGenerationMatch")
        with self._lock:
            if asked and int(asked[0]) != self._generations.get(name, 0):
                return False
            if request.command == "DELETE":
                self._generations.pop(name, None)
            elif request.command in ("POST", "PUT"):
                self._last_generation += 1
                self._generations[name] = self._last_generation
        return True

    def _send(self, request, status, headers, data) -> None:
        request.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


def _body(request: http.server.BaseHTTPRequestHandler) -> bytes:
    """What a request carries; TensorFlow's uploads say how long it is and yet send it in chunks."""
    encoding = request.headers["Transfer-Encoding"]
    del request.headers["Transfer-Encoding"]
    if encoding != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    body = io.BytesIO()
    while size := int(request.rfile.readline(), 16):
        body.write(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return body.getvalue()


def _in_parts(path: str, headers: dict[str, str]) -> tuple[str, dict[str, str], bytes]:
    """The upload of an empty object, such as TensorFlow's folders are, as the emulator takes it."""
    body = (
        b"--part\r\nContent-Type: application/json\r\n\r\n{}\r\n"
        b"--part\r\nContent-Type: text/plain\r\n\r\n\r\n--part--\r\n"
    )
    changed = {
        "Content-Type": "multipart/related; boundary=part",
        "Content-Length": str(len(body)),
    }
    return path.replace("uploadType=media", "uploadType=multipart"), headers | changed, body


def _page(listing: bytes, query: dict[str, list[str]]) -> bytes:
    """A page of a listing; the emulator has all on one, which no bucket has."""
    found = json.loads(listing)
    start = int(query.get("pageToken", ["0"])[0])
    end = start + min(_PAGE, int(query.get("maxResults", [str(_PAGE)])[0]))
    items = sorted(found["items"], key=lambda item: item["name"])
    page = found | {"items": items[start:end]}
    if end < len(items):
        page["nextPageToken"] = str(end)
    return json.dumps(page).encode()
