"""The class of a track by its popularity, such as its listens, and the thresholds between them."""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserFacingError


def label_of(value: float, thresholds: tuple[float, ...]) -> int:
    """Returns the class of a number of listens: how many of the rising thresholds it reaches.

    It is −1 of a number below 0, which is how one that is unknown is written.
    """
    return bisect.bisect_right(thresholds, value) if value >= 0 else -1


def expected_class(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the mean label under the prediction, 0 to classes − 1, of [examples, classes]."""
    return np.asarray(probabilities.astype(np.float64) @ np.arange(probabilities.shape[1]))


def thresholds_at(
    counts: list[tuple[float, int]], *, quantiles: tuple[float, ...]
) -> tuple[float, ...]:
    """Returns the thresholds that put the shares `quantiles` of all tracks below them.

    Each is the first number of listens that is heard by none of the lowest share, so equal
    numbers are never divided and a share may be a little smaller than asked for.

    Args:
        counts: (listens, how many tracks have them), each number of listens once.
        quantiles: rising, between 0 and 1.

    Raises:
        UserFacingError: the listens are too much alike for so many classes.
    """
    counts = sorted(counts)
    total = sum(count for _, count in counts)
    cumulative = list(itertools.accumulate(count for _, count in counts))
    found = tuple(counts[bisect.bisect_right(cumulative, q * total)][0] for q in quantiles)
    if len(set(found)) < len(found) or found[0] == counts[0][0]:
        raise UserFacingError(f"config.quantiles: {quantiles} fall on the same listens, {found}")
    return found


def class_ranges(
    class_names: Sequence[str], thresholds: Sequence[float], *, popularity: str = "listens"
) -> list[str]:
    """Returns each class in words, such as `medium: 1,000 to 3,499 listens`."""
    lowest, *others, highest = class_names
    unit = unit_of(popularity)
    if popularity == "rank_among_contemporaries":
        return [
            f"{lowest}: under {thresholds[0]:g} {unit}",
            *(
                f"{name}: {low:g} to under {high:g} {unit}"
                for name, (low, high) in zip(others, itertools.pairwise(thresholds), strict=True)
            ),
            f"{highest}: {thresholds[-1]:g} {unit} or more",
        ]
    return [
        f"{lowest}: under {in_digits(thresholds[0])} {unit}",
        *(
            f"{name}: {in_digits(low)} to {in_digits(high - 1)} {unit}"
            for name, (low, high) in zip(others, itertools.pairwise(thresholds), strict=True)
        ),
        f"{highest}: {in_digits(thresholds[-1])} {unit} or more",
    ]


def in_digits(threshold: float) -> str:
    """Returns a threshold as people write it: `3,500`, also of 3500.0, as at a quantile."""
    return f"{int(threshold) if threshold == int(threshold) else threshold:,}"


def unit_of(popularity: str) -> str:
    """Returns what a `config.popularity` counts, in words."""
    return {
        "listens_per_year": "listens a year",
        "rank_among_contemporaries": "of its contemporaries",
    }.get(popularity, popularity)
