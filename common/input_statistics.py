"""The statistics of a training split, gathered shard by shard from its records.

What is added up is whole numbers, or `math.fsum` over a shard's records in their order and then
over the shards in theirs, so the result does not depend on who gathers what, or when.
"""

import heapq
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common import records
from common.catalogue import UNKNOWN
from common.hashing import stable_hash
from common.inputs import (
    NUM_QUANTILES,
    Inputs,
    InputStatistics,
    NumberStatistics,
    SpectrogramStatistics,
    tokens,
)
from common.spectrogram import SpectrogramParams

# As many values of a category and tokens of a text are listed, the most frequent.
MAX_VALUES = 1_000
MAX_TOKENS = 5_000
# As many records of the training split as quantiles are taken from, chosen by their hash.
SAMPLE_SIZE = 8_192

# ("category" or "text", name, value or token).
Counted = tuple[str, str, str]


class Moments(NamedTuple):
    """Of a number: in how many records, sum, and sum of squared distances from the mean."""

    known: int
    total: float
    squares: float


class ShardStatistics(NamedTuple):
    """What a shard adds to the statistics.

    Attributes:
        num_examples: records in it.
        level_sums, level_squares: of each band, over pictures and columns: int [height].
        moments: of each number of `Inputs.number_features`, in that order.
        sample: (hash, float of each number, NaN where unknown) of some records.
        counts: {(kind, name, value or token): how often}.
    """

    num_examples: int
    level_sums: tuple[int, ...]
    level_squares: tuple[int, ...]
    moments: tuple[Moments, ...]
    sample: tuple[tuple[int, tuple[float, ...]], ...]
    counts: Mapping[Counted, int]

    def to_json(self) -> str:
        """Formats it as text; floats come back as they were."""
        counts = [(*key, count) for key, count in self.counts.items()]
        return json.dumps([*self[:-1], counts])

    @classmethod
    def from_json(cls, text: str) -> "ShardStatistics":
        """Of the text of `to_json`."""
        examples, sums, squares, moments, sample, counts = json.loads(text)
        return cls(
            num_examples=examples,
            level_sums=tuple(sums),
            level_squares=tuple(squares),
            moments=tuple(Moments(*values) for values in moments),
            sample=tuple((key, tuple(numbers)) for key, numbers in sample),
            counts={(kind, name, value): count for kind, name, value, count in counts},
        )


class Gatherer:
    """Gathers the statistics of one shard, record by record.

    Args:
        wanted: what the records carry.
        height: of the pictures.
        num_shards: of the split; each gives its part of the sample.
    """

    def __init__(self, wanted: Inputs, *, height: int, num_shards: int):
        self._inputs, self._height = wanted, height
        self._sample_size = math.ceil(SAMPLE_SIZE / num_shards)
        self._num_examples = 0
        self._level_sums = np.zeros(height, np.int64)
        self._level_squares = np.zeros(height, np.int64)
        self._numbers: list[list[float]] = [[] for _ in wanted.number_features]
        self._sample: list[tuple[int, int, tuple[float, ...]]] = []
        self._counts: Counter[Counted] = Counter()

    def add(self, values: Mapping[str, records.Value]) -> None:
        """Adds the values of a record."""
        picture = values["spectrogram"]
        assert isinstance(picture, bytes)
        levels = np.frombuffer(picture, np.uint8).reshape(self._height, -1).astype(np.int64)
        self._level_sums += levels.sum(axis=1)
        self._level_squares += (levels * levels).sum(axis=1)
        numbers = tuple(
            number_in(values, feature) for feature in self._inputs.number_features.values()
        )
        for known, number in zip(self._numbers, numbers, strict=True):
            if not math.isnan(number):
                known.append(number)
        if numbers:
            key = stable_hash(f"{values['track_id']!r} {self._num_examples}", salt="sample")
            # Of the negative hash, so that the largest of the smallest goes first.
            entry = (-key, -self._num_examples, numbers)
            if len(self._sample) < self._sample_size:
                heapq.heappush(self._sample, entry)
            else:
                heapq.heappushpop(self._sample, entry)
        for name, feature in self._inputs.category_features.items():
            if value := text_in(values, feature):
                self._counts["category", name, value] += 1
        for name, feature in self._inputs.text_features.items():
            for token in tokens(text_in(values, feature)):
                self._counts["text", name, token] += 1
        self._num_examples += 1

    def result(self) -> ShardStatistics:
        """Of all records that were added."""
        return ShardStatistics(
            num_examples=self._num_examples,
            level_sums=tuple(map(int, self._level_sums)),
            level_squares=tuple(map(int, self._level_squares)),
            moments=tuple(map(_moments, self._numbers)),
            sample=tuple(sorted((-key, numbers) for key, _, numbers in self._sample)),
            counts=dict(self._counts),
        )


