"""Tables of measurements as people read them, in a terminal and as Markdown."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table: the first column to the left, the others to the right."""
    return ["  ".join(cells).rstrip() for cells in _padded(rows)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns line up in plain text; all but the first right."""
    first, *others = _padded([header, *rows])
    left, *right = map(len, first)
    rule = ["-" * left, *("-" * (width - 1) + ":" for width in right)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (first, rule, *others))


def _padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]


def percent(share: float | None, *, unknown: str = "") -> str:
    """Returns a share, such as `12.3 %`; `unknown` in the place of None."""
    return unknown if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Returns a time, such as `1:05 min` or `2 h 10 min`."""
    seconds = round(seconds)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes}:{seconds % 60:02} min"
