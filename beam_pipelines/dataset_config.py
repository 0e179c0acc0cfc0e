"""What a dataset is made with: everything but the paths, checked once and then frozen."""

import dataclasses
import json
from typing import Any

from beam_pipelines.command import config_of, require
from beam_pipelines.spectrogram import SpectrogramParams

SPLITS = ("train", "validation", "test")
SUBSETS = ("small", "medium", "large", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """See `configs/dataset_artist.py` for what each value means and where it comes from."""

    subset: str
    class_names: tuple[str, ...]
    thresholds: tuple[int, ...]
    split_by: str
    split_sizes: tuple[float, float, float]
    salt: str
    min_seconds: float
    silence_dbfs: float
    spectrogram: SpectrogramParams

    def __post_init__(self):
        require(
            self.subset in SUBSETS,
            f"config.subset: {self.subset!r} is none of {', '.join(SUBSETS)}",
        )
        require(
            list(self.thresholds) == sorted(set(self.thresholds)),
            f"config.thresholds: {self.thresholds} do not rise",
        )
        require(
            len(self.class_names) == len(self.thresholds) + 1,
            f"config.class_names: {len(self.class_names)} names for the "
            f"{len(self.thresholds) + 1} classes that {len(self.thresholds)} thresholds make",
        )
        require(
            self.split_by in ("artist", "track"),
            f"config.split_by: {self.split_by!r} is neither artist nor track",
        )
        require(
            len(self.split_sizes) == len(SPLITS)
            and min(self.split_sizes) >= 0
            and abs(sum(self.split_sizes) - 1) < 1e-6,
            f"config.split_sizes: {self.split_sizes} are not three shares that add up to 1",
        )
        require(self.min_seconds > 0, f"config.min_seconds: {self.min_seconds} is not above 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetConfig":
        """Of plain values; raises InputError for a key or value that is not possible."""
        return config_of(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
