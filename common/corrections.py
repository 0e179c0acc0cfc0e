"""The listens of tracks that became known after their records were written."""

import numpy as np
from numpy.typing import NDArray

from common.catalogue import UNKNOWN


class Corrections:
    """The newest listens of some tracks, looked up by track id; 16 bytes a track.

    Attributes:
        track_ids: int64 [tracks], rising.
        listens: int64 [tracks], of these.
    """

    def __init__(self, track_ids: NDArray[np.int64], listens: NDArray[np.int64]):
        self.track_ids, self.listens = track_ids, listens

    @classmethod
    def newest(
        cls,
        *,
        track_ids: NDArray[np.int64],
        seconds: NDArray[np.float64],
        listens: NDArray[np.int64],
    ) -> "Corrections":
        """Takes the newest of several looks at a track, and of two at once the larger.

        Args:
            track_ids: [looks], in any order.
            seconds: [looks], when each was announced, since 1970.
            listens: [looks].
        """
        order = np.lexsort((listens, seconds, track_ids))
        track_ids, listens = track_ids[order], listens[order]
        is_last = np.append(track_ids[1:] != track_ids[:-1], True)[: len(track_ids)]
        return cls(track_ids[is_last], listens[is_last])

    def __len__(self) -> int:
        return len(self.track_ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Corrections)
            and np.array_equal(self.track_ids, other.track_ids)
            and np.array_equal(self.listens, other.listens)
        )

    __hash__ = None  # type: ignore[assignment]

    def listens_of(self, track_id: int) -> int:
        """Returns the listens of a track, −1 where nothing corrects them."""
        place = int(np.searchsorted(self.track_ids, track_id))
        if place < len(self) and self.track_ids[place] == track_id:
            return int(self.listens[place])
        return UNKNOWN

    def has(self, track_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether each of some tracks is among these, bool [tracks]."""
        return np.isin(track_ids, self.track_ids)
