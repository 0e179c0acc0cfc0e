"""What a record carries beside its picture, as numbers that a network takes, in the graph.

The reader and the export call the same encoder, so that both give a network the same numbers. Each
input is a stretch of one vector: zeros where it is unknown, and else a 1 and what it says.

- a category: a place for each value that the training split has; one that it has not is unknown.
- a number: where it lies between quantiles of the training split (piecewise-linear encoding:
  Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022).
- a text: which of the training split's most frequent words are in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.inputs import (
    HISTORIES,
    Inputs,
    InputStatistics,
    NumberStatistics,
    category_feature,
    number_feature,
    text_feature,
)
from trainer.network_config import FusionConfig, NetworkConfig

# Of the most frequent ones, so that a column of names does not become a list of them all.
MAX_VALUES = 256
MAX_TOKENS = 1024
# How many tracks the mean over all artists or albums counts for beside those of one.
_PRIOR_TRACKS = 0.5
# Every second of the quantiles is an edge.
_QUANTILE_STEP = 2


class InputEncoder(tf.Module):
    """Turns the named inputs of a batch into one vector a record.

    Args:
        inputs: that a network takes; the harmony and the rhythm, which are pictures, are no part of
            the vector.
        statistics: of the training split, with a vocabulary or quantiles for each.

    Raises:
        UserFacingError: the statistics lack an input.
    """

    def __init__(self, inputs: Inputs, statistics: InputStatistics):
        super().__init__(name="input_encoder")
        vocabularies, edges, tokens = {}, {}, {}
        for name, feature in inputs.category_features.items():
            values = statistics.categories.get(name)
            if values is None:
                raise UserFacingError(f"statistics.categories: the dataset has no {name}")
            vocabularies[feature] = list(values[:MAX_VALUES])
        for name, feature in inputs.number_features.items():
            number = statistics.numbers.get(name)
            if number is None:
                raise UserFacingError(f"statistics.numbers: the dataset has no {name}")
            edges[feature] = edges_of(number)
        for name, feature in inputs.text_features.items():
            words = statistics.texts.get(name)
            if words is None:
                raise UserFacingError(f"statistics.texts: the dataset has no {name}")
            tokens[feature] = words[:MAX_TOKENS]
        numbers = [number_feature(name) for name in inputs.numbers]
        widths = {feature: 1 + len(values) for feature, values in vocabularies.items()}
        widths |= {feature: max(1, len(edges[feature])) for feature in numbers}
        for history, features in inputs.histories.items():
            tracks, mean = (max(1, len(edges[feature])) for feature in features)
            widths[history] = tracks + 2 * mean + 1
        widths |= {feature: 1 + len(words) for feature, words in tokens.items()}
        self._inputs = inputs
        self._overall = {
            history: statistics.numbers[mean].mean
            for history, (_, mean) in inputs.histories.items()
        }
        self._words = tokens
        self._vocabularies = vocabularies
        self._numbers = numbers
        self._edges = edges
        self._tables = {feature: table_of(words) for feature, words in tokens.items()}
        self._widths = widths  # of the stretch of each input, in order

    @property
    def size(self) -> int:
        """How long the vector is."""
        return sum(self._widths.values())

    @property
    def stretches(self) -> dict[str, slice]:
        """{input: which of the vector's places are its}, in order.

        An input has the name of its feature in the record, and each history is one.
        """
        ends = np.cumsum([0, *self._widths.values()]).tolist()
        return {
            name: slice(begin, end)
            for name, begin, end in zip(self._widths, ends[:-1], ends[1:], strict=True)
        }

    @property
    def known(self) -> dict[str, list[Any]]:
        """{input: the values, edges or words that its places stand for}, plain values."""
        edges: dict[str, list[Any]] = {name: self._edges[name].tolist() for name in self._numbers}
        for history, features in self._inputs.histories.items():
            of_others = [self._edges[feature].tolist() for feature in features]
            edges[history] = [*of_others, self._overall[history]]
        words = {name: list(values) for name, values in self._words.items()}
        return {**self._vocabularies, **edges, **words}

    @property
    def groups(self) -> np.ndarray:
        """Which input, counted from 0, each of the vector's places belongs to: int32 [size]."""
        return np.repeat(np.arange(len(self._widths), dtype=np.int32), list(self._widths.values()))

    def rates(self, by_name: Sequence[tuple[str, float]]) -> tuple[float, ...]:
        """A rate for each input, in the order of `groups`.

        Args:
            by_name: (name, rate) pairs: an input's feature or its name without its kind, and
                `others`, 0 if it is missing. Names that are no inputs count for nothing.
        """
        rates = dict(by_name)
        others = rates.get("others", 0.0)
        return tuple(
            rates.get(feature, rates.get(feature.rpartition("/")[2], others))
            for feature in self._widths
        )

    @property
    def dtypes(self) -> dict[str, tf.DType]:
        """{feature of the record: dtype} of what is encoded: strings, and float32 for numbers."""
        inputs = self._inputs
        return {
            **dict.fromkeys(inputs.category_features.values(), tf.string),
            **dict.fromkeys(inputs.number_features.values(), tf.float32),
            **dict.fromkeys(inputs.text_features.values(), tf.string),
        }

    def unknown(self, batch_size: tf.Tensor) -> dict[str, tf.Tensor]:
        """What stands for an unknown value of each input: an empty string, or not a number."""
        return {
            name: tf.fill([batch_size], "" if dtype == tf.string else float("nan"))
            for name, dtype in self.dtypes.items()
        }

    def __call__(self, values: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Encodes a batch.

        Args:
            values: {feature: string or float32 [batch]}, see `dtypes`; an empty string and a number
                that is not finite are unknown.

        Returns:
            float32 [batch, size].
        """
        parts = []
        for name, vocabulary in self._vocabularies.items():
            parts.append(one_of(values[name], vocabulary))
        for name in self._numbers:
            parts.append(piecewise_linear(values[name], self._edges[name]))
        for history, (tracks, mean) in self._inputs.histories.items():
            parts.append(self._history(history, values[tracks], values[mean]))
        for name, table in self._tables.items():
            parts.append(words_in(values[name], table, self._widths[name] - 1))
        return tf.ensure_shape(tf.concat(parts, axis=1), [None, self.size])

    def _history(self, history: str, tracks: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
        """Other tracks; their mean also drawn towards that of all where they are few.

        An artist or album of which training has no other track is unknown.
        """
        known = tf.math.is_finite(tracks) & tf.math.is_finite(mean) & (tracks > 0)
        unknown = tf.fill(tf.shape(mean), np.float32("nan"))
        count = tf.where(known, tracks, 1.0)
        overall = np.float32(self._overall[history])
        drawn = (count * tf.where(known, mean, 0.0) + _PRIOR_TRACKS * overall) / (
            count + _PRIOR_TRACKS
        )
        tracks_edges, edges = (self._edges[feature] for feature in HISTORIES[history])
        return tf.concat(
            [
                piecewise_linear(tf.where(known, tracks, unknown), tracks_edges),
                piecewise_linear(tf.where(known, mean, unknown), edges),
                piecewise_linear(tf.where(known, drawn, unknown), edges),
                tf.where(known, drawn - overall, 0.0)[:, tf.newaxis],
            ],
            axis=1,
        )


def inputs_of(config: NetworkConfig, info: DatasetInfo) -> Inputs:
    """What a network of this config takes from the records of a dataset, beside their pictures.

    Raises:
        UserFacingError: the dataset does not have an input that the config names.
    """
    if not isinstance(config, FusionConfig):
        return Inputs()
    there = info.config.inputs
    if not config.inputs:
        return there
    kinds = {
        "categories": (there.categories, category_feature),
        "numbers": (there.numbers, number_feature),
        "texts": (there.texts, text_feature),
    }
    flags = [flag for flag in (*HISTORIES, "chroma", "tempo") if getattr(there, flag)]
    possible = [feature(name) for names, feature in kinds.values() for name in names] + flags
    plain = {name for names, _ in kinds.values() for name in names}
    for name in config.inputs:
        if name not in possible and name not in plain:
            raise UserFacingError(
                f"config.network.inputs: the dataset has no {name}; it has "
                f"{', '.join(possible) or 'nothing beside the pictures'}"
            )
    chosen: dict[str, Any] = {
        kind: tuple(
            name for name in names if name in config.inputs or feature(name) in config.inputs
        )
        for kind, (names, feature) in kinds.items()
    }
    return Inputs(**(chosen | {flag: flag in config.inputs for flag in flags}))


def encoder_of(inputs: Inputs, info: DatasetInfo) -> InputEncoder | None:
    """The encoder of what a network takes, None where that is heard: pictures, chroma, tempo.

    Raises:
        UserFacingError: the dataset has no statistics, or not of each.
    """
    if inputs == Inputs():
        return None
    if info.statistics is None:
        raise UserFacingError(
            "config.network.inputs: the dataset_info.json has no statistics; build the dataset "
            "again with this version"
        )
    encoder = InputEncoder(inputs, info.statistics)
    return encoder if encoder.size else None


def edges_of(statistics: NumberStatistics) -> np.ndarray:
    """The different ones of the quantiles between which a number is placed, rising, float32."""
    if not statistics.count:
        return np.zeros(0, np.float32)
    return np.unique(np.array(statistics.quantiles[::_QUANTILE_STEP], np.float32))


def one_of(values: tf.Tensor, vocabulary: list[str]) -> tf.Tensor:
    """Which of a vocabulary strings [batch] are: float32 [batch, 1 + values], zeros for another."""
    if not vocabulary:
        return tf.zeros([tf.size(values), 1])
    same = tf.cast(values[:, tf.newaxis] == tf.constant(vocabulary)[tf.newaxis], tf.float32)
    return tf.concat([tf.reduce_max(same, axis=1, keepdims=True), same], axis=1)


def piecewise_linear(values: tf.Tensor, edges: np.ndarray) -> tf.Tensor:
    """Where numbers [batch] lie between edges: float32 [batch, max(1, edges)].

    After the 1 that says it is known, of each interval −1 below it, 1 above it, and the straight
    line between.
    """
    known = tf.math.is_finite(values)[:, tf.newaxis]
    flag = tf.cast(known, tf.float32)
    if len(edges) < 2:
        return flag
    low, high = edges[:-1], edges[1:]
    safe = tf.where(known, values[:, tf.newaxis], edges[0])
    within = tf.clip_by_value((safe - low) / (high - low), 0.0, 1.0)
    return tf.concat([flag, flag * (2.0 * within - 1.0)], axis=1)


def table_of(tokens: tuple[str, ...]) -> tf.lookup.StaticHashTable:
    """{token: its index}, −1 for any other."""
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(tokens), tf.string), tf.range(len(tokens), dtype=tf.int64)
        ),
        default_value=-1,
    )


def words_in(texts: tf.Tensor, table: tf.lookup.StaticHashTable, size: int) -> tf.Tensor:
    """Which of a table's words are in strings [batch]: float32 [batch, 1 + size].

    Tokens are those of `common.inputs.tokens`. After the 1 that says that there are any, the words
    that are there share a length of 2, so that a long text does not outshout a short one.
    """
    spaced = tf.strings.regex_replace(tf.strings.lower(texts, encoding="utf-8"), r"[^\pL\pN]+", " ")
    words = tf.strings.split(spaced)
    ids = table.lookup(words.flat_values)
    rows = words.value_rowids()
    batch_size = tf.size(texts, out_type=tf.int64)
    some = tf.cast(words.row_lengths() > 0, tf.float32)[:, tf.newaxis]
    places = tf.boolean_mask(tf.stack([rows, ids], axis=1), ids >= 0)
    found = tf.tensor_scatter_nd_max(
        tf.zeros(tf.stack([batch_size, tf.constant(size, tf.int64)])),
        places,
        tf.ones(tf.shape(places)[:1]),
    )
    number = tf.reduce_sum(found, axis=1, keepdims=True)
    return tf.concat([some, 2.0 * found / tf.sqrt(tf.maximum(number, 1.0))], axis=1)
