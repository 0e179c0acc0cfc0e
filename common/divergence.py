"""How far two samples are apart: the population stability index and Jensen-Shannon's divergence.

Of two samples of the same clips neither is 0: n and m clips in B bins give an index of about
(1/n + 1/m) · χ² with B − 1 degrees of freedom (B. Yurdakul, Statistical Properties of Population
Stability Index, 2018), and a divergence of an eighth of that. So an alarm needs more than its
threshold, and more than chance gives once in 10,000 times.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

# Above these samples differ by more than taste, as it is commonly put for the index.
PSI_THRESHOLD, JS_THRESHOLD = 0.25, 0.05
# How often chance alone may exceed a limit.
BY_CHANCE = 1e-4

_BINS = 10
_JS_PER_PSI = 1 / 8


def tenths(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the edges between the tenths of finite values, rising; fewer where values repeat."""
    if not len(values):
        return np.zeros(0)
    edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.unique(edges)


def binned(values: NDArray[np.floating], edges: NDArray[np.floating]) -> NDArray[np.int64]:
    """Returns in which bin each value lies, 0 to len(edges); one at an edge, in the lower bin."""
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def psi(old: NDArray[np.integer], new: NDArray[np.integer]) -> tuple[float, int]:
    """Returns the index of counts [bins], and how many bins have any.

    Half a clip is added to each of these, since an empty one makes the index infinite.
    """
    some = (old + new) > 0
    bins = int(some.sum())
    p, q = ((part[some] + 0.5) / (part.sum() + 0.5 * bins) for part in (old, new))
    return round(float(((q - p) * np.log(q / p)).sum()), 9), bins


def jensen_shannon(old: NDArray[np.integer], new: NDArray[np.integer]) -> tuple[float, int]:
    """Returns the divergence of counts [bins] in nats, 0 to ln 2, and how many bins have any."""
    some = (old + new) > 0
    p, q = (part[some] / max(1, part.sum()) for part in (old, new))
    mean = (p + q) / 2

    def to_mean(part: NDArray[np.floating]) -> float:
        there = part > 0
        return float((part[there] * np.log(part[there] / mean[there])).sum())

    return round((to_mean(p) + to_mean(q)) / 2, 9), int(some.sum())


def psi_limit(threshold: float, *, bins: int, sizes: tuple[int, int]) -> float:
    """Returns what an index of so many bins has to exceed for an alarm.

    Args:
        threshold: the least limit.
        bins: how many have any clips.
        sizes: of the two samples, in clips or whatever else is independent of one another.
    """
    chi2 = float(special.chdtri(max(1, bins - 1), BY_CHANCE))
    return max(threshold, sum(1 / size for size in sizes) * chi2)


def jensen_shannon_limit(threshold: float, *, bins: int, sizes: tuple[int, int]) -> float:
    """Returns what a divergence has to exceed for an alarm; see `psi_limit`."""
    by_chance = _JS_PER_PSI * psi_limit(0.0, bins=bins, sizes=sizes)
    return max(threshold, by_chance)
