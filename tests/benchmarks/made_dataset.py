"""A dataset of random pictures, written in a moment: for what no real music is needed."""

import pathlib

import numpy as np

from common import dataset_info, records
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo, Shard, Split
from configs import dataset_artist


def make_dataset(
    folder: pathlib.Path,
    *,
    num_shards: int,
    examples_a_shard: int,
    seed: int = 0,
    config: DatasetConfig | None = None,
) -> DatasetInfo:
    """Writes a dataset whose training split has these shards, and the others one of 16 examples.

    The same pictures come again in each shard, in another order. Without a `config` it is
    `dataset_artist`'s.
    """
    config = config or DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, (examples_a_shard, *config.spectrogram.shape), np.uint8)
    folder.mkdir(parents=True)
    track_id = 0

    def make_split(name: str, shards: int, size: int) -> Split:
        nonlocal track_id
        made, labels = [], np.zeros(len(config.class_names), int)
        for index in range(shards):
            path = folder / f"{name}.tfrecord-{index:05d}-of-{shards:05d}"
            with path.open("wb") as file:
                for picture in generator.permutation(pictures)[:size]:
                    values = {
                        "spectrogram": picture.tobytes(),
                        "label": int(generator.integers(len(labels))),
                        "listens": track_id,
                        "track_id": track_id,
                        "artist_id": track_id,
                        "genre": b"Rock",
                        "date_created": -1,
                    }
                    labels[values["label"]] += 1
                    track_id += 1
                    file.write(records.frame(records.encode_example(values)))
            made.append(
                Shard(file=path.name, num_examples=size, bytes=path.stat().st_size, sha256="")
            )
        return Split(
            num_examples=shards * size,
            class_counts=dict(zip(config.class_names, labels.tolist(), strict=True)),
            num_artists=shards * size,
            shards=tuple(made),
        )

    splits = {
        "train": make_split("train", num_shards, examples_a_shard),
        "validation": make_split("validation", 1, 16),
        "test": make_split("test", 1, 16),
    }
    info = DatasetInfo.of(config, splits)
    (folder / dataset_info.FILE_NAME).write_text(info.to_json())
    return info
