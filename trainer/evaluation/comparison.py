"""Whether a challenger may take the champion's place: pure functions of what both answer.

Both answer the same clips. The artists of these are drawn with replacement, each with all clips,
and both models are scored on each draw, so that what is hard about an artist is hard for both
(paired cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997,
section 3.8). An interval of the difference decides:

- On the split the challenger has to show that it is not worse by more than the margin: its whole
  interval lies above that.
- On the newest generation and on each genre, which have few clips, it must not be shown to be
  worse by more than the margin: some of its interval lies above that.
- On the split or the newest generation it has to be better by log loss or macro-F1: the whole
  interval lies on the better side of 0.

Where several intervals are looked at, each is wider, so that together they err as often as a single
one of 95 % would (Bonferroni). Of models that are equal one in 40 pairs or fewer is thus released.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import require
from common.printable import printable
from trainer.evaluation import metrics
from trainer.evaluation.metrics import FEW_GROUPS, MIN_CLIPS_OF_A_GENRE
from trainer.evaluation.predictions import Predictions

# In a person's words.
MEASURES = {"log_loss": "log loss", "macro_f1": "macro F1"}

# The newest generation or a genre with fewer artists, or with fewer than MIN_CLIPS_OF_A_GENRE, is
# left alone.
MIN_ARTISTS_OF_A_PART = 5

_DRAWS = 4_000
# All at once would take gigabytes where there are many artists. So few stay in the processor's
# caches, and no threads are woken to multiply them, which take more time than they save.
_NUMBERS_AT_ONCE = 1 << 15
_ERROR = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Margins:
    """By how much a challenger may be worse: in nats, and in macro-F1, 0…1."""

    log_loss: float = 0.02
    macro_f1: float = 0.03

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            require(
                math.isfinite(value) and value >= 0,
                f"--margin_{name}={value:g}: a margin is a number from 0 on",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """What two models score on the same clips.

    Attributes:
        champion, challenger: the score of each.
        interval: (low, high) of the challenger's less the champion's, at the confidence of its
            `Comparison`.
    """

    champion: float
    challenger: float
    interval: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.challenger - self.champion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on some of the clips.

    Attributes:
        part: `split`, `generation` or `genre`.
        name: of that part, such as `test`, `7` or `Rock`.
        num_examples: the clips.
        num_artists: what was drawn; a track of an unknown artist counts as one of its own.
        confidence: of the intervals, such as 0.975; None where there are too few clips or artists
            to judge by, and the intervals are of 95 %.
        log_loss: mean cross-entropy in nats; less is better.
        macro_f1: mean F1 of the classes that there are or that were predicted; more is better.
    """

    part: str
    name: str
    num_examples: int
    num_artists: int
    confidence: float | None
    log_loss: Difference
    macro_f1: Difference

    @property
    def title(self) -> str:
        if self.part == "split":
            return self.name
        return f"{self.part} {printable(self.name)}"

    def loss(self, measure: str) -> tuple[float, float, float]:
        """Returns by how much the challenger is worse by a measure, and low and high of that."""
        found: Difference = getattr(self, measure)
        low, high = found.interval
        if measure == "log_loss":
            return found.difference, low, high
        return -found.difference, -high, -low


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says.

    Attributes:
        passes: whether the challenger may take the champion's place.
        reasons: why not, one line each; () where it passes.
        better: where it is shown to be better, such as `log loss on test`.
        comparisons: the split, then the newest generation if there is one, then the genres.
    """

    passes: bool
    reasons: tuple[str, ...]
    better: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def judge(
    champion: Predictions,
    challenger: Predictions,
    *,
    split: str,
    margins: Margins,
    newest: tuple[int, slice] | None = None,
    seed: int = 0,
) -> Verdict:
    """Judges a challenger by the answers of both models.

    Args:
        champion, challenger: for the same clips in the same order.
        split: the name of what these are.
        margins: by how much the challenger may be worse.
        newest: the newest generation and which of the clips are of it; None where the dataset
            has no other.
        seed: of the draws.
    """
    assert np.array_equal(champion.track_id, challenger.track_id)
    everything = np.ones(champion.num_examples, bool)
    wholes = [("split", split, everything)]
    if newest is not None:
        generation, of_it = newest
        rows = np.zeros_like(everything)
        rows[of_it] = True
        wholes.append(("generation", str(generation), rows))
    genres = [
        ("genre", genre.decode(errors="replace"), champion.genre == genre)
        for genre in np.unique(champion.genre).tolist()
        if genre and _can_be_judged(champion.rows(champion.genre == genre))
    ]
    comparisons = []
    for parts in (wholes, genres):
        judged = [part == "split" or _can_be_judged(champion.rows(rows)) for part, _, rows in parts]
        confidence = 1 - _ERROR / max(1, len(MEASURES) * sum(judged))
        comparisons += [
            _compared(
                champion.rows(rows),
                challenger.rows(rows),
                part=part,
                name=name,
                confidence=confidence if is_judged else None,
                seed=seed,
            )
            for (part, name, rows), is_judged in zip(parts, judged, strict=True)
        ]
    better = tuple(
        f"{words} on {each.title}"
        for each in comparisons
        for measure, words in MEASURES.items()
        if _is_better(each, measure)
    )
    reasons = [line for each in comparisons for line in _faults(each, margins)]
    if not better:
        reasons.append("not shown to be better by log loss or macro F1")
    return Verdict(
        passes=not reasons,
        reasons=tuple(reasons),
        better=better,
        comparisons=tuple(comparisons),
    )


def _can_be_judged(predictions: Predictions) -> bool:
    return (
        predictions.num_examples >= MIN_CLIPS_OF_A_GENRE
        and metrics.num_groups(predictions) >= MIN_ARTISTS_OF_A_PART
    )


def _is_better(found: Comparison, measure: str) -> bool:
    is_whole = found.part != "genre" and found.confidence is not None
    _, _, high = found.loss(measure)
    return is_whole and found.num_artists >= FEW_GROUPS and high < 0


def _faults(found: Comparison, margins: Margins) -> Iterator[str]:
    """Yields what speaks against the challenger in a comparison."""
    if found.confidence is None:
        return
    if found.part == "split" and found.num_artists < FEW_GROUPS:
        yield (
            f"{found.title}: {found.num_artists} artists are too few to tell two models apart; "
            f"{FEW_GROUPS} are needed"
        )
    for measure, words in MEASURES.items():
        margin = getattr(margins, measure)
        loss, low, high = found.loss(measure)
        where = f"{words} on {found.title}"
        if low > margin:
            interval = f"{low:.3f} to {high:.3f}"
            yield f"{where}: worse by {loss:.3f} ({interval}), the margin is {margin:g}"
        elif found.part == "split" and high > margin:
            yield (
                f"{where}: may be worse by {high:.3f}, the margin is {margin:g}; more clips would "
                "tell"
            )


# ---- the bootstrap


def _compared(
    champion: Predictions,
    challenger: Predictions,
    *,
    part: str,
    name: str,
    confidence: float | None,
    seed: int,
) -> Comparison:
    both = (champion, challenger)
    _, group = np.unique(metrics.groups_of(champion), return_inverse=True)
    num_groups = int(group.max()) + 1
    # Whatever is drawn, both scores are functions of sums over the groups.
    sums = np.stack([_sums(each, group, num_groups) for each in both], axis=1)
    tail = (1 - (1 - _ERROR if confidence is None else confidence)) / 2

    def difference(of_draws: NDArray[Any], of_all: NDArray[Any]) -> Difference:
        low, high = np.quantile(of_draws[:, 1] - of_draws[:, 0], [tail, 1 - tail])
        return Difference(
            champion=_rounded(of_all[0]),
            challenger=_rounded(of_all[1]),
            interval=(_rounded(low), _rounded(high)),
        )

    draws = _drawn(sums, seed=seed)
    everything = sums.sum(axis=0)
    return Comparison(
        part=part,
        name=name,
        num_examples=champion.num_examples,
        num_artists=num_groups,
        confidence=confidence,
        log_loss=difference(_log_loss(draws), _log_loss(everything)),
        macro_f1=difference(_macro_f1(draws), _macro_f1(everything)),
    )


def _sums(predictions: Predictions, group: NDArray[Any], num_groups: int) -> NDArray[Any]:
    """Sums over groups, float [groups, 1 + classes²]: the cross-entropies, and the confusion."""
    classes = predictions.probabilities.shape[1]
    sums = np.zeros((num_groups, 1 + classes**2))
    sums[:, 0] = np.bincount(group, metrics.cross_entropies(predictions), num_groups)
    cell = 1 + predictions.label * classes + predictions.predicted
    np.add.at(sums, (group, cell), 1)
    return sums


def _drawn(sums: NDArray[Any], *, seed: int) -> NDArray[Any]:
    """Returns the sums of each draw, [draws, models, …], of those of the groups [groups, …]."""
    num_groups = len(sums)
    rng = np.random.default_rng(seed)
    flat, parts, left = sums.reshape(num_groups, -1), [], _DRAWS
    while left:
        size = min(left, max(1, _NUMBERS_AT_ONCE // num_groups))
        drawn = rng.integers(num_groups, size=(size, num_groups))
        drawn += num_groups * np.arange(size)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=size * num_groups)
        parts.append(times.reshape(size, num_groups).astype(np.float64) @ flat)
        left -= size
    return np.concatenate(parts).reshape(_DRAWS, *sums.shape[1:])


def _rounded(value: float) -> float:
    """Leaves out what depends on the order of additions, so that equal models differ by 0."""
    return round(float(value), 9)


def _log_loss(sums: NDArray[Any]) -> NDArray[Any]:
    """Returns the mean cross-entropy [...] of `_sums` [..., 1 + classes²]."""
    return np.asarray(sums[..., 0] / sums[..., 1:].sum(axis=-1))


def _macro_f1(sums: NDArray[Any]) -> NDArray[Any]:
    """Returns the macro-F1 [...], as in `metrics.Evaluation`, of `_sums` [..., 1 + classes²]."""
    classes = math.isqrt(sums.shape[-1] - 1)
    confusion = sums[..., 1:].reshape(*sums.shape[:-1], classes, classes)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = 2 * right / np.maximum(either, 1)
    return np.asarray(f1.sum(axis=-1) / (either > 0).sum(axis=-1))
