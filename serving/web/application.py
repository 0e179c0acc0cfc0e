"""The ASGI application: routes, page, responses to errors, and the watch for newer versions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from serving.web.headers import SecurityHeaders
from serving.web.limits import Refusal
from serving.web.origins import LOOPBACK, OriginCheck
from serving.web.routes import PAGE, error_response, refusal_response, routes
from serving.web.service import PredictionService


def application(
    service: PredictionService,
    *,
    poll_seconds: float,
    allowed_hosts: Collection[str] = LOOPBACK,
) -> ASGIApp:
    """Returns the application that uvicorn runs.

    Args:
        service: what answers.
        poll_seconds: between two looks for a newer version.
        allowed_hosts: that a request's Host header may name.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch_versions(poll_seconds))
        yield
        watching.cancel()
        service.host.close()

    app = FastAPIOffline(
        title="fma-popularity",
        summary="How often is a song listened to, as far as its sound tells?",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
    )
    _handle_errors(app, service)
    app.include_router(routes(service))
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    checked = OriginCheck(app, allowed_hosts=allowed_hosts, telemetry=service.telemetry)
    # Around all of it, Starlette's own responses to errors included.
    return SecurityHeaders(checked, telemetry=service.telemetry)


def _handle_errors(app: FastAPI, service: PredictionService) -> None:
    """Gives every error the body of an `ErrorAnswer`."""

    @app.exception_handler(Refusal)
    async def refusal(_: Request, error: Refusal) -> JSONResponse:
        service.telemetry.refused.labels(error.code).inc()
        return refusal_response(error)

    @app.exception_handler(ClientDisconnect)
    async def disconnect(_: Request, __: ClientDisconnect) -> JSONResponse:
        return error_response(400, "gone", "The client went away.")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return error_response(error.status_code, "http", str(error.detail), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return error_response(400, "unreadable", f"{where}: {first['msg']}")

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> JSONResponse:  # and the log has its traceback
        return error_response(500, "bug", "The server has a bug; its log says more.")
