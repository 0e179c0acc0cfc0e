"""What is told of a track beside its sound: checked, and as the named inputs of a model.

A person or a program says it by the names of the catalogue's columns, `{"genre": "Rock"}`. The
signatures of a model take it by the names of the records' features, with `_` for `/`, since a
column may be called as what is heard: `number_tempo` is a column, `tempo` a picture of the rhythm.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import chroma, records, tempo
from common.errors import UserFacingError
from common.input_statistics import number_in
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams

# Of a title or of lyrics, in letters.
MAX_TEXT = 20_000

# {name: a string or a finite number}; what is not there is unknown.
Metadata = Mapping[str, str | float]


def names(inputs: Inputs) -> dict[str, str]:
    """{name: `category`, `number` or `text`} of all that may be told, in order."""
    return {
        **dict.fromkeys(inputs.texts, "text"),
        **dict.fromkeys(inputs.number_features, "number"),
        **dict.fromkeys(inputs.categories, "category"),
    }


def checked(values: Any, inputs: Inputs) -> dict[str, str | float]:
    """What is told, without what says that it is unknown: null, an empty string.

    A number may be said in digits, and as a date in ISO 8601, which is seconds since 1970 UTC.

    Raises:
        UserFacingError: it is no object, the model does not take a name, or a value is of another
            type.
    """
    if not isinstance(values, dict):
        raise UserFacingError('the inputs are not an object such as {"genre": "Rock"}')
    kinds, found = names(inputs), {}
    for name, value in values.items():
        if name not in kinds:
            raise UserFacingError(
                f"{str(name)[:64]!r}: the model takes no such input; it takes "
                f"{', '.join(kinds) or 'sound alone'}"
            )
        if value is None or value == "":
            continue
        found[name] = _number(name, value) if kinds[name] == "number" else _text(name, value)
    return found


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserFacingError(f"{name}: {str(value)[:64]} is not a text in quotes")
    if len(value) > MAX_TEXT:
        raise UserFacingError(f"{name}: longer than {MAX_TEXT:,} letters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserFacingError(f"{name}: half a character, which is no UTF-8") from None
    return value


def _number(name: str, value: Any) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    elif isinstance(value, str):
        number = _number_in(value.strip()[:64])
    if not abs(number) <= np.finfo(np.float32).max:
        raise UserFacingError(
            f"{name}: {str(value)[:64]!r} is not a number or a date such as 2015-03-31"
        )
    return number


def _number_in(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        date = datetime.datetime.fromisoformat(text)
        return date.replace(tzinfo=date.tzinfo or datetime.timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def input_name(feature: str) -> str:
    """The name of a signature's input for a feature of the records."""
    return feature.replace("/", "_")


def unknown(
    inputs: Inputs, params: SpectrogramParams, *, signature: str = "spectrogram"
) -> dict[str, NDArray[Any]]:
    """{named input: an array [1, …] that says unknown} of what a signature takes beside its own.

    A string is empty, a number is not a number, what is heard is zeros. A signature that takes
    waveforms hears by itself, and a tf.Example has all in it.
    """
    if signature == "examples":
        return {}
    strings = [*inputs.category_features.values(), *inputs.text_features.values()]
    arrays: dict[str, NDArray[Any]] = {
        **{input_name(feature): np.array([b""], object) for feature in strings},
        **{
            input_name(feature): np.array([np.nan], np.float32)
            for feature in inputs.number_features.values()
        },
    }
    if signature != "spectrogram":
        return arrays
    if inputs.chroma:
        arrays["chroma"] = np.zeros((1, *chroma.shape(params)), np.uint8)
    if inputs.tempo:
        arrays["tempo"] = np.zeros((1, *tempo.shape()), np.uint8)
    return arrays


def completed(
    beside: Mapping[str, NDArray[Any]], inputs: Inputs, params: SpectrogramParams, *, size: int
) -> dict[str, NDArray[Any]]:
    """All named inputs [size, …] of a signature that takes pictures; what is not given, unknown.

    TensorFlow Serving puts a default in as it is, and can't batch it with more than one picture.
    """
    return {
        name: beside[name] if name in beside else np.repeat(row, size, axis=0)
        for name, row in unknown(inputs, params).items()
    }


def columns(rows: Sequence[Metadata], inputs: Inputs) -> dict[str, NDArray[Any]]:
    """{named input: array [rows]} of what was told, unknown where it was not."""
    found: dict[str, NDArray[Any]] = {}
    # A column may be a category and a text at once.
    for name, feature in [*inputs.category_features.items(), *inputs.text_features.items()]:
        values = [str(row.get(name, "")).encode() for row in rows]
        found[input_name(feature)] = np.array(values, object)
    for name, feature in inputs.number_features.items():
        numbers = [row.get(name, math.nan) for row in rows]
        found[input_name(feature)] = np.array(numbers, np.float32)
    return found


def of_record(
    values: Mapping[str, records.Value], inputs: Inputs, params: SpectrogramParams
) -> dict[str, NDArray[Any]]:
    """{named input: array [1, …]} of what a record carries beside its picture."""
    found = unknown(inputs, params)
    for feature in [*inputs.category_features.values(), *inputs.text_features.values()]:
        found[input_name(feature)][0] = values.get(feature, b"")
    for feature in inputs.number_features.values():
        # As the trainer's reader does, which takes no whole number below 0 for known.
        value = values.get(feature)
        if not (isinstance(value, int) and value < 0):
            found[input_name(feature)][0] = number_in(values, feature)
    for name in ("chroma", "tempo"):
        levels = values.get(name)
        if name in found and isinstance(levels, bytes):
            found[name] = np.frombuffer(levels, np.uint8).reshape(found[name].shape)
    return found
