"""Generations made of whole datasets, without any stream."""

import dataclasses
import hashlib
import pathlib

from common import dataset_info, dataset_reader, generations
from common.dataset_info import DatasetInfo
from common.generations import Manifest


def with_digests(info: DatasetInfo, folder: pathlib.Path) -> DatasetInfo:
    """The description of a made dataset, whose shards were not digested."""
    splits = {
        name: dataclasses.replace(
            split,
            shards=tuple(
                dataclasses.replace(
                    shard, sha256=hashlib.sha256((folder / shard.file).read_bytes()).hexdigest()
                )
                for shard in split.shards
            ),
        )
        for name, split in info.splits.items()
    }
    return dataclasses.replace(
        info, splits=splits, fingerprint=dataset_info.fingerprint(info.config, splits)
    )


def manifest_of(info: DatasetInfo, *, generation: int, base: DatasetInfo, **other) -> Manifest:
    """The manifest of a dataset as a generation of another."""
    values = {
        "generation": generation,
        "base_fingerprint": base.fingerprint,
        "fingerprint": info.fingerprint,
        "splits": info.splits,
        "rejected": info.rejected,
        "missing_audio": info.missing_audio,
        "window": ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"),
        "source": {"uri": "announced", "offsets": {"a.jsonl": [0, 100]}},
        "late": 0,
        "counts": {"announced": info.num_examples, "tracks": info.num_examples},
        "new_artists": {name: split.num_artists for name, split in info.splits.items()},
        "split_check": info.split_check,
        "versions": info.versions,
    }
    return Manifest(**values | other)


def add(dataset_dir: pathlib.Path, part: pathlib.Path, *, generation: int, **other) -> Manifest:
    """Moves a dataset's folder below another one, as a generation of it."""
    base = dataset_reader.first_info(str(dataset_dir))
    info = with_digests(dataset_reader.first_info(str(part)), part)
    manifest = manifest_of(info, generation=generation, base=base, **other)
    folder = pathlib.Path(generations.folder_of(str(dataset_dir), generation))
    folder.parent.mkdir(exist_ok=True)
    part.rename(folder)
    (folder / generations.MANIFEST_FILE).write_text(manifest.to_json())
    return manifest


def grow_by_parts(folder, info, framed, *, count):
    """A dataset whose generation 0 is empty and whose others share the records, in their order."""
    empty = {
        name: dataclasses.replace(
            split,
            num_examples=0,
            num_artists=0,
            class_counts=dict.fromkeys(split.class_counts, 0),
            shards=(),
        )
        for name, split in info.splits.items()
    }
    folder.mkdir()
    first = with_digests(dataclasses.replace(info, splits=empty), folder)
    (folder / dataset_info.FILE_NAME).write_text(first.to_json())
    size = len(framed) // count
    for number in range(count):
        part = folder.parent / f"{folder.name}-{number}"
        part.mkdir()
        data = b"".join(framed[number * size : (number + 1) * size])
        (part / "train.tfrecord-00000-of-00001").write_bytes(data)
        shard = dataset_info.Shard(
            file="train.tfrecord-00000-of-00001", num_examples=size, bytes=len(data), sha256=""
        )
        train = dataclasses.replace(
            empty["train"], num_examples=size, num_artists=size, shards=(shard,)
        )
        of_part = dataclasses.replace(info, splits=empty | {"train": train})
        (part / dataset_info.FILE_NAME).write_text(of_part.to_json())
        add(folder, part, generation=number + 1)
