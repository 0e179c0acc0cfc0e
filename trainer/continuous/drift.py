"""Whether new clips are like those that were trained on: pure functions of what both hold.

The population stability index of numbers, over tenths of the old ones, and the Jensen-Shannon
divergence of categories, with limits that chance seldom exceeds: see `common.divergence`. For the
sizes of the samples the artists are counted, since the clips of one are alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common import divergence

# With fewer artists on either side nothing is judged.
MIN_ARTISTS = 20

_MOST_VALUES = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How far something is from what it was.

    Attributes:
        what: `input`, `label`, `prediction` or `accuracy`.
        name: of it, such as `brightness`.
        measure: `psi`, `js` (in nats) or `drop`.
        value: 0 where nothing differs.
        limit: what the value has to exceed for an alarm; None where there are too few to judge by.
    """

    what: str
    name: str
    measure: str
    value: float
    limit: float | None

    @property
    def alarms(self) -> bool:
        return self.limit is not None and self.value > self.limit

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"alarms": self.alarms}

    def in_words(self) -> str:
        return f"{self.what} {self.name} ({self.measure} {self.value:.2f})".replace(
            "accuracy accuracy", "accuracy"
        )


def of_numbers(
    old: NDArray[Any],
    new: NDArray[Any],
    *,
    what: str,
    name: str,
    artists: tuple[int, int],
    threshold: float,
) -> Drift:
    """Compares numbers; those that are not finite are unknown and a bin of their own.

    Args:
        old, new: float [clips].
        what, name: see `Drift`.
        artists: of how many the old and the new ones are.
        threshold: of the index.
    """
    edges = divergence.tenths(old[np.isfinite(old)])

    def counts(values: NDArray[Any]) -> NDArray[Any]:
        places = np.where(np.isfinite(values), divergence.binned(values, edges), -1)
        return np.bincount(places + 1, minlength=len(edges) + 2)

    value, bins = divergence.psi(counts(old), counts(new))
    limit = divergence.psi_limit(threshold, bins=bins, sizes=artists) if _enough(artists) else None
    return Drift(what=what, name=name, measure="psi", value=value, limit=limit)


def of_counts(
    old: NDArray[Any],
    new: NDArray[Any],
    *,
    what: str,
    name: str,
    artists: tuple[int, int],
    threshold: float,
) -> Drift:
    """Compares how many there are of each category, int [categories]; see `of_numbers`."""
    value, bins = divergence.jensen_shannon(old, new)
    limit = None
    if _enough(artists):
        limit = divergence.jensen_shannon_limit(threshold, bins=bins, sizes=artists)
    return Drift(what=what, name=name, measure="js", value=value, limit=limit)


def of_categories(old: NDArray[Any], new: NDArray[Any], **how: Any) -> Drift:
    """Compares categories [clips], the most frequent ones by name and the others together."""
    values, counts = np.unique(old, return_counts=True)
    frequent = values[np.argsort(-counts, kind="stable")][:_MOST_VALUES]

    def counted(found: NDArray[Any]) -> NDArray[Any]:
        each = [int((found == value).sum()) for value in frequent]
        return np.array([*each, len(found) - sum(each)])

    return of_counts(counted(old), counted(new), **how)


def of_accuracy(
    before: Sequence[tuple[float, int]], now: tuple[float, int], *, threshold: float
) -> Drift | None:
    """Compares the accuracy on new clips with that on the generations before, as they were new.

    Args:
        before: (accuracy, artists) of these; of none there is nothing to compare with.
        now: of the new one.
        threshold: of the drop.
    """
    if not before:
        return None
    count = sum(artists for _, artists in before)
    mean = sum(accuracy * artists for accuracy, artists in before) / count
    pooled = (mean * count + now[0] * now[1]) / (count + now[1])
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / now[1]))
    limit = max(threshold, float(stats.norm.isf(divergence.BY_CHANCE) * deviation))
    return Drift(
        what="accuracy",
        name="accuracy",
        measure="drop",
        value=round(mean - now[0], 9),
        limit=None if min(count, now[1]) < MIN_ARTISTS else limit,
    )


def _enough(artists: tuple[int, int]) -> bool:
    return min(artists) >= MIN_ARTISTS
