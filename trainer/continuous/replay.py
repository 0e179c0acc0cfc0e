"""The clips of an update: all new ones, and old ones drawn at random from few shards."""

import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterator
from typing import Any

from common import files, records
from common.dataset_info import DatasetInfo, Shard, Split
from common.generations import generation_of
from trainer.continuous import plan
from trainer.data import sample

MIX_FILE = "mix.json"
FILES = {"train": "replay-train.tfrecord", "validation": "replay-validation.tfrecord"}


def only(info: DatasetInfo, generations: Collection[int]) -> DatasetInfo:
    """Returns a description whose splits have the shards of some generations and no others.

    Of the classes nothing is counted.
    """
    return dataclasses.replace(
        info,
        splits={
            name: Split.of_shards(
                [each for each in split.shards if generation_of(each.file) in generations]
            )
            for name, split in info.splits.items()
        },
    )


def in_one_split(info: DatasetInfo, name: str) -> DatasetInfo:
    """Returns a description with all shards in one split, and the others empty."""
    every = sample.together(info.splits.values())
    return dataclasses.replace(
        info, splits={each: every if each == name else Split.of_shards([]) for each in info.splits}
    )


# ---- the mix


def mix(
    info: DatasetInfo,
    *,
    new: Collection[int],
    share: float,
    dataset_dir: str,
    folder: str,
    seed: int,
    test: Collection[int],
) -> DatasetInfo:
    """Returns the description of what an update trains on; writes the old clips into its folder.

    Training and validation are the new generations' and so many old clips that these are `share` of
    all. The class counts stay those of the whole list: the network takes from them how frequent a
    class is. What is there of an update that was killed is taken as it is.

    Args:
        info: of the list of generations.
        new: which of them are.
        share: of old clips, 0 ≤ … < 1.
        dataset_dir: where the dataset lies.
        folder: of the update.
        seed: of what is drawn.
        test: the generations whose clips are tested on; of none given all are.
    """
    fresh = only(info, new)
    old = only(info, set(_generations_of(info)) - set(new))
    written = plan.read(folder, MIX_FILE)
    if written is None:
        written = {"replayed": {}}
        for number, (split, name) in enumerate(FILES.items()):
            size = round(fresh.splits[split].num_examples * share / (1 - share))
            drawn = sample.draw(
                info, old.splits[split], dataset_dir, size=size, seed=(seed, number)
            )
            written["replayed"][split] = _write(drawn, folder, name)
        plan.write(folder, MIX_FILE, written)
    splits: dict[str, Split] = {}
    for name, replayed in written["replayed"].items():
        # Other paths are below the dataset.
        path = files.join(folder, replayed["file"])
        path = path if files.is_remote(path) else os.path.abspath(path)
        shard = Shard(**replayed | {"file": path})
        both = Split.of_shards([*fresh.splits[name].shards, *([shard] * bool(shard.num_examples))])
        splits[name] = dataclasses.replace(
            info.splits[name],
            num_examples=both.num_examples,
            shards=both.shards,
        )
    tested = only(info, test).splits["test"] if test else info.splits["test"]
    splits["test"] = dataclasses.replace(
        info.splits["test"], num_examples=tested.num_examples, shards=tested.shards
    )
    return dataclasses.replace(info, splits=splits)


def _generations_of(info: DatasetInfo) -> tuple[int, ...]:
    return info.generations or (0,)


def _write(drawn: Iterator[bytes], folder: str, name: str) -> dict[str, Any]:
    digest, count, size = hashlib.sha256(), 0, 0
    with files.atomic_file(folder, name) as file:
        for record in drawn:
            framed = records.frame(record)
            file.write(framed)
            digest.update(framed)
            count += 1
            size += len(framed)
    return {"file": name, "num_examples": count, "bytes": size, "sha256": digest.hexdigest()}
