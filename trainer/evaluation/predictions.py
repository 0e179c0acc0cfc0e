"""What a network predicts for the examples of a split, beside what their records say."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions for every example of a split, in the stored order.

    Attributes:
        probabilities: float [examples, classes].
        label: int [examples], the true class.
        listens, artist_id, track_id: int [examples]; an artist below 0 is unknown.
        genre: bytes [examples], empty where unknown.
        date_created: int [examples], seconds since 1970 UTC, −1 where unknown; None if it was not
            asked for.
    """

    probabilities: NDArray[Any]
    label: NDArray[Any]
    listens: NDArray[Any]
    artist_id: NDArray[Any]
    track_id: NDArray[Any]
    genre: NDArray[Any]
    date_created: NDArray[Any] | None = None

    @classmethod
    def columns(cls) -> list[str]:
        """Returns the names of the columns that are read from the records."""
        names = [field.name for field in dataclasses.fields(cls)]
        return [name for name in names if name != "probabilities"]

    def rows(self, which: NDArray[Any]) -> "Predictions":
        """Returns those of some examples: bool or indices [examples]."""
        dates = self.date_created
        return Predictions(
            probabilities=self.probabilities[which],
            label=self.label[which],
            listens=self.listens[which],
            artist_id=self.artist_id[which],
            track_id=self.track_id[which],
            genre=self.genre[which],
            date_created=None if dates is None else dates[which],
        )

    @property
    def num_examples(self) -> int:
        return len(self.label)

    @property
    def predicted(self) -> NDArray[Any]:
        """The most probable class, int [examples]; of classes as probable the lowest."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> NDArray[Any]:
        """The probability of the predicted class, float [examples]."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def correct(self) -> NDArray[Any]:
        """Whether the predicted class is the true one, bool [examples]."""
        return np.asarray(self.predicted == self.label)
