"""What the records of a dataset hold, counted in one pass over them."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from common import dataset_reader
from common.catalogue import UNKNOWN
from common.dataset_info import DatasetInfo

_SHOWN_OF_A_CLASS = 5


@dataclasses.dataclass(frozen=True)
class Contents:
    """Counts of examples; each has a class as its `label`, an index into the class names.

    Of records without a label only the artists are noted, so that none is in two splits unseen.

    They grow with how many different values there are, not with the number of examples.

    Attributes:
        listens: of each number of listens.
        genres: of each (genre, label); the genre is empty where it is unknown.
        artists: of each (artist_id, split); the id is `UNKNOWN` where it is unknown.
        years: of each (year, label) of `date_created`, where it is known.
        shown: {label: its first few examples, decoded}.
    """

    listens: Counter[int]
    genres: Counter[tuple[str, int]]
    artists: Counter[tuple[int, str]]
    years: Counter[tuple[int, int]]
    shown: dict[int, list[dict[str, Any]]]

    @property
    def num_examples(self) -> int:
        return sum(self.listens.values())

    @property
    def examples_of_artist(self) -> Counter[int]:
        """Of each known artist, in all splits."""
        found: Counter[int] = Counter()
        for (artist, _), count in self.artists.items():
            if artist != UNKNOWN and count:
                found[artist] += count
        return found

    @property
    def examples_without_artist(self) -> int:
        return sum(count for (id_, _), count in self.artists.items() if id_ == UNKNOWN)

    @property
    def artists_in_two_splits(self) -> int:
        splits = Counter(artist for artist, _ in self.artists if artist != UNKNOWN)
        return sum(count > 1 for count in splits.values())


def read(info: DatasetInfo, dataset_dir: str) -> Contents:
    """Returns the contents of a dataset; raises as `dataset_reader.read_examples` does."""
    shown: dict[int, list[dict[str, Any]]] = {label: [] for label in range(len(info.class_names))}
    contents = Contents(Counter(), Counter(), Counter(), Counter(), shown)
    for split, example in dataset_reader.read_examples(info, dataset_dir):
        label = example["label"]
        if label == UNKNOWN:
            contents.artists[example["artist_id"], split] += 0
            continue
        contents.listens[example["listens"]] += 1
        contents.genres[example["genre"].decode(), label] += 1
        contents.artists[example["artist_id"], split] += 1
        if example["date_created"] != UNKNOWN:
            # Time zones reach into the years 0 and 10,000, which Python's dates do not have.
            year = np.datetime64(example["date_created"], "s").astype("datetime64[Y]")
            contents.years[1970 + int(year.astype(int)), label] += 1
        if len(shown[label]) < _SHOWN_OF_A_CLASS:
            shown[label].append(example)
    return contents


def by_class(counts: Counter[tuple[Any, int]], num_classes: int) -> dict[Any, list[int]]:
    """Returns {value: examples of each class} of counts of (value, label)."""
    found: dict[Any, list[int]] = {}
    for (value, label), count in counts.items():
        found.setdefault(value, [0] * num_classes)[label] += count
    return found
