"""A dataset that grows and whose clips' popularity turns: what made a song popular is no more.

Pictures are small. How loud their lower half is says the class until the popularity turns, and how
loud the upper half is from then on; both halves are the same all the time.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

from common import dataset_info, records
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo, Shard, Split
from common.inputs import InputStatistics, SpectrogramStatistics
from common.spectrogram import SpectrogramParams
from configs import dataset_artist
from tests.support import generations as support

SIGNAL = SpectrogramParams(
    num_samples=22_050, fft_size=512, hop=256, num_mels=16, frames_per_column=4
)
CONFIG = dataclasses.replace(
    DatasetConfig.from_dict(dataset_artist.get_config().to_dict()),
    spectrogram=SIGNAL,
    min_seconds=0.5,
)
LEVELS = np.array([40, 120, 200])
# Of a clip of each class.
LISTENS = (10, 1_000, 100_000)


def write(
    folder: pathlib.Path,
    *,
    seed: int,
    turned: bool = False,
    sizes: tuple[int, int, int] = (60, 12, 60),
    louder: int = 0,
) -> DatasetInfo:
    """Writes a dataset of so many clips for training, validation and test, each of an artist.

    Of a tenth of them the class is anything, so that no model is right about all. `louder` is added
    to the levels of all pictures.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    track, splits, height = seed * 10_000, {}, SIGNAL.shape[0] // 2
    for name, size in zip(("train", "validation", "test"), sizes, strict=True):
        path = folder / f"{name}.tfrecord-00000-of-00001"
        counts = np.zeros(3, int)
        with path.open("wb") as file:
            for _ in range(size):
                track += 1
                halves = rng.integers(3, size=2)
                levels = np.repeat(LEVELS[halves], height)[:, np.newaxis] + louder
                picture = np.clip(levels + rng.normal(0, 25, SIGNAL.shape), 0, 255)
                label = int(halves[1] if turned else halves[0])
                if rng.uniform() < 0.1:
                    label = int(rng.integers(3))
                counts[label] += 1
                values = {
                    "spectrogram": picture.astype(np.uint8).tobytes(),
                    "label": label,
                    "listens": LISTENS[label] + int(rng.integers(5)),
                    "track_id": track,
                    "artist_id": track,
                    "genre": (b"Folk", b"Rock")[int(rng.integers(2))],
                    "date_created": -1,
                }
                file.write(records.frame(records.encode_example(values)))
        data = path.read_bytes()
        shard = Shard(
            file=path.name,
            num_examples=size,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        splits[name] = Split(
            num_examples=size,
            class_counts=dict(zip(CONFIG.class_names, counts.tolist(), strict=True)),
            num_artists=size,
            shards=(shard,) if size else (),
        )
    statistics = InputStatistics(
        spectrogram=SpectrogramStatistics(mean=(120.0,) * 16, deviation=(70.0,) * 16),
        numbers={},
        categories={},
        texts={},
    )
    info = DatasetInfo.of(CONFIG, splits, statistics=statistics)
    (folder / dataset_info.FILE_NAME).write_text(info.to_json())
    return info


def grow(dataset: pathlib.Path, generation: int, **how) -> None:
    """Adds a generation."""
    part = dataset.parent / f"{dataset.name}-part{generation}"
    write(part, seed=generation, **how)
    support.add(dataset, part, generation=generation)
