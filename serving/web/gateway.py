"""The HTTP API and the page: an upload in, a prediction out, within bounds.

A request goes through four stages: its upload is read into memory, it waits for its turn, a
process decodes it, the model answers. Nothing of it is written to a disk, and its file name is not
looked at.
"""

import asyncio
import base64
import contextlib
import pathlib
import sys
import time
from typing import Annotated

import numpy as np
import prometheus_client
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from common import audio
from common.errors import UserFacingError
from serving.client import Answers, ServerError
from serving.model import explanation
from serving.model.model_host import Generation, ModelHost
from serving.model.song import Song
from serving.web.admission import Admission
from serving.web.limits import Limits, Refusal
from serving.web.telemetry import Telemetry
from serving.web.upload import Uploads

PAGE = pathlib.Path(__file__).parent.with_name("page")

# Songs that are worked on beside those that are decoded: the model answers one meanwhile.
_TURNS_FOR_THE_MODEL = 1

# How long an answer about being ready is good for.
_READY_SECONDS = 1.0

_NO_MODEL = "The model server does not answer; try again soon."
_ADVICE = {
    "empty_file": "The file is empty.",
    "too_long": "The song is too long.",
    "too_slow_to_decode": "The song takes too long to decode; try it as an mp3, or a part of it.",
    "undecodable": "This can't be decoded as mp3, wav, flac or ogg.",
    "too_short": "The song is too short.",
    "silent": "The middle of the song is silent.",
    "not_finite": "The samples of this file are not numbers.",
}


class Upload(BaseModel):
    """A song as JSON, with nothing beside it."""

    model_config = ConfigDict(extra="forbid")

    audio: str = Field(description="An mp3, wav, flac or ogg file, base64.")


class WindowAnswer(BaseModel):
    """The answer about a part of a song."""

    start: float = Field(description="In seconds from the song's start.")
    end: float
    label: str
    probabilities: dict[str, float]


class SecondsWeight(BaseModel):
    """How much a part of the song speaks for the answer."""

    start: float = Field(description="In seconds from the song's start.")
    end: float
    weight: float = Field(
        description="By how much the answer's probability falls when this part and the seconds "
        "beside it are covered; below 0 where it rises."
    )


class Spectrogram(BaseModel):
    """The picture that the model sees."""

    height: int = Field(description="Mel bands.")
    width: int = Field(description="Columns of time.")
    levels: str = Field(description="uint8 [height, width], base64; row 0 is the lowest band.")


class Prediction(BaseModel):
    """How often a song is listened to, as the model hears it."""

    label: str = Field(description="The likeliest class, from the middle of the song.")
    probabilities: dict[str, float] = Field(description="Of each class, from the middle.")
    version: str = Field(description="Of the model that answered.")
    seconds: float = Field(description="Length of the song.")
    middle: int = Field(description="Which of the windows is the middle one.")
    windows: list[WindowAnswer] = Field(description="Along the song; silent parts are left out.")
    spectrogram: Spectrogram | None = Field(None, description="Of the middle; with explain.")
    explanation: list[SecondsWeight] | None = Field(
        None, description="Each second of the middle; with explain."
    )


class Problem(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="One word for programs.")
    message: str = Field(description="For people: what is wrong and what to do.")


class ErrorAnswer(BaseModel):
    error: Problem


_ERRORS = {
    400: "The request can't be read.",
    408: "The upload took too long.",
    413: "The file is too large.",
    415: "Neither a file nor JSON.",
    422: "The file is no song that can be used.",
    429: "Too many songs of this client are waiting; `Retry-After` says how long.",
    503: "Too busy, or the model server is; `Retry-After` says how long.",
}
_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": _BINARY},
                "required": ["file"],
            }
        },
        "application/octet-stream": {"schema": _BINARY},
        "application/json": {"schema": Upload.model_json_schema()},
    },
}


