"""What a picture looks like, as a few numbers: drift is told by them, in training and serving."""

import numpy as np
from numpy.typing import NDArray

NAMES = ("level", "contrast", "brightness", "motion")


def of_pictures(pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Returns {each of `NAMES`: float32 [batch]} of pictures uint8 [batch, height, width].

    `level` is the mean, `contrast` the deviation and `motion` the mean change from column to
    column, all three in levels of 0 to 255; `brightness` is the band in which the energy is
    centred, 0 for the lowest.
    """
    values = pictures.astype(np.float32)
    bands = np.arange(values.shape[1], dtype=np.float32)
    of_bands = values.mean(axis=2)
    return {
        "level": values.mean(axis=(1, 2)),
        "contrast": values.std(axis=(1, 2)),
        "brightness": (of_bands @ bands) / np.maximum(of_bands.sum(axis=1), 1),
        "motion": np.abs(np.diff(values, axis=2)).mean(axis=(1, 2)),
    }
