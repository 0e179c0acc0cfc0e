"""Listens that came after the audio: what generations say of the records of others.

    corrections.jsonl   a line for each track whose listens became known or newer: `track_id`,
                        `announced_at`, `listens`
    unlabelled.jsonl    a line for each shard with records that had no listens when they were
                        written: `file`, and `track_ids`, one for each of these records

The records stay as they are. Whoever reads a list of generations takes the newest listens that this
list has of a track, and passes over what has none.
"""

import array
import concurrent.futures
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from common import files, generations
from common.corrections import Corrections
from common.dataset_info import DatasetInfo, Split
from common.errors import UserFacingError, require
from common.generations import Manifest

CORRECTIONS_FILE = "corrections.jsonl"
UNLABELLED_FILE = "unlabelled.jsonl"

_LARGEST = 2**62

# Small files, of which a bucket takes many requests at once.
_READ_AT_ONCE = 16


class Correction(NamedTuple):
    """A later look at the listens of a track that is written.

    Attributes:
        track_id: of the track.
        announced_at: RFC 3339.
        listens: what it has now.
    """

    track_id: int
    announced_at: str
    listens: int

    @property
    def age(self) -> tuple[float, int]:
        """Returns what decides which of two is the newer, however they came."""
        return generations.seconds_of(self.announced_at), self.listens


def corrections_of(manifest: Manifest, folder: str) -> Iterator[Correction]:
    """Yields what a generation says of the listens of tracks.

    Raises:
        UserFacingError: the list is missing or damaged.
    """
    if not manifest.source.get("corrections"):
        return

    def correction(values: Any) -> Correction:
        found = Correction(**values)
        numbers = (found.track_id, found.listens)
        if not all(type(each) is int and 0 <= each < _LARGEST for each in numbers):
            raise ValueError(found)
        generations.seconds_of(found.announced_at)
        return found

    path = files.join(folder, CORRECTIONS_FILE)
    data = read(path)
    if manifest.corrected is not None:
        require(
            hashlib.sha256(data).hexdigest() == manifest.corrected["sha256"],
            f"{path}: its SHA-256 is not the one in {generations.MANIFEST_FILE}; bring it back",
        )
    yield from entries(data, correction, name=path)


def corrections_text(corrections: Mapping[int, Correction]) -> bytes:
    """Returns the contents of a `corrections.jsonl`, sorted by track."""
    every = [json.dumps(corrections[track]._asdict()) for track in sorted(corrections)]
    return "".join(f"{line}\n" for line in every).encode()


def unlabelled_of(folder: str) -> dict[str, NDArray[np.int64]]:
    """Returns {shard: track ids, int64 [records]} of the records that were written without label.

    Raises:
        UserFacingError: the list is missing or damaged.
    """

    def shard(values: Any) -> tuple[str, NDArray[np.int64]]:
        ids = values["track_ids"]
        if not all(type(each) is int and 0 <= each < _LARGEST for each in ids):
            raise ValueError(values)
        return str(values["file"]), np.array(ids, np.int64)

    path = files.join(folder, UNLABELLED_FILE)
    return dict(entries(read(path), shard, name=path))


def unlabelled_text(track_ids: Mapping[str, Sequence[int]]) -> bytes:
    """Returns the contents of an `unlabelled.jsonl` of {shard: track ids}."""
    lines = [json.dumps({"file": name, "track_ids": list(track_ids[name])}) for name in track_ids]
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def joined(info: DatasetInfo, manifests: Sequence[Manifest], dataset_dir: str) -> DatasetInfo:
    """Returns the description of a list of generations with the newest listens of its tracks.

    Args:
        info: of the list, by `generations.info_of_list`.
        manifests: of its generations but 0.
        dataset_dir: where they lie.

    Raises:
        UserFacingError: a list is missing or damaged.
    """
    parts = [part for part in manifests if part.source.get("corrections")]
    if not parts:
        return info
    with concurrent.futures.ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        looks = list(pool.map(lambda part: _looks_of(part, dataset_dir), parts))
        track_ids, seconds, listens = map(np.concatenate, zip(*looks, strict=True))
        corrections = Corrections.newest(track_ids=track_ids, seconds=seconds, listens=listens)
        lacking = [part for part in manifests if any(s.unlabelled for s in part.splits.values())]
        left = dict(
            count
            for counts in pool.map(lambda part: _left_of(part, dataset_dir, corrections), lacking)
            for count in counts
        )
    splits = {name: _with_unlabelled(split, left) for name, split in info.splits.items()}
    return dataclasses.replace(info, splits=splits, corrections=corrections)


def _looks_of(part: Manifest, dataset_dir: str) -> tuple[NDArray[Any], ...]:
    """Returns track ids, seconds since 1970 and listens of a generation's corrections."""
    track_ids, seconds, listens = array.array("q"), array.array("d"), array.array("q")
    folder = generations.folder_of(dataset_dir, part.generation)
    for found in corrections_of(part, folder):
        track_ids.append(found.track_id)
        seconds.append(found.age[0])
        listens.append(found.listens)
    return np.array(track_ids), np.array(seconds), np.array(listens)


def _left_of(part: Manifest, dataset_dir: str, corrections: Corrections) -> list[tuple[str, int]]:
    """Returns (shard, how many of its records have no label yet) of a generation's shards."""
    folder = generations.folder_of(dataset_dir, part.generation)
    written = unlabelled_of(folder)
    counts = []
    for split in part.splits.values():
        for shard in split.shards:
            ids = written.get(shard.file, np.array([], np.int64))
            require(
                len(ids) == shard.unlabelled,
                f"{files.join(folder, UNLABELLED_FILE)}: {shard.file}: not the records that "
                f"{generations.MANIFEST_FILE} counts; bring it back",
            )
            name = generations.below(part.generation, shard.file)
            counts.append((name, int((~corrections.has(ids)).sum())))
    return counts


def _with_unlabelled(split: Split, left: Mapping[str, int]) -> Split:
    shards = tuple(
        dataclasses.replace(shard, unlabelled=left.get(shard.file, shard.unlabelled))
        for shard in split.shards
    )
    num_examples = Split.of_shards(shards).num_examples
    return dataclasses.replace(split, shards=shards, num_examples=num_examples)


# ---- lists of JSON lines

Entry = TypeVar("Entry")


def read(path: str) -> bytes:
    """Reads a list that a manifest names; UserFacingError if it is missing."""
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        raise UserFacingError(f"{path}: missing; bring it back") from None


def entries(data: bytes, parse: Callable[[Any], Entry], *, name: str) -> Iterator[Entry]:
    """Yields the entries of a list, a line of JSON each; UserFacingError where one is none."""
    try:
        for line in io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="\n"):
            yield parse(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserFacingError(f"{name}: damaged ({error!r:.100})") from None
