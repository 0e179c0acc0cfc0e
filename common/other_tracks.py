"""What is known of a track by other tracks in the training split: its artist's, its album's.

Sums of whole numbers: they are the same in any order, and a track is taken out of its artist's or
album's without a trace.
"""

import math
from typing import NamedTuple

# ln(1 + listens) is counted in parts of 2⁻³².
_UNIT = 1 << 32


class Tracks(NamedTuple):
    """Some tracks: how many, and the sum of ln(1 + listens) over them in units of 2⁻³²."""

    num_tracks: int = 0
    log_listens: int = 0

    def __add__(self, other: object) -> "Tracks":
        """Both together."""
        if not isinstance(other, Tracks):
            return NotImplemented
        return Tracks(self.num_tracks + other.num_tracks, self.log_listens + other.log_listens)

    def without(self, other: "Tracks") -> "Tracks":
        """Returns these, the others taken out."""
        return Tracks(self.num_tracks - other.num_tracks, self.log_listens - other.log_listens)

    @property
    def mean_log_listens(self) -> float:
        """Returns the mean of ln(1 + listens); NaN of no tracks."""
        return self.log_listens / self.num_tracks / _UNIT if self.num_tracks else math.nan


def track_of(listens: int) -> Tracks:
    """One track of so many listens."""
    return Tracks(1, round(math.log1p(listens) * _UNIT))


def key_of(history: str, *, artist_id: int, album_id: int) -> tuple[int, ...] | None:
    """Returns whose other tracks a history is of: tracks of one key are one another's.

    An album's are those of the same artist: of a new artist nothing is known, whoever else is on a
    sampler.

    Args:
        history: a key of `inputs.HISTORIES`.
        artist_id, album_id: of the track, below 0 where unknown.

    Returns:
        None where artist or album is not known.
    """
    key = (artist_id, album_id) if history == "album_history" else (artist_id,)
    return None if min(key) < 0 else key