class Gateway:
    """The state of a server, and what it does with a request.

    Args:
        host: of the model.
        limits: of what strangers may ask for.
        decoders: songs that are decoded at once.
    """

    def __init__(self, host: ModelHost, limits: Limits, *, decoders: int):
        self.host, self.limits = host, limits
        self.telemetry = Telemetry()
        self.telemetry.version.set(host.version)
        self._uploads = Uploads(limits)
        self._asked, self._asked_at = None, 0.0
        self._admission = Admission(
            concurrent=decoders + _TURNS_FOR_THE_MODEL,
            queue_length=limits.queue_length,
            queue_seconds=limits.queue_seconds,
        )
        self.telemetry.waiting.set_function(lambda: self._admission.num_waiting)
        self.telemetry.buffered.set_function(lambda: self._uploads.held)

    async def predict(self, request: Request, *, explain: bool) -> Prediction:
        """The answer to a request; Refusal where there is none."""
        started = time.perf_counter()
        async with self._uploads.song(request) as data:
            self._observe("upload", started)
            client = request.client.host if request.client else ""
            gone, started = asyncio.ensure_future(_gone(request)), time.perf_counter()
            try:
                async with self._admission.turn(client, gone):
                    self._observe("queue", started)
                    with self.host.in_use() as generation:
                        prediction = await self._answer(generation, data, explain=explain)
            finally:
                gone.cancel()
        self.telemetry.answers.labels(prediction.label).inc()
        return prediction

    # ---- the answer

    async def _answer(
        self, generation: Generation, data: bytes | bytearray, *, explain: bool
    ) -> Prediction:
        started = time.perf_counter()
        try:
            song = await asyncio.to_thread(generation.listen, data)
        except audio.ClipError as error:
            raise Refusal(422, error.code, f"{_ADVICE[error.code]} ({error})") from None
        finally:
            self._observe("decode", started)
        pictures = np.stack([window.picture for window in song.windows])
        started = time.perf_counter()
        try:
            answers = await asyncio.wrap_future(generation.submit(pictures))
            prediction = self._prediction(generation, song, answers)
            if explain:
                await self._explain(generation, song, answers, prediction)
            self._observe("model", started)
        except ServerError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise Refusal(503, "no_model", _NO_MODEL, retry_after=5) from None
        return prediction

    def _prediction(self, generation: Generation, song: Song, answers: Answers) -> Prediction:
        info = generation.info
        windows = []
        for window, probabilities in zip(song.windows, answers.probabilities, strict=True):
            named = {
                name: float(value)
                for name, value in zip(info.class_names, probabilities, strict=True)
            }
            windows.append(
                WindowAnswer(
                    start=round(window.start, 3),
                    end=round(min(window.start + info.signal.seconds, song.seconds), 3),
                    label=max(named, key=named.get),
                    probabilities=named,
                )
            )
        middle = windows[song.middle]
        return Prediction(
            label=middle.label,
            probabilities=middle.probabilities,
            version=answers.version or str(generation.version),
            seconds=round(song.seconds, 3),
            middle=song.middle,
            windows=windows,
        )

    async def _explain(
        self, generation: Generation, song: Song, answers: Answers, prediction: Prediction
    ) -> None:
        """Adds the picture and what speaks for the answer."""
        params, window = generation.info.signal, song.windows[song.middle]
        parts = explanation.spans(params, song.seconds - window.start)
        pictures = explanation.occluded(window.picture, params, parts)
        covered = await asyncio.wrap_future(generation.submit(pictures))
        weights = explanation.weights(answers.probabilities[song.middle], covered.probabilities)
        height, width = window.picture.shape
        levels = base64.b64encode(window.picture.tobytes()).decode()
        prediction.spectrogram = Spectrogram(height=height, width=width, levels=levels)
        prediction.explanation = [
            SecondsWeight(
                start=round(window.start + part.start, 3),
                end=round(window.start + part.end, 3),
                weight=round(float(weight), 6),
            )
            for part, weight in zip(parts, weights, strict=True)
        ]

    def _observe(self, stage: str, started: float) -> None:
        self.telemetry.seconds.labels(stage).observe(time.perf_counter() - started)

    # ---- is it ready

    async def is_ready(self) -> bool:
        """Whether songs can be answered; asked of the model at most once a second, for all."""
        if self._asked is None or time.monotonic() >= self._asked_at + _READY_SECONDS:
            self._asked_at = time.monotonic()
            self._asked = asyncio.ensure_future(self._ask_whether_ready())
        return await asyncio.shield(self._asked)

    async def _ask_whether_ready(self) -> bool:
        with self.host.in_use() as generation:
            return await asyncio.to_thread(generation.is_ready)

    # ---- newer versions

    async def watch(self, poll_seconds: float) -> None:
        """Takes newer versions up, for ever; says so, and says once why one can't be."""
        told = None
        while True:
            await asyncio.sleep(poll_seconds)
            before = self.host.version
            try:
                version = await asyncio.to_thread(self.host.refresh)
            except Exception as error:  # whatever it was, the next version is looked for
                self.telemetry.swaps.labels("failed").inc()
                problem = str(error) if isinstance(error, UserFacingError) else repr(error)
                if problem != told:
                    told = problem
                    print(f"still version {before}: {problem}", file=sys.stderr, flush=True)
                continue
            if version is not None:
                told = None
                self.telemetry.swaps.labels("done").inc()
                self.telemetry.version.set(version)
                print(f"serving version {version} (before: {before})", flush=True)


