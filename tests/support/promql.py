"""What PromQL expressions ask for."""

from typing import Any, NamedTuple

import promql_parser


class Selector(NamedTuple):
    """Asks for the series of a metric, by some of their labels: {label: value or pattern}."""

    metric: str
    labels: dict[str, str]


def selectors(expression: str) -> list[Selector]:
    """Returns what an expression asks for; ValueError where it is none."""
    return _below(promql_parser.parse(expression))


def _below(node: Any) -> list[Selector]:
    if isinstance(node, promql_parser.VectorSelector):
        matchers = node.matchers.matchers
        return [Selector(node.name, {each.name: each.value for each in matchers})]
    parts = []
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        part = getattr(node, name, None)
        parts += [] if part is None else [part]
    parts += getattr(node, "args", None) or []
    return [selector for part in parts for selector in _below(part)]
