"""What the thresholds cut into classes: the listens, or a measure adjusted for a track's age."""

import bisect
import datetime
import itertools
from collections.abc import Sequence

POPULARITIES = ("listens", "listens_per_year", "rank_among_contemporaries")

_YEAR = 365.25 * 24 * 3600
# A younger track counts as this old, in seconds: a day's listens say little of a year's.
_YOUNGEST = 30 * 24 * 3600


def listens_per_year(listens: int, *, age_seconds: int) -> int:
    """Returns the listens of an average year, in whole listens, of a track of at least 30 days."""
    return round(listens / (max(age_seconds, _YOUNGEST) / _YEAR))


def quarter_of(date_created: int) -> int:
    """Returns the quarter of a year of a date in seconds since 1970 UTC, counted from 0."""
    date = datetime.datetime.fromtimestamp(date_created, tz=datetime.timezone.utc)
    return date.year * 4 + (date.month - 1) // 3


class Ranks:
    """The ranks of listens among those of some tracks.

    Args:
        counts: (listens, how many tracks have them), each number of listens once.
    """

    def __init__(self, counts: Sequence[tuple[int, int]]):
        counts = sorted(counts)
        self._listens = [listens for listens, _ in counts]
        self._up_to = list(itertools.accumulate((count for _, count in counts), initial=0))

    def of(self, listens: int) -> float:
        """Returns the share of tracks with fewer listens and half of those with as many.

        0 … 1, to four digits, so that there are never more than 10,001 different ones.
        """
        index = bisect.bisect_left(self._listens, listens)
        below, up_to = self._up_to[index], self._up_to[index + 1]
        return round((below + up_to) / 2 / self._up_to[-1], 4)
