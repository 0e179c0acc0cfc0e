"""Counts each response, and adds the headers that tell browsers to be careful with it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.web.telemetry import Telemetry

_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src {scripts}; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class SecurityHeaders:
    """ASGI middleware around the whole application.

    Not FastAPI's own kind of middleware, which hands on each piece of an upload through a queue and
    a task of its own.
    """

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry):
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self._telemetry.requests.labels(path, message["status"]).inc()
                # The documentation of the API starts itself by a script in its HTML.
                scripts = "'self' 'unsafe-inline'" if path == "/docs" else "'self'"
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY.format(
                    scripts=scripts
                )
            await send(message)

        await self._app(scope, receive, send_with_headers)
