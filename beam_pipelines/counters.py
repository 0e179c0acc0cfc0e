"""Beam's counters of a job as a table for a person."""

from collections.abc import Iterable, Iterator
from typing import Any

from common import tables


def table(metrics: dict[str, list[Any]]) -> str:
    """Formats what a job counted (`PipelineResult.metrics().query()`) as lines of text."""

    def in_order(found: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        for metric in sorted(found, key=lambda metric: str(metric.key.metric)):
            if metric.key.metric.namespace == "beam":
                continue  # Flink and Prism add what Beam measures of itself
            name = f"{metric.key.metric.namespace}: {metric.key.metric.name}"
            # Some runners count attempts alone.
            yield name, metric.attempted if metric.committed is None else metric.committed

    rows = [(name, f"{value:,}") for name, value in in_order(metrics["counters"])]
    rows += [
        (name, f"{value.mean:.1f} (from {value.min} to {value.max})")
        for name, value in in_order(metrics["distributions"])
    ]
    return "\n".join(tables.aligned(rows))
