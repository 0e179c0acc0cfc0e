"""The routes of the API and of the page; what they answer is `service`'s."""

import pathlib
from typing import Annotated, Any

import prometheus_client
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from serving.web.limits import Refusal
from serving.web.schemas import ERROR_DESCRIPTIONS, PREDICT_BODY, ErrorAnswer, Prediction
from serving.web.service import PredictionService

PAGE = pathlib.Path(__file__).parent.with_name("page")


def error_response(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Returns the response with an `ErrorAnswer`."""
    answer = {"error": {"code": code, "message": message}}
    return JSONResponse(answer, status_code=status, headers=headers)


def refusal_response(refusal: Refusal) -> JSONResponse:
    """Returns the response to a request that is refused."""
    headers = {}
    if refusal.retry_after:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 408:
        headers["Connection"] = "close"
    return error_response(refusal.status, refusal.code, refusal.message, headers)


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

    # A HEAD is answered as a GET; uvicorn leaves the body out.
    @router.head("/v1/model", include_in_schema=False)
    @router.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Describes what answers now: version, classes, evaluation and limits."""
        return service.describe_model()

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answers while the process lives."""
        return {"status": "ok"}

    @router.head("/readyz", response_model=None, include_in_schema=False)
    @router.get("/readyz", response_model=None, responses={503: {"model": ErrorAnswer}})
    async def readyz() -> JSONResponse | dict[str, Any]:
        """Says whether a model is loaded, here or in TensorFlow Serving, and a decoder is there."""
        if problem := await service.unready():
            return refusal_response(problem)
        return {"status": "ready", "version": service.host.version}

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Exposes the counters, for Prometheus."""
        text = prometheus_client.generate_latest(service.telemetry.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @router.head("/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    return router
