"""Which requests come from a page of another site, or to another host."""

import asyncio
import json

import pytest

from serving.web.origins import LOOPBACK, OriginCheck
from serving.web.telemetry import Telemetry

EVIL = "https://evil.example"


async def ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(method="GET", *, allowed_hosts=LOOPBACK, **headers) -> tuple[int, str]:
    """The status and the code of a refusal, of a request with these headers."""
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/v1/predict", "headers": raw}
    check = OriginCheck(ok, allowed_hosts=allowed_hosts, telemetry=Telemetry())
    asyncio.run(check(scope, None, send))
    status, body = sent[0]["status"], sent[1]["body"]
    return status, json.loads(body)["error"]["code"] if body else ""


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "127.0.0.1:1",
        "[::1]:8080",
        "[::1]",
        "127.0.0.1:",
    ],
)
def test_this_machine_is_allowed_by_default(host):
    assert ask(host=host) == (200, "")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "localhost@evil.example", "",
     "192.168.1.2", "[::2]", "::1", "[::1", "localhost:x", "localhost/", "127.0.0.1 evil", "*"],
)  # fmt: skip
def test_another_host_is_refused(host):
    """A page at evil.example whose name is pointed here would read the answer (DNS rebinding)."""
    assert ask(host=host) == (403, "foreign_host")
    assert ask("POST", host=host, origin=f"http://{host}") == (403, "foreign_host")


def test_a_request_without_a_host_is_refused():
    assert ask() == (403, "foreign_host")


def test_other_hosts_can_be_listed():
    hosts = ["Music.example", "[fd00::1]"]
    assert ask(host="music.example:80", allowed_hosts=hosts) == (200, "")
    assert ask(host="[FD00::1]:80", allowed_hosts=hosts) == (200, "")
    assert ask(host="localhost", allowed_hosts=hosts) == (403, "foreign_host")
    assert ask(host="any.example", allowed_hosts=["*"]) == (200, "")
    # A proxy that ends TLS and passes on its own name or the client's.
    for host in ("music.example", "localhost:8080"):
        origin = "https://music.example"
        allowed = [*hosts, "localhost"]
        assert ask("POST", host=host, origin=origin, allowed_hosts=allowed) == (200, "")
    assert ask("POST", host="a.example", origin=EVIL, allowed_hosts=["*"]) == (403, "cross_site")


@pytest.mark.parametrize(
    "origin",
    [EVIL, "null", "http://localhost:3000", "http://localhost", "http://127.0.0.1:8080", "",
     "file://", "http://localhost:8080.evil.example", "http://evil.example/localhost:8080"],
)  # fmt: skip
def test_a_form_of_another_site_is_refused(origin):
    assert ask("POST", host="localhost:8080", origin=origin) == (403, "cross_site")


def test_the_page_itself_and_programs_are_not():
    host = "localhost:8080"
    assert ask("POST", host=host, origin="http://localhost:8080", sec_fetch_site="same-origin") == (
        200,
        "",
    )
    assert ask("POST", host="localhost", origin="http://localhost:80") == (200, "")
    assert ask("POST", host=host) == (200, "")  # curl
    assert ask(host=host, sec_fetch_site="none", sec_fetch_mode="navigate") == (200, "")


def test_of_what_crosses_sites_only_a_link_leads_here():
    cross = {"host": "localhost", "sec_fetch_site": "cross-site"}
    link = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(**cross, **link) == (200, "")
    assert ask("POST", **cross, **link) == (403, "cross_site")
    assert ask(**cross) == (403, "cross_site")
    assert ask(**cross, sec_fetch_mode="no-cors", sec_fetch_dest="image") == (403, "cross_site")
    frame = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
    assert ask(**cross, **frame) == (403, "cross_site")
