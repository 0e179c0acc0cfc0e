"""Answers only requests to this server by name, and none that another site's page sends.

Without the first, a page elsewhere whose name is pointed at this address reads all answers (DNS
rebinding); without the second, any page can have this server work for it (cross-site request
forgery). Fetch Metadata: https://www.w3.org/TR/fetch-metadata/
"""

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.web.limits import Refusal
from serving.web.routes import refusal_response
from serving.web.telemetry import Telemetry

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# In the list of hosts: all of them.
ANY = "*"

_AUTHORITY = re.compile(
    r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::(?P<port>\d*))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class OriginCheck:
    """ASGI middleware that refuses (403) foreign hosts and cross-site requests.

    Args:
        app: what answers the others.
        allowed_hosts: names and addresses that a Host header may have, whatever its port.
        telemetry: counts what is refused.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Collection[str], telemetry: Telemetry):
        self._app, self._telemetry = app, telemetry
        self._allowed = frozenset(host.strip().strip("[]").lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], Headers(scope=scope))
            if refusal is not None:
                self._telemetry.refused.labels(refusal.code).inc()
                return await refusal_response(refusal)(scope, receive, send)
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Refusal | None:
        host, _ = _split(headers.get("host", ""))
        if not host or not (host in self._allowed or ANY in self._allowed):
            named = f"`{host[:100]}`" if host else "none"
            message = f"The request is to the host {named}; --allowed_hosts lists whose it may be."
            return Refusal(403, "foreign_host", message)
        if self._is_cross_site(method, headers):
            return Refusal(403, "cross_site", "Another site's page can't send requests to this.")
        return None

    def _is_cross_site(self, method: str, headers: Headers) -> bool:
        """Whether a browser says that a page of another site sends this, and no link leads here."""
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin, headers["host"]):
            return True
        is_link = (
            method in ("GET", "HEAD")
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        return headers.get("sec-fetch-site") == "cross-site" and not is_link

    def _is_ours(self, origin: str, host: str) -> bool:
        """Whether an origin is where the request goes to, or a listed host behind a proxy."""
        scheme, _, authority = origin.lower().partition("://")
        default = _DEFAULT_PORTS.get(scheme, "")
        name, port = _split(authority)
        if not name:
            return False
        here, here_port = _split(host)
        if (name, port or default) == (here, here_port or default):
            return True
        # Another server on this machine is another site.
        return name in self._allowed and name not in LOOPBACK


def _split(authority: str) -> tuple[str, str]:
    """Returns the host, in lower case and without brackets, and the port; both empty if damaged."""
    match = _AUTHORITY.fullmatch(authority.lower())
    if match is None:
        return "", ""
    return (match["address"] or match["name"]).removesuffix("."), match["port"] or ""
