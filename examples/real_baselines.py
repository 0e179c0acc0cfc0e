"""What a network on real music has to beat: gradient boosting on a table, and no listening at all.

All are trained on a dataset's training split alone and asked on another, so that they stand beside
a network that was asked the same.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import dataset_reader
from common.dataset_info import DatasetInfo
from common.inputs import HISTORIES
from trainer.evaluation.boosting import boosted

# Of the metadata: what the fusion network takes too.
INPUTS = ("genre", "date_created", "date_released", *HISTORIES)
_DATES = ("date_created", "number/date_released")
_NUMBERS = (*_DATES, *itertools.chain(*HISTORIES.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """The records of a split as columns, in the stored order.

    Attributes:
        levels: uint8 [records, height, width].
        label, listens, artist_id, track_id: int64 [records].
        genre: str [records].
        numbers: float [records, 6] of the dates and the artist's and the album's other tracks, NaN
            where unknown.
        vggish: float [records, 128], all zeros where there are none.
    """

    levels: NDArray[Any]
    label: NDArray[Any]
    listens: NDArray[Any]
    artist_id: NDArray[Any]
    track_id: NDArray[Any]
    genre: NDArray[Any]
    numbers: NDArray[Any]
    vggish: NDArray[Any]


def read_splits(
    info: DatasetInfo, dataset_dir: str, vggish: Mapping[int, NDArray[Any]]
) -> dict[str, Split]:
    """The splits of a dataset, with the embedding of each track that has one."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in info.splits}
    for name, record in dataset_reader.read_examples(info, dataset_dir):
        rows[name].append(record)
    none = np.zeros(128, np.float32)

    def number(record: Mapping[str, Any], name: str) -> float:
        value = float(record.get(name, np.nan))
        return np.nan if name in _DATES and value < 0 else value

    def split(records: Sequence[Mapping[str, Any]]) -> Split:
        columns = {
            name: np.array([record[name] for record in records])
            for name in ("label", "listens", "artist_id", "track_id")
        }
        pictures = b"".join(record["spectrogram"] for record in records)
        shape = info.config.spectrogram.shape
        return Split(
            levels=np.frombuffer(pictures, np.uint8).reshape(-1, *shape),
            genre=np.array([record["genre"].decode() for record in records]),
            numbers=np.array([[number(record, name) for name in _NUMBERS] for record in records]),
            vggish=np.array([vggish.get(record["track_id"], none) for record in records]),
            **columns,
        )

    return {name: split(records) for name, records in rows.items() if records}


def predictions(train: Split, asked: Split, *, num_classes: int) -> dict[str, NDArray[np.float64]]:
    """{baseline: probabilities [records, classes]} of a split, by models of another."""
    shares = np.bincount(train.label, minlength=num_classes) / len(train.label)
    genres = sorted(set(train.genre))
    code = {genre: number for number, genre in enumerate(genres)}

    def of_genre(split: Split) -> NDArray[Any]:
        return np.array([[code.get(genre, np.nan)] for genre in split.genre], float)

    def table(split: Split) -> NDArray[Any]:
        return np.hstack([of_genre(split), split.numbers])

    def genre_and_mel(split: Split) -> NDArray[Any]:
        return np.hstack([of_genre(split), mel(split)])

    def mel(split: Split) -> NDArray[Any]:
        return mel_statistics(split.levels)

    found = {"majority": np.tile(shares, (len(asked.label), 1))}
    for name, features, categorical, size in (
        ("genre alone", of_genre, (0,), {}),
        ("mel statistics", mel, (), _SMALL),
        ("VGGish, frozen", lambda split: split.vggish, (), _SMALL),
        ("genre + mel statistics", genre_and_mel, (0,), _SMALL),
        ("metadata alone", table, (0,), {}),
    ):
        found[name] = boosted(
            features(train),
            train.label,
            features(asked),
            num_classes=num_classes,
            categorical=categorical,
            **size,
        )
    return found


# Of many columns, in which more leaves would find what is not there.
_SMALL = {"max_iter": 80, "max_leaf_nodes": 8}


def mel_statistics(levels: NDArray[Any]) -> NDArray[np.float32]:
    """Mean, deviation and mean change of each band, float32 [records, 3 · height]."""
    pictures = levels.astype(np.float32)
    change = np.abs(np.diff(pictures, axis=2)).mean(axis=2)
    return np.concatenate([pictures.mean(axis=2), pictures.std(axis=2), change], axis=1)
