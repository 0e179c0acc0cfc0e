"""Whether new clips are like those that were trained on: pure functions of what both hold.

The population stability index of numbers, over tenths of the old ones, and the Jensen-Shannon
divergence of categories. Of two samples of the same clips neither is 0: n and m clips in B bins
give an index of about (1/n + 1/m) · χ² with B − 1 degrees of freedom (B. Yurdakul, Statistical
Properties of Population Stability Index, 2018), and a divergence of an eighth of that. So an alarm
needs more than its threshold, and more than chance gives once in 10,000 times. For n and m the
artists are counted, since the clips of one are alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# With fewer artists on either side nothing is judged.
MIN_ARTISTS = 20

_BINS = 10
_MOST_VALUES = 32
_BY_CHANCE = 1e-4


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
    known = old[np.isfinite(old)]
    edges = np.zeros(0)
    if len(known):
        edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))

    def counts(values: NDArray[Any]) -> NDArray[Any]:
        places = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), -1)
        return np.bincount(places + 1, minlength=len(edges) + 2)

    value, bins = _psi(counts(old), counts(new))
    return Drift(
        what=what,
        name=name,
        measure="psi",
        value=value,
        limit=_limit(threshold, bins, artists),
    )


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
    value, bins = _js(old, new)
    return Drift(
        what=what,
        name=name,
        measure="js",
        value=value,
        limit=_limit(threshold, bins, artists, per_psi=1 / 8),
    )


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
    limit = max(threshold, float(stats.norm.isf(_BY_CHANCE) * deviation))
    return Drift(
        what="accuracy",
        name="accuracy",
        measure="drop",
        value=round(mean - now[0], 9),
        limit=None if min(count, now[1]) < MIN_ARTISTS else limit,
    )


def _limit(
    threshold: float, bins: int, artists: tuple[int, int], *, per_psi: float = 1.0
) -> float | None:
    if min(artists) < MIN_ARTISTS:
        return None
    by_chance = sum(1 / count for count in artists) * stats.chi2.isf(_BY_CHANCE, max(1, bins - 1))
    return max(threshold, float(by_chance) * per_psi)


def _psi(old: NDArray[Any], new: NDArray[Any]) -> tuple[float, int]:
    """Returns the index and how many bins have any; half a clip is added to each of these."""
    some = (old + new) > 0
    bins = int(some.sum())
    p, q = ((part[some] + 0.5) / (part.sum() + 0.5 * bins) for part in (old, new))
    return round(float(((q - p) * np.log(q / p)).sum()), 9), bins


def _js(old: NDArray[Any], new: NDArray[Any]) -> tuple[float, int]:
    """Returns the divergence in nats, 0 to ln 2, and how many bins have any."""
    some = (old + new) > 0
    p, q = (part[some] / max(1, part.sum()) for part in (old, new))
    mean = (p + q) / 2

    def to_mean(part: NDArray[Any]) -> float:
        there = part > 0
        return float((part[there] * np.log(part[there] / mean[there])).sum())

    return round((to_mean(p) + to_mean(q)) / 2, 9), int(some.sum())
