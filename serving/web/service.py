"""From a request to a prediction, within bounds.

A request goes through four stages: its upload is read into memory, it waits for its turn, a
process decodes it, the model answers. Nothing of it is written to a disk, and its file name is not
looked at.
"""

import asyncio
import base64
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.requests import Request

from common import metadata, rejection
from common.errors import UserFacingError
from common.model_info import ModelInfo
from serving.client import ServerError
from serving.model import explanation
from serving.model.decoder_pool import NoDecoderError
from serving.model.model_host import ModelHost
from serving.model.predictions import Predictions
from serving.model.served_version import ServedVersion
from serving.model.song import Song, Window, stacked
from serving.web.admission import Admission
from serving.web.limits import Limits, Refusal
from serving.web.schemas import InputWeight, Prediction, SecondsWeight, Spectrogram, WindowAnswer
from serving.web.song_metrics import SongMetrics
from serving.web.telemetry import Telemetry
from serving.web.upload import Uploaded, Uploads

# Songs that are worked on beside those that are decoded, if there are as many decoders: the model
# answers one, and one is there when the next decoder is idle. With two, 4 % more songs a second are
# answered than with one; with three, no more.
_MOST_BESIDE_THE_DECODED = 2

# Inputs of which the answer says what each adds, so that a request is a batch or two.
_MOST_WEIGHED = 24

# How long an answer about being ready is good for.
_READY_SECONDS = 1.0

_NO_DECODER = "The system has ended the server's decoders; try again soon."
_NO_MODEL = "The model server does not answer; try again soon."
ADVICE = {
    "empty_file": "The file is empty.",
    "too_long": "The song is too long.",
    "too_slow_to_decode": "The song takes too long to decode; try it as an mp3, or a part of it.",
    "undecodable": "This can't be decoded as mp3, wav, flac or ogg.",
    "too_short": "The song is too short.",
    "silent": "The middle of the song is silent.",
    "not_finite": "The samples of this file are not numbers.",
}


class PredictionService:
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
        SongMetrics(lambda: self.host.current, self.telemetry.registry)
        self._uploads = Uploads(limits)
        self._readiness: asyncio.Future[Refusal | None] | None = None
        self._readiness_asked_at = 0.0
        self._admission = Admission(
            concurrent=decoders + min(decoders, _MOST_BESIDE_THE_DECODED),
            queue_length=limits.queue_length,
            queue_seconds=limits.queue_seconds,
        )
        self.telemetry.waiting.set_function(lambda: self._admission.num_waiting)
        self.telemetry.buffered.set_function(lambda: self._uploads.held)
        self.telemetry.decoders.set_function(lambda: self.host.num_decoders)

    async def predict(self, request: Request, *, explain: bool) -> Prediction:
        """Predicts for the song of a request; Refusal where that can't be done."""
        started = time.perf_counter()
        async with self._uploads.song(request) as uploaded:
            self._observe("upload", started)
            client = request.client.host if request.client else ""
            gone, started = asyncio.ensure_future(_disconnect(request)), time.perf_counter()
            try:
                async with self._admission.turn(client, gone):
                    self._observe("queue", started)
                    with self.host.in_use() as version:
                        prediction = await self._predict_song(version, uploaded, explain=explain)
            finally:
                gone.cancel()
        self.telemetry.answers.labels(prediction.label).inc()
        return prediction

    def describe_model(self) -> dict[str, Any]:
        """Returns what answers now: version, classes, thresholds, evaluation and limits."""
        with self.host.in_use() as version:
            info = version.info
            return {
                "version": version.number,
                "class_names": info.class_names,
                "thresholds": info.thresholds,
                "window_seconds": info.signal.seconds,
                "max_upload_mb": self.limits.max_upload_mb,
                "max_seconds": self.limits.max_seconds,
                "evaluation": info.evaluation,
                "inputs": [
                    {"name": name, "kind": kind, "values": info.vocabularies.get(name, ())}
                    for name, kind in metadata.names(info.inputs).items()
                ],
            }

    # ---- the prediction

    async def _predict_song(
        self, version: ServedVersion, uploaded: Uploaded, *, explain: bool
    ) -> Prediction:
        try:
            told = metadata.checked(uploaded.told, version.info.inputs)
        except UserFacingError as error:
            raise Refusal(422, "bad_input", f"{error}.") from None
        started = time.perf_counter()
        try:
            song = await asyncio.to_thread(version.decoders.dispatch, uploaded.song)
        except rejection.ClipError as error:
            raise Refusal(422, error.code, f"{ADVICE[error.code]} ({error})") from None
        except NoDecoderError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise Refusal(503, "no_decoder", _NO_DECODER, retry_after=5) from None
        finally:
            self._observe("decode", started)
        started = time.perf_counter()
        try:
            predictions = await _ask(version, song.windows, [told] * len(song.windows))
            prediction = _prediction(
                version.info,
                song,
                predictions.probabilities,
                version=predictions.version or str(version.number),
            )
            if told:
                await _weigh_inputs(version, song, told, prediction)
            _count(version, song, prediction)
            if explain:
                await _explain(version, song, told, predictions, prediction)
            self._observe("model", started)
        except ServerError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise Refusal(503, "no_model", _NO_MODEL, retry_after=5) from None
        return prediction

    def _observe(self, stage: str, started: float) -> None:
        self.telemetry.seconds.labels(stage).observe(time.perf_counter() - started)

    # ---- readiness

    async def unready(self) -> Refusal | None:
        """Says why songs can't be answered now; asked at most once a second, for all."""
        now = time.monotonic()
        if self._readiness is None or now >= self._readiness_asked_at + _READY_SECONDS:
            self._readiness_asked_at = now
            self._readiness = asyncio.ensure_future(self._ask_readiness())
        return await asyncio.shield(self._readiness)

    async def _ask_readiness(self) -> Refusal | None:
        with self.host.in_use() as version:
            if not await asyncio.to_thread(version.decoders.is_ready):
                return Refusal(503, "no_decoder", _NO_DECODER, retry_after=5)
            if not await asyncio.to_thread(version.has_model):
                return Refusal(503, "no_model", _NO_MODEL, retry_after=5)
        return None

    # ---- newer versions

    async def watch_versions(self, poll_seconds: float) -> None:
        """Takes up newer versions, for ever; says so, and says once why one can't be served."""
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


