"""Makes the record of a shard from a track and a window of its audio."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common import audio_features, dataset_info, labels, records
from common.catalogue import Track
from common.dataset_config import DatasetConfig
from common.inputs import Inputs, number_feature


def record_of(
    track: Track, window: np.ndarray, config: DatasetConfig, *, thresholds: tuple[float, ...]
) -> bytes:
    """Returns the serialized tf.Example of a window.

    Args:
        track: its row of the catalogue.
        window: float32 [num_samples].
        config: of the dataset.
        thresholds: of the classes, in what the config's popularity is.
    """
    heard = audio_features.of_window(window, config.spectrogram, config.inputs)
    return record_with(track, heard, config, thresholds=thresholds)


def record_with(
    track: Track,
    heard: Mapping[str, NDArray[np.uint8]],
    config: DatasetConfig,
    *,
    thresholds: tuple[float, ...],
) -> bytes:
    """Serializes a window's features (`audio_features.of_window`) and its track as a tf.Example."""
    return records.encode_example(
        {
            **{name: levels.tobytes() for name, levels in heard.items()},
            **values_of(track, config.inputs),
            "label": labels.label_of(track.value, thresholds),
        }
    )


def values_of(track: Track, inputs: Inputs) -> dict[str, records.Value]:
    """Returns the features that a record has of its track, but for the label; unknown is absent."""
    values: dict[str, records.Value] = {}
    for feature, text in zip(inputs.category_features.values(), track.categories, strict=True):
        if text:
            values[feature] = text.encode()
    for feature, text in zip(inputs.text_features.values(), track.texts, strict=True):
        if text:
            values[feature] = text.encode()
    for name, number in zip(inputs.numbers, track.numbers, strict=True):
        if not math.isnan(number):
            values[number_feature(name)] = float(number)
    if not math.isnan(track.popularity):
        values[dataset_info.POPULARITY] = float(track.popularity)
    for num_tracks, mean in inputs.histories.values():
        if getattr(track, num_tracks) >= 0:
            values[num_tracks] = getattr(track, num_tracks)
            if not math.isnan(getattr(track, mean)):
                values[mean] = getattr(track, mean)
    # What every record has comes last, so that it has the value of its own column.
    return values | {
        "listens": track.listens,
        "track_id": track.track_id,
        "artist_id": track.artist_id,
        "genre": track.genre.encode(),
        "date_created": track.date_created,
    }


def unknown_inputs(track: Track, inputs: Inputs) -> list[str]:
    """Returns the features of the inputs that the catalogue does not know of a track."""
    values = values_of(track, inputs)
    wanted = [
        *inputs.category_features.values(),
        *inputs.number_features.values(),
        *inputs.text_features.values(),
    ]
    return [feature for feature in wanted if values.get(feature, b"") in (b"", -1)]
