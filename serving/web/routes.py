"""The routes of the API and of the page; what they answer is `service`'s."""

import pathlib
from typing import Annotated, Any

import prometheus_client
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from serving.web.schemas import ERROR_DESCRIPTIONS, PREDICT_BODY, ErrorAnswer, Prediction
from serving.web.service import NO_MODEL, PredictionService

PAGE = pathlib.Path(__file__).parent.with_name("page")


def error_response(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Returns the response with an `ErrorAnswer`."""
    answer = {"error": {"code": code, "message": message}}
    return JSONResponse(answer, status_code=status, headers=headers)


def routes(service: PredictionService) -> APIRouter:
    """Returns the routes that ask one service."""
    router = APIRouter()

    @router.post(
        "/v1/predict",
        response_model_exclude_none=True,
        responses={
            status: {"model": ErrorAnswer, "description": text}
            for status, text in ERROR_DESCRIPTIONS.items()
        },
        openapi_extra={"requestBody": PREDICT_BODY},
    )
    async def predict(
        request: Request,
        explain: Annotated[
            bool, Query(description="Also the spectrogram, and which seconds speak for the label.")
        ] = False,
    ) -> Prediction:
        """Predicts the popularity of a song: an mp3, wav, flac or ogg file, of any rate."""
        return await service.predict(request, explain=explain)

    @router.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Describes what answers now: version, classes, evaluation and limits."""
        return service.describe_model()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answers while the process lives."""
        return {"status": "ok"}

    @router.get("/readyz", response_model=None, responses={503: {"model": ErrorAnswer}})
    async def readyz() -> JSONResponse | dict[str, Any]:
        """Says whether a model is loaded and warm, here or in TensorFlow Serving."""
        if not await service.is_ready():
            return error_response(503, "no_model", NO_MODEL, {"Retry-After": "5"})
        return {"status": "ready", "version": service.host.version}

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Exposes the counters, for Prometheus."""
        text = prometheus_client.generate_latest(service.telemetry.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    return router
