"""What clips look like, as the numbers and categories that drift is told by."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common import labels, picture_statistics
from common.dataset_info import DatasetInfo
from trainer.continuous import drift
from trainer.continuous.drift import Drift
from trainer.data import reader
from trainer.follow_config import FollowConfig

# Dates move by themselves: new music is newer.
_NEVER_ALIKE = "date_created"
_BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """Some clips.

    Attributes:
        numbers: {name: float [clips]}, not finite where unknown.
        categories: {name: bytes [clips]}, empty where unknown.
        artists: how many they are of; a clip of an unknown one counts as one of its own.
    """

    numbers: dict[str, NDArray[Any]]
    categories: dict[str, NDArray[Any]]
    artists: int


def observe(info: DatasetInfo, serialized: tf.data.Dataset) -> Observed:
    """Reads what clips look like, of serialized records one after the other."""
    inputs = info.config.inputs
    numbers = [name for name in inputs.number_features.values() if name != _NEVER_ALIKE]
    categories = sorted({"genre", *inputs.category_features.values()})
    names = ["listens", "artist_id", "track_id", *numbers, *categories]
    parse = reader.parser(info, names=names, may_lack=True)
    parts = [_columns(parse(batch)) for batch in serialized.batch(_BATCH)]
    if not parts:
        return Observed(numbers={}, categories={}, artists=0)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    artist, track = found["artist_id"], found["track_id"]
    told = {name: found[name] for name in picture_statistics.NAMES}
    told |= {"listens": np.log1p(np.maximum(found["listens"], 0))}
    told |= {name: found[name].astype(float) for name in numbers}
    return Observed(
        numbers=told,
        categories={name: found[name] for name in categories},
        artists=len(np.unique(np.where(artist >= 0, artist, -2 - track))),
    )


def _columns(values: dict[str, tf.Tensor]) -> dict[str, NDArray[Any]]:
    pictures = values.pop("spectrogram").numpy()
    columns = {name: column.numpy() for name, column in values.items()}
    return columns | picture_statistics.of_pictures(pictures)


def compare(old: Observed, new: Observed, limits: FollowConfig) -> Iterator[Drift]:
    """Yields how far new clips are from old ones; nothing where either are none."""
    artists = (old.artists, new.artists)
    if not all(artists):
        return
    for name, values in old.numbers.items():
        yield drift.of_numbers(
            values,
            new.numbers[name],
            what="label" if name == "listens" else "input",
            name=name,
            artists=artists,
            threshold=limits.drift_psi,
        )
    for name, values in old.categories.items():
        yield drift.of_categories(
            values,
            new.categories[name],
            what="input",
            name=name,
            artists=artists,
            threshold=limits.drift_js,
        )


def compare_answers(
    old: NDArray[Any], new: NDArray[Any], *, artists: tuple[int, int], limits: FollowConfig
) -> Iterator[Drift]:
    """Yields how far a model's answers, probabilities [clips, classes], are from those before."""
    if not all(artists):
        return
    yield drift.of_numbers(
        labels.expected_class(old),
        labels.expected_class(new),
        what="prediction",
        name="expected class",
        artists=artists,
        threshold=limits.drift_psi,
    )
    classes = old.shape[1]
    yield drift.of_counts(
        *(np.bincount(each.argmax(axis=1), minlength=classes) for each in (old, new)),
        what="prediction",
        name="class",
        artists=artists,
        threshold=limits.drift_js,
    )
