"""`assets.extra/model_info.json`: what whoever asks an export needs to know of it."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

from common.config import config_of
from common.errors import UserFacingError, require
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams
from common.training_reference import TrainingReference

FILE_NAME = "model_info.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """How a model hears, and what its answers mean.

    Attributes:
        class_names: in the order of the probabilities.
        thresholds: between the classes, in what the popularity of the dataset's config is.
        signal: what turns a waveform into the picture that it sees.
        min_seconds: the shortest song that it was trained on.
        silence_dbfs: a window whose peak lies below this level was kept from it.
        dataset_fingerprint: of the dataset that it was trained on.
        evaluation: on that dataset's test split, None where that is empty.
        inputs: that it takes beside the picture; nothing, of a model from before there were any.
        vocabularies: {category: the values that it knows}, the most frequent first.
        dataset_generations: those of the dataset that it was trained on, from 0 on; () where that
            had no others.
        reference: what clips of its training look like and are answered; None of a model from
            before there was any.
    """

    class_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    signal: SpectrogramParams
    min_seconds: float
    silence_dbfs: float
    dataset_fingerprint: str
    evaluation: dict[str, Any] | None
    inputs: Inputs = dataclasses.field(default_factory=Inputs)
    vocabularies: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dataset_generations: tuple[int, ...] = ()
    reference: TrainingReference | None = None

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = FILE_NAME) -> "ModelInfo":
        """Parses the text of a `model_info.json`, called `name` in messages.

        Raises:
            UserFacingError: it is not one.
        """
        try:
            values = json.loads(text)
            inputs = Inputs.from_dict(values.get("inputs", {}), name="inputs")
            vocabularies = dict(values.get("vocabularies", {}))
            for category, known in vocabularies.items():
                require(
                    isinstance(known, list) and all(isinstance(value, str) for value in known),
                    f"vocabularies.{category}: not a list of texts",
                )
                vocabularies[category] = tuple(known)
            generations = values.get("dataset_generations", [])
            require(
                isinstance(generations, list)
                and all(type(number) is int and number >= 0 for number in generations),
                f"dataset_generations is {generations!r:.100}; it is a list of whole numbers",
            )
            reference = values.get("reference")
            if reference is not None:
                reference = TrainingReference.from_dict(
                    reference, num_classes=len(values["class_names"])
                )
            optional = {"inputs", "vocabularies", "dataset_generations", "reference"}
            values = {
                field.name: values[field.name]
                for field in dataclasses.fields(cls)
                if field.name not in optional
            }
            signal = config_of(SpectrogramParams, values["signal"], name="signal")
            lists = {field: values[field] for field in ("class_names", "thresholds")}
        except UserFacingError as error:
            raise UserFacingError(f"{name}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserFacingError(f"{name}: not a {FILE_NAME} ({error!r:.200})") from None
        for field, value in lists.items():
            if not isinstance(value, list):
                raise UserFacingError(f"{name}: {field} is {value!r:.100}; it is a list")
        tuples = {field: tuple(value) for field, value in lists.items()}
        info = cls(
            **values | {"signal": signal} | tuples,
            inputs=inputs,
            vocabularies=vocabularies,
            dataset_generations=tuple(generations),
            reference=reference,
        )
        for field, problem in info._problems():
            given = repr(values.get(field, generations))[:100]
            raise UserFacingError(f"{name}: {field} is {given}; it is {problem}")
        return info

    def _problems(self) -> Iterator[tuple[str, str]]:
        """Yields (field, what it should be) of each field that is of another type or value."""
        names, thresholds = self.class_names, self.thresholds
        if not (
            len(names) >= 2
            and all(isinstance(name, str) and name for name in names)
            and len(set(names)) == len(names)
        ):
            yield "class_names", "a list of two or more different texts"
        elif not (
            all(_is_number(threshold) for threshold in thresholds)
            and list(thresholds) == sorted(set(thresholds))
            and len(thresholds) == len(names) - 1
        ):
            yield "thresholds", f"{len(names) - 1} rising numbers, one between two classes"
        for field in ("min_seconds", "silence_dbfs"):
            if not _is_number(getattr(self, field)):
                yield field, "a number"
        if not isinstance(self.dataset_fingerprint, str):
            yield "dataset_fingerprint", "a text"
        if not all(type(number) is int and number >= 0 for number in self.dataset_generations):
            yield "dataset_generations", "a list of numbers"
        if not (self.evaluation is None or isinstance(self.evaluation, dict)):
            yield "evaluation", "an object or null"


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
