"""A dataset written from plain values, with what a record may carry beside its picture."""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from common import dataset_info
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo, Shard, Split
from common.inputs import (
    NUM_QUANTILES,
    Inputs,
    InputStatistics,
    NumberStatistics,
    SpectrogramStatistics,
    tokens,
)
from configs import dataset_artist

# Of what a record must have; the rest has a default.
Record = Mapping[str, Any]


def write_dataset(
    folder: pathlib.Path,
    *,
    inputs: Inputs,
    splits: Mapping[str, Sequence[Record]],
    config: DatasetConfig | None = None,
) -> DatasetInfo:
    """Writes each split as one shard.

    A record has `spectrogram` uint8 [height, width], `label`, and under their names in the record
    what is known of the inputs; `None` leaves a feature out. All but the inputs is as in a
    `config`, which is `dataset_artist`'s unless given.
    """
    config = config or DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
    config = dataclasses.replace(config, inputs=inputs)
    folder.mkdir(parents=True)
    track_id, made = 0, {}
    for name, records in splits.items():
        path = folder / f"{name}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                track_id += 1
                standing = {
                    "listens": 100,
                    "track_id": track_id,
                    "artist_id": track_id,
                    "genre": b"",
                    "date_created": -1,
                }
                writer.write(serialized(standing | dict(record)))
        labels = np.bincount([r["label"] for r in records], minlength=len(config.class_names))
        made[name] = Split(
            num_examples=len(records),
            class_counts=dict(zip(config.class_names, labels.tolist(), strict=True)),
            num_artists=len(records),
            shards=(
                Shard(
                    file=path.name,
                    num_examples=len(records),
                    bytes=path.stat().st_size,
                    sha256="",
                ),
            ),
        )
    info = dataclasses.replace(
        DatasetInfo.of(config, made), statistics=statistics(inputs, splits["train"])
    )
    (folder / dataset_info.FILE_NAME).write_text(info.to_json())
    return info


def serialized(record: Record) -> bytes:
    """A tf.Example of one value a feature."""
    features = {}
    for name, value in record.items():
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            value = value.tobytes()
        if isinstance(value, bytes):
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif isinstance(value, float):
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        else:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
        features[name] = feature
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(
        deterministic=True
    )


def statistics(inputs: Inputs, records: Sequence[Record]) -> InputStatistics:
    """What a job would write of a training split."""
    pictures = np.stack([record["spectrogram"] for record in records])
    numbers = {}
    for name, feature in inputs.number_features.items():
        values = [record[feature] for record in records if record.get(feature) is not None]
        if feature == "date_created":
            values = [value for value in values if value >= 0]
        known = np.array(values or [0.0], np.float64)
        numbers[name] = NumberStatistics(
            count=len(values),
            mean=float(known.mean()),
            deviation=float(known.std()),
            quantiles=tuple(np.quantile(known, np.linspace(0, 1, NUM_QUANTILES)).tolist()),
        )

    def counted(values: Any) -> tuple[str, ...]:
        counts = Counter(value for value in values if value)
        return tuple(sorted(counts, key=lambda value: (-counts[value], value)))

    return InputStatistics(
        spectrogram=SpectrogramStatistics(
            mean=tuple(pictures.mean(axis=(0, 2)).tolist()),
            deviation=tuple(pictures.std(axis=(0, 2)).tolist()),
        ),
        numbers=numbers,
        categories={
            name: counted((r.get(feature) or b"").decode() for r in records)
            for name, feature in inputs.category_features.items()
        },
        texts={
            name: counted(
                token for r in records for token in tokens((r.get(feature) or b"").decode())
            )
            for name, feature in inputs.text_features.items()
        },
    )