async def _gone(request: Request) -> None:
    """Returns when the client of a request whose body was read has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Headers:
    """Counts each answer, and adds what tells browsers to be careful with it.

    Not FastAPI's own kind of middleware, which would hand on each piece of an upload through a
    queue and a task of its own.
    """

    def __init__(self, app, *, telemetry: Telemetry):
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_more(message):
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self._telemetry.requests.labels(path, message["status"]).inc()
                # The documentation of the API starts itself by a script in its HTML.
                scripts = "'self' 'unsafe-inline'" if path == "/docs" else "'self'"
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = (
                    f"default-src 'self'; script-src {scripts}; "
                    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src blob:; "
                    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                )
            await send(message)

        await self._app(scope, receive, send_more)


def application(gateway: Gateway, *, poll_seconds: float) -> _Headers:
    """The app that uvicorn runs."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI):
        watching = asyncio.create_task(gateway.watch(poll_seconds))
        yield
        watching.cancel()
        gateway.host.close()

    app = FastAPIOffline(
        title="fma-popularity",
        summary="How often is a song listened to, as far as its sound tells?",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
    )

    def error(status: int, code: str, message: str, headers=None) -> JSONResponse:
        answer = {"error": {"code": code, "message": message}}
        return JSONResponse(answer, status_code=status, headers=headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal):
        gateway.telemetry.refused.labels(refusal.code).inc()
        headers = {}
        if refusal.retry_after:
            headers["Retry-After"] = str(refusal.retry_after)
        if refusal.status == 408:
            headers["Connection"] = "close"
        return error(refusal.status, refusal.code, refusal.message, headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect):
        return error(400, "gone", "The client went away.")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, problem: HTTPException):
        return error(problem.status_code, "http", str(problem.detail), problem.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError):
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return error(400, "unreadable", f"{where}: {first['msg']}")

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception):  # and the log has its traceback
        return error(500, "bug", "The server has a bug; its log says more.")

    @app.post(
        "/v1/predict",
        response_model_exclude_none=True,
        responses={
            status: {"model": ErrorAnswer, "description": text} for status, text in _ERRORS.items()
        },
        openapi_extra={"requestBody": _BODY},
    )
    async def predict(
        request: Request,
        explain: Annotated[
            bool, Query(description="Also the picture, and which seconds speak for the answer.")
        ] = False,
    ) -> Prediction:
        """The prediction for a song: an mp3, wav, flac or ogg file, of any rate and length."""
        return await gateway.predict(request, explain=explain)

    @app.get("/v1/model")
    async def model() -> dict:
        """What answers now: its version, classes, training signal, evaluation and limits."""
        with gateway.host.in_use() as generation:
            info = generation.info
            return {
                "version": generation.version,
                "class_names": info.class_names,
                "thresholds": info.thresholds,
                "window_seconds": info.signal.seconds,
                "max_upload_mb": gateway.limits.max_upload_mb,
                "max_seconds": gateway.limits.max_seconds,
                "evaluation": info.evaluation,
            }

    @app.get("/healthz")
    async def healthz() -> dict:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"model": ErrorAnswer}})
    async def readyz() -> dict:
        """A model is loaded and warm, here or in TensorFlow Serving."""
        if not await gateway.is_ready():
            return error(503, "no_model", _NO_MODEL, {"Retry-After": "5"})
        return {"status": "ready", "version": gateway.host.version}

    @app.get("/metrics", response_class=Response)
    async def metrics():
        """The counters, for Prometheus."""
        text = prometheus_client.generate_latest(gateway.telemetry.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page():
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    # Around all of it, what Starlette answers after an error included.
    return _Headers(app, telemetry=gateway.telemetry)
