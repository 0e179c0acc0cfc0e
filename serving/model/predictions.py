"""The predictions of a model for a batch, wherever it runs."""

from typing import NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """Class probabilities of a batch.

    Attributes:
        probabilities: float32 [batch, classes].
        version: of the model that gave them, None where the server does not say; of a batch that
            went in several requests, the version that answered the last.
    """

    probabilities: np.ndarray
    version: str | None