def number_in(values: Mapping[str, records.Value], feature: str) -> float:
    """Returns a number of a record, NaN where it is unknown."""
    value = values.get(feature)
    if not isinstance(value, (int, float)) or (feature == "date_created" and value == UNKNOWN):
        return math.nan
    return float(value)


def text_in(values: Mapping[str, records.Value], feature: str) -> str:
    """Returns a category or a text of a record, empty where it is unknown."""
    value = values.get(feature, b"")
    assert isinstance(value, bytes)
    return value.decode()


def statistics_of(
    shards: Iterable[ShardStatistics],
    most_frequent: Mapping[tuple[str, str], Sequence[str]],
    *,
    wanted: Inputs,
    spectrogram: SpectrogramParams,
) -> InputStatistics:
    """Returns the statistics of a split.

    Args:
        shards: of its shards, in their order.
        most_frequent: {(kind, name): values or tokens}, the most frequent first.
        wanted: what the records carry.
        spectrogram: of the pictures.
    """
    height, width = spectrogram.shape
    num_examples = 0
    sums, squares = [0] * height, [0] * height
    moments: list[tuple[Moments, ...]] = []
    sample: list[tuple[float, ...]] = []
    for shard in shards:
        num_examples += shard.num_examples
        sums = list(map(operator.add, sums, shard.level_sums))
        squares = list(map(operator.add, squares, shard.level_squares))
        moments.append(shard.moments)
        sample += [numbers for _, numbers in shard.sample]
    bands = [
        _mean_and_deviation(num_examples * width, total, of_squares)
        for total, of_squares in zip(sums, squares, strict=True)
    ]
    numbers = {
        name: _number_statistics(
            [of_shard[index] for of_shard in moments], [numbers[index] for numbers in sample]
        )
        for index, name in enumerate(wanted.number_features)
    }
    return InputStatistics(
        spectrogram=SpectrogramStatistics(
            mean=tuple(mean for mean, _ in bands),
            deviation=tuple(deviation for _, deviation in bands),
        ),
        numbers=numbers,
        categories={
            name: tuple(most_frequent.get(("category", name), ())) for name in wanted.categories
        },
        texts={name: tuple(most_frequent.get(("text", name), ())) for name in wanted.texts},
    )


def most_frequent_of(counts: Mapping[Counted, int]) -> dict[tuple[str, str], list[str]]:
    """Returns {(kind, name): values or tokens}, the most frequent first, equals by their text."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for (kind, name, value), count in counts.items():
        found.setdefault((kind, name), []).append((-count, value))
    return dict(listed(key, heapq.nsmallest(MAX_TOKENS, entries)) for key, entries in found.items())


def listed(
    key: tuple[str, str], entries: Sequence[tuple[int, str]]
) -> tuple[tuple[str, str], list[str]]:
    """Turns (−count, value) in order into ((kind, name), values), as many as are listed."""
    limit = MAX_VALUES if key[0] == "category" else MAX_TOKENS
    return key, [value for _, value in entries[:limit]]


def _moments(values: list[float]) -> Moments:
    if not values:
        return Moments(0, 0.0, 0.0)
    total = math.fsum(values)
    mean = total / len(values)
    return Moments(len(values), total, math.fsum((value - mean) ** 2 for value in values))


def _mean_and_deviation(count: int, total: int, squares: int) -> tuple[float, float]:
    """Of whole numbers, exact up to the last division and root; 0 of none."""
    if not count:
        return 0.0, 0.0
    return total / count, math.sqrt((count * squares - total * total) / (count * count))


def _number_statistics(parts: list[Moments], sample: list[float]) -> NumberStatistics:
    count = sum(part.known for part in parts)
    known = [value for value in sample if not math.isnan(value)]
    if not count or not known:
        return NumberStatistics(
            count=count, mean=0.0, deviation=0.0, quantiles=(0.0,) * NUM_QUANTILES
        )
    mean = math.fsum(part.total for part in parts) / count
    squares = math.fsum(
        part.squares + part.known * (part.total / part.known - mean) ** 2
        for part in parts
        if part.known
    )
    quantiles = np.quantile(known, np.linspace(0, 1, NUM_QUANTILES))
    return NumberStatistics(
        count=count,
        mean=mean,
        deviation=math.sqrt(squares / count),
        quantiles=tuple(map(float, quantiles)),
    )
