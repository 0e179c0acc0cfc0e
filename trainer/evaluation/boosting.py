"""What is known of a track without its sound, by gradient boosting: a baseline for a network.

Trees on columns of values are what a network on the same columns has to beat (L. Grinsztajn et al.,
"Why do tree-based models still outperform deep learning on typical tabular data?", 2022).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from common.inputs import Inputs

# The library takes 255 values of a category: unknown, and the most frequent ones.
MAX_VALUES = 254


def inputs_without_sound(inputs: Inputs) -> Inputs:
    """The categories, numbers and histories that a network takes.

    Of a network that takes none of them it is what every record has: genre and date of creation.
    Texts are left out, which trees would take as a column for each word.
    """
    if not (inputs.categories or inputs.numbers or inputs.histories):
        return Inputs(categories=("genre",), numbers=("date_created",))
    return dataclasses.replace(inputs, texts=(), chroma=False, tempo=False)


def predict(
    inputs: Inputs,
    training: Mapping[str, NDArray[Any]],
    asked: Mapping[str, NDArray[Any]],
    *,
    num_classes: int,
) -> NDArray[np.float64]:
    """Probabilities [asked, classes] by a model of the training split.

    Args:
        inputs: see `inputs_without_sound`.
        training, asked: {feature of the record: [records]}: bytes, empty where unknown; numbers,
            NaN or, of integers, below 0 where unknown; and of training `label`, int.
        num_classes: how many classes there are.
    """
    vocabularies = [
        _codes(training[feature].tolist()) for feature in inputs.category_features.values()
    ]

    def table(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        coded = [
            [codes.get(value, codes[b""]) for value in columns[feature].tolist()]
            for feature, codes in zip(inputs.category_features.values(), vocabularies, strict=True)
        ]
        numbers = [_known(columns[feature]) for feature in inputs.number_features.values()]
        return np.asarray(np.stack([*coded, *numbers], axis=1), np.float64)

    return boosted(
        table(training),
        training["label"],
        table(asked),
        num_classes=num_classes,
        categorical=range(len(vocabularies)),
    )


def boosted(
    features: NDArray[Any],
    label: NDArray[Any],
    asked: NDArray[Any],
    *,
    num_classes: int,
    categorical: Sequence[int] = (),
    max_iter: int = 150,
    max_leaf_nodes: int = 15,
) -> NDArray[np.float64]:
    """Probabilities [asked, classes] by gradient boosting, the same each time.

    The settings were chosen by cross-validation on real clips.

    Args:
        features, asked: float [records, features], NaN where unknown.
        label: int [records].
        num_classes: how many classes there are; one that no label is has a probability of 0.
        categorical: which features are codes of a category, from 0.
        max_iter: how many trees a class has.
        max_leaf_nodes: of a tree.
    """
    probabilities = np.zeros([len(asked), num_classes])
    there = np.unique(label)
    if len(there) == 1:
        probabilities[:, there] = 1
        return probabilities
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=max_iter,
        max_leaf_nodes=max_leaf_nodes,
        l2_regularization=1.0,
        min_samples_leaf=20,
        early_stopping=False,
        categorical_features=list(categorical) or None,
        random_state=0,
    )
    # The library takes no column in which nothing is known.
    is_empty = np.isnan(features).all(axis=0)
    features, asked = np.where(is_empty, 0, features), np.where(is_empty, 0, asked)
    # Several threads wait for one another in loops: on a busy machine twenty times as long as one.
    with threadpool_limits(1, user_api="openmp"):
        model.fit(features, label)
        probabilities[:, model.classes_] = model.predict_proba(asked)
    return probabilities


def _codes(values: Sequence[bytes]) -> dict[bytes, int]:
    """{value: code}, unknown first, which is a value of its own, then by frequency."""
    counts = Counter(value for value in values if value)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return {value: code for code, value in enumerate([b"", *ranked[:MAX_VALUES]])}


def _known(values: NDArray[Any]) -> NDArray[np.float64]:
    """A column of numbers, NaN where unknown."""
    numbers = values.astype(np.float64)
    unknown = numbers < 0 if values.dtype.kind == "i" else ~np.isfinite(numbers)
    return np.where(unknown, np.nan, numbers)