def _prediction(
    info: ModelInfo, song: Song, probabilities: np.ndarray, *, version: str
) -> Prediction:
    """Returns the prediction for a song from the probabilities [windows, classes]."""
    windows = []
    for window, row in zip(song.windows, probabilities, strict=True):
        named = {name: float(value) for name, value in zip(info.class_names, row, strict=True)}
        windows.append(
            WindowAnswer(
                start=round(window.start, 3),
                end=round(min(window.start + info.signal.seconds, song.seconds), 3),
                label=info.class_names[int(row.argmax())],
                probabilities=named,
            )
        )
    middle = windows[song.middle]
    return Prediction(
        label=middle.label,
        probabilities=middle.probabilities,
        version=version,
        seconds=round(song.seconds, 3),
        middle=song.middle,
        windows=windows,
        spectrogram=None,
        explanation=None,
        sound_alone=None,
        inputs=None,
    )


def _count(version: ServedVersion, song: Song, prediction: Prediction) -> None:
    """Counts a song for the drift of its version.

    By its sound alone, as in the training's reference. Not one that TensorFlow Serving has answered
    with another version, of which nothing is known here.
    """
    if version.songs is not None and prediction.version == str(version.number):
        answer = prediction.sound_alone or prediction.probabilities
        by_sound = np.array([answer[name] for name in version.info.class_names])
        version.songs.add(song.windows[song.middle].picture, by_sound)


async def _ask(
    version: ServedVersion, windows: Sequence[Window], told: Sequence[metadata.Metadata]
) -> Predictions:
    """Predicts for windows, with what is told of each."""
    heard = stacked([window.heard for window in windows])
    beside = heard | metadata.columns(told, version.info.inputs)
    return await asyncio.wrap_future(version.submit(beside.pop("spectrogram"), beside))


async def _weigh_inputs(
    version: ServedVersion, song: Song, told: dict[str, str | float], prediction: Prediction
) -> None:
    """Adds what the sound alone says, and what each input that was told adds to the answer."""
    names = list(told)[:_MOST_WEIGHED]
    less = [{key: told[key] for key in told if key != name} for name in names]
    window = song.windows[song.middle]
    answers = await _ask(version, [window] * (1 + len(less)), [{}, *less])
    classes = version.info.class_names
    place = classes.index(prediction.label)
    alone, *without = answers.probabilities
    prediction.sound_alone = dict(zip(classes, map(float, alone), strict=True))
    prediction.inputs = [
        InputWeight(
            name=name,
            value=told[name],
            weight=round(prediction.probabilities[prediction.label] - float(row[place]), 6),
        )
        for name, row in zip(names, without, strict=True)
    ]


async def _explain(
    version: ServedVersion,
    song: Song,
    told: metadata.Metadata,
    predictions: Predictions,
    prediction: Prediction,
) -> None:
    """Adds the spectrogram and the weight of each second to a prediction."""
    params, window = version.info.signal, song.windows[song.middle]
    parts = explanation.spans(params, song.seconds - window.start)
    pictures = explanation.occluded(window.picture, params, parts)
    as_whole = [window._replace(heard=window.heard | {"spectrogram": each}) for each in pictures]
    covered = await _ask(version, as_whole, [told] * len(pictures))
    weights = explanation.weights(predictions.probabilities[song.middle], covered.probabilities)
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


async def _disconnect(request: Request) -> None:
    """Returns when the client of a request whose body was read has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
