"""What the gate has found, for a program (`gate.json`) and for a person (a table, `gate.html`)."""

import dataclasses
from typing import Any

from common import tables
from common.printable import printable
from trainer.evaluation import metrics, pages
from trainer.evaluation.comparison import (
    MEASURES,
    MIN_ARTISTS_OF_A_PART,
    Comparison,
    Difference,
    Margins,
    Verdict,
)

FORMAT_VERSION = 1
JSON_FILE, PAGE_FILE = "gate.json", "gate.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """A person's decision to release what the gate refuses.

    Attributes:
        reason: in words.
        by: who the person is.
        at: when, as RFC 3339.
    """

    reason: str
    by: str
    at: str

    def in_words(self) -> str:
        return f"{printable(self.reason)} ({printable(self.by)}, {self.at})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateReport:
    """What was compared, and what came of it.

    Attributes:
        champion, challenger, dataset: what these are, as `gate.json` has it; each has its `path`.
        split: the split of the dataset.
        margins: by how much the challenger may be worse.
        verdict: of the gate.
        notes: what a person should know about the comparison.
        override: why a challenger that is refused would be released all the same; None where
            nobody said so.
    """

    champion: dict[str, Any]
    challenger: dict[str, Any]
    dataset: dict[str, Any]
    split: str
    margins: Margins
    verdict: Verdict
    notes: tuple[str, ...] = ()
    override: Override | None = None

    @property
    def would_be_released(self) -> bool:
        return self.verdict.passes or self.override is not None

    @property
    def decision(self) -> str:
        """The outcome, as a line."""
        if self.verdict.passes:
            return f"passed: better by {', '.join(self.verdict.better)}"
        if self.override is not None:
            return f"refused, and overridden: {self.override.in_words()}"
        return "refused"


def to_dict(report: GateReport) -> dict[str, Any]:
    """Returns the values of `gate.json`."""
    verdict = report.verdict
    return {
        "format_version": FORMAT_VERSION,
        "champion": report.champion,
        "challenger": report.challenger,
        "dataset": report.dataset | {"split": report.split},
        "margins": dataclasses.asdict(report.margins),
        "passes": verdict.passes,
        "override": None if report.override is None else dataclasses.asdict(report.override),
        "would_be_released": report.would_be_released,
        "reasons": list(verdict.reasons),
        "better": list(verdict.better),
        "notes": list(report.notes),
        "comparisons": [_plain(each) for each in verdict.comparisons],
    }


def table(report: GateReport) -> str:
    """Formats the comparison as lines of text."""
    rows = [_HEADER, *_rows(report.verdict)]
    lines = [
        f"champion    {report.champion['path']}",
        f"challenger  {report.challenger['path']}",
        *(f"  {line}" for line in tables.aligned(rows)),
        *(f"note: {note}" for note in report.notes),
        *(f"refused: {reason}" for reason in report.verdict.reasons),
        report.decision,
    ]
    return "\n".join(lines)


def page(report: GateReport) -> str:
    """Renders the comparison as an HTML document."""
    return pages.render(
        "gate.html",
        report=report,
        header=_HEADER,
        rows=_rows(report.verdict),
        margins=[
            (words, f"{getattr(report.margins, measure):g}") for measure, words in MEASURES.items()
        ],
        confidences=_confidences(report.verdict),
        least_clips=metrics.MIN_CLIPS_OF_A_GENRE,
        least_artists=MIN_ARTISTS_OF_A_PART,
        few_artists=metrics.FEW_GROUPS,
    )


_HEADER = (
    "",
    "clips",
    "artists",
    "measure",
    "champion",
    "challenger",
    "difference",
    "interval",
    "",
)


def _rows(verdict: Verdict) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in verdict.comparisons:
        counts = (f"{each.num_examples:,}", f"{each.num_artists:,}")
        for measure, words in MEASURES.items():
            found: Difference = getattr(each, measure)
            rows.append(
                (
                    each.title,
                    *counts,
                    words,
                    f"{found.champion:.3f}",
                    f"{found.challenger:.3f}",
                    f"{found.difference:+.3f}",
                    "{:+.3f} to {:+.3f}".format(*found.interval),
                    _in_words(each, measure),
                )
            )
    return rows


def _in_words(found: Comparison, measure: str) -> str:
    if found.confidence is None:
        return "too few to judge"
    _, low, high = found.loss(measure)
    if low > 0:
        return "worse"
    return "better" if high < 0 else "not told apart"


def _confidences(verdict: Verdict) -> list[str]:
    """The confidence of the intervals of the whole sets, and of those of the genres."""
    words = {"split": "the whole sets", "genre": "the genres"}
    found = {each.part: each.confidence for each in verdict.comparisons}
    return [
        f"{100 * confidence:.4g} % for {name}"
        for part, name in words.items()
        if (confidence := found.get(part)) is not None
    ]


def _plain(found: Comparison) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    for measure in MEASURES:
        each: Difference = getattr(found, measure)
        values[measure] = {
            "champion": each.champion,
            "challenger": each.challenger,
            "difference": round(each.difference, 9),
            "interval": list(each.interval),
            "seen": _in_words(found, measure),
        }
    return values
