"""How the songs that a version answers compare with the clips that it was trained on.

Counted are bins and labels, never a value, and what is shown changes only as every `STEP` songs
have come: two looks at it tell nothing of a single song.
"""

import collections
import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common import divergence, labels, picture_statistics
from common.training_reference import STATISTICS, Histogram, TrainingReference

# Songs that the divergences are measured over: the last so many.
WINDOW = 1_000
# With fewer songs these are mostly chance.
MIN_SONGS = 200
# What is shown changes each so many songs.
STEP = 20

LABEL = "label"


class Drift(NamedTuple):
    """How far the last songs are from the training.

    Attributes:
        statistic: one of STATISTICS, or `label`.
        measure: `psi`, or for labels `js`, in nats; see `common.divergence`.
        value: 0 where nothing differs.
        limit: what the value has to exceed for an alarm.
    """

    statistic: str
    measure: str
    value: float
    limit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """What may be known of the songs of a version.

    Attributes:
        counts: {statistic: songs in each bin of the training's histogram, int [bins]}, of all songs
            since the version was loaded.
        labels: of these, how many are answered with each class, int [classes].
        window: how many of the last songs `drifts` is told from.
        drifts: of each statistic and of the label; none while these are fewer than MIN_SONGS.
    """

    counts: dict[str, NDArray[np.int64]]
    labels: NDArray[np.int64]
    window: int
    drifts: tuple[Drift, ...]


class SongStatistics:
    """Counts the songs of a version in the bins of its training. For one thread.

    Args:
        reference: of the training.
    """

    def __init__(self, reference: TrainingReference):
        self.reference = reference
        self._edges = {
            name: np.array(histogram.edges) for name, histogram in reference.histograms.items()
        }
        self._sizes = [len(edges) + 1 for edges in self._edges.values()] + [len(reference.labels)]
        self._all = self._no_counts()
        self._recent = self._no_counts()
        # Of each of the last songs, the bin of each statistic and last the label.
        self._window: collections.deque[list[int]] = collections.deque()
        self._since_shown = 0
        self.shown = self._to_show()

    def _no_counts(self) -> list[NDArray[np.int64]]:
        return [np.zeros(size, np.int64) for size in self._sizes]

    def add(self, picture: NDArray[np.uint8], probabilities: NDArray[np.floating]) -> None:
        """Counts a song.

        Args:
            picture: of its middle, uint8 [height, width].
            probabilities: of the classes [classes], by its sound alone.
        """
        values = {
            name: value[0]
            for name, value in picture_statistics.of_pictures(picture[np.newaxis]).items()
        }
        values["expected_class"] = labels.expected_class(probabilities[np.newaxis])[0]
        places = [
            *(int(divergence.binned(values[name], edges)) for name, edges in self._edges.items()),
            int(probabilities.argmax()),
        ]
        self._window.append(places)
        for counts, recent, place in zip(self._all, self._recent, places, strict=True):
            counts[place] += 1
            recent[place] += 1
        if len(self._window) > WINDOW:
            for recent, place in zip(self._recent, self._window.popleft(), strict=True):
                recent[place] -= 1
        self._since_shown += 1
        if self._since_shown == STEP:
            self._since_shown = 0
            self.shown = self._to_show()

    def _to_show(self) -> Shown:
        *counts, answered = [each.copy() for each in self._all]
        enough = len(self._window) >= MIN_SONGS
        return Shown(
            counts=dict(zip(STATISTICS, counts, strict=True)),
            labels=answered,
            window=len(self._window),
            drifts=self._drifts() if enough else (),
        )

    def _drifts(self) -> tuple[Drift, ...]:
        *recent, answered = self._recent
        found = [
            _of_histogram(name, histogram, counts)
            for (name, histogram), counts in zip(
                self.reference.histograms.items(), recent, strict=True
            )
        ]
        old = np.array(self.reference.labels)
        value, bins = divergence.jensen_shannon(old, answered)
        limit = divergence.jensen_shannon_limit(
            divergence.JS_THRESHOLD, bins=bins, sizes=(int(old.sum()), int(answered.sum()))
        )
        return (*found, Drift(LABEL, "js", value, limit))


def _of_histogram(name: str, histogram: Histogram, counts: NDArray[np.int64]) -> Drift:
    old = np.array(histogram.counts)
    value, bins = divergence.psi(old, counts)
    limit = divergence.psi_limit(
        divergence.PSI_THRESHOLD, bins=bins, sizes=(int(old.sum()), int(counts.sum()))
    )
    return Drift(name, "psi", value, limit)
