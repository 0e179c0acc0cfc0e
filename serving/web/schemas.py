"""The JSON that the API takes and gives, as Pydantic models; `/openapi.json` is made of them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Upload(BaseModel):
    """A song as JSON; the audio comes first."""

    model_config = ConfigDict(extra="forbid")

    audio: str = Field(description="An mp3, wav, flac or ogg file, base64.")
    inputs: dict[str, str | float | None] = Field(
        {},
        description="What else is known of the track, by the names that `/v1/model` lists. A value "
        "that the model never saw is as unknown as one that is not there.",
    )


class WindowAnswer(BaseModel):
    """The prediction for a part of a song."""

    start: float = Field(description="In seconds from the song's start.")
    end: float
    label: str
    probabilities: dict[str, float]


class SecondsWeight(BaseModel):
    """How much a part of the song supports the predicted class."""

    start: float = Field(description="In seconds from the song's start.")
    end: float
    weight: float = Field(
        description="By how much the predicted class's probability falls when this part and the "
        "seconds beside it are covered; below 0 where it rises."
    )


class InputWeight(BaseModel):
    """What one of the inputs adds to the answer."""

    name: str
    value: str | float
    weight: float = Field(
        description="By how much the predicted class's probability falls when this input alone is "
        "left out; below 0 where it rises."
    )


class Spectrogram(BaseModel):
    """The log-mel spectrogram that the model sees."""

    height: int = Field(description="Mel bands.")
    width: int = Field(description="Columns of time.")
    levels: str = Field(description="uint8 [height, width], base64; row 0 is the lowest band.")


class Prediction(BaseModel):
    """How often a song is listened to, as far as its sound tells."""

    label: str = Field(description="The likeliest class, from the middle of the song.")
    probabilities: dict[str, float] = Field(description="Of each class, from the middle.")
    version: str = Field(description="Of the model that answered.")
    seconds: float = Field(description="Length of the song.")
    middle: int = Field(description="Index of the window in the middle of the song.")
    windows: list[WindowAnswer] = Field(description="Along the song; silent parts are left out.")
    spectrogram: Spectrogram | None = Field(None, description="Of the middle; with explain.")
    explanation: list[SecondsWeight] | None = Field(
        None, description="Each second of the middle; with explain."
    )
    sound_alone: dict[str, float] | None = Field(
        None, description="The probabilities without what was told, where anything was."
    )
    inputs: list[InputWeight] | None = Field(None, description="What each that was told adds.")


class Problem(BaseModel):
    """Why there is no prediction."""

    code: str = Field(description="One word for programs.")
    message: str = Field(description="For people: what is wrong and what to do.")


class ErrorAnswer(BaseModel):
    """The body of every response with an error status."""

    error: Problem


ERROR_DESCRIPTIONS = {
    400: "The request can't be read.",
    408: "The upload took too long.",
    413: "The file is too large.",
    415: "Neither a file nor JSON.",
    422: "The file is no song that can be used, or an input is not of the model's.",
    429: "Too many songs of this client are waiting; `Retry-After` says how long.",
    503: "Too busy, or the model server is; `Retry-After` says how long.",
}
_BINARY = {"type": "string", "format": "binary"}
PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": _BINARY},
                "required": ["file"],
                "additionalProperties": {
                    "type": "string",
                    "description": "What else is known, a part for each name of /v1/model.",
                },
            }
        },
        "application/octet-stream": {"schema": _BINARY},
        "application/json": {"schema": Upload.model_json_schema()},
    },
}
