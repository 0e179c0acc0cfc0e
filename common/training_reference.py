"""What the clips of a training look like and are answered, for a server to compare its songs with.

`reference` in `model_info.json`. There is nothing of a single clip in it: bins and counts alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import divergence, labels, picture_statistics
from common.config import config_of, misfit
from common.errors import UserFacingError, require

# Measured of each clip: the statistics of its picture, and the mean label under the answer.
STATISTICS = (*picture_statistics.NAMES, "expected_class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many clips lie in each bin.

    Attributes:
        edges: between the bins, rising: the tenths of what was counted. A value at an edge is in
            the bin below it.
        counts: one more than there are edges.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> "Histogram":
        """Counts finite values [clips] in their own tenths."""
        edges = divergence.tenths(values)
        counts = np.bincount(divergence.binned(values, edges), minlength=len(edges) + 1)
        return cls(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingReference:
    """Statistics of training clips, and the model's answers about clips it was not trained on.

    Attributes:
        level, contrast, brightness, motion: of pictures of training clips, see
            `picture_statistics`.
        expected_class: mean label under the answer to the sound alone, 0 to classes − 1, of clips
            for validation and test; of training clips where there are no others.
        labels: how many of these are answered with each class.
    """

    level: Histogram
    contrast: Histogram
    brightness: Histogram
    motion: Histogram
    expected_class: Histogram
    labels: tuple[int, ...]

    @classmethod
    def of(
        cls, pictures: Mapping[str, NDArray[np.floating]], probabilities: NDArray[np.floating]
    ) -> "TrainingReference":
        """Counts what was measured.

        Args:
            pictures: {statistic: [training clips]}.
            probabilities: of the answers, [other clips, classes].
        """
        histograms = {name: Histogram.of(values) for name, values in pictures.items()}
        classes = probabilities.shape[1]
        predicted = np.bincount(probabilities.argmax(axis=1), minlength=classes)
        return cls(
            **histograms,
            expected_class=Histogram.of(labels.expected_class(probabilities)),
            labels=tuple(predicted.tolist()),
        )

    @classmethod
    def from_dict(cls, values: Any, *, num_classes: int) -> "TrainingReference":
        """Takes the plain values of `model_info.json`; UserFacingError where they are others."""
        require(isinstance(values, dict), f"reference is {values!r:.100}; it is an object")
        for name in STATISTICS:
            each = values.get(name)
            require(isinstance(each, dict), f"reference.{name} is {each!r:.100}; it is an object")
        reference = config_of(cls, values, name="reference")
        if wrong := misfit(reference, cls, name="reference"):
            raise UserFacingError(f"{wrong}: of another type than expected")
        for name in STATISTICS:
            histogram: Histogram = getattr(reference, name)
            require(
                list(histogram.edges) == sorted(set(histogram.edges))
                and len(histogram.counts) == len(histogram.edges) + 1
                and sum(histogram.counts) > 0,
                f"reference.{name}: not rising edges and a count for each bin",
            )
        require(
            len(reference.labels) == num_classes and sum(reference.labels) > 0,
            f"reference.labels: not the counts of {num_classes} classes",
        )
        return reference

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Each of `STATISTICS`."""
        return {name: getattr(self, name) for name in STATISTICS}
