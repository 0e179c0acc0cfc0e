"""What a dataset is made with: everything but the paths, checked once and then frozen."""

import dataclasses
import json
import typing
from typing import Any

from common.config import config_of, misfit
from common.errors import require
from common.inputs import Inputs
from common.popularity import POPULARITIES
from common.spectrogram import SpectrogramParams

SPLITS = ("train", "validation", "test")
SPLIT_BY = ("artist", "track", "official", "date")
SUBSETS = ("small", "medium", "large", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """See `configs/dataset_artist.py` for what each value means and where it comes from.

    What came later has a default, and its plain values leave it out where it has that, so that the
    config of an older dataset reads as it did and the fingerprint stays.
    """

    subset: str
    class_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    quantiles: tuple[float, ...]
    split_by: str
    split_sizes: tuple[float, float, float]
    salt: str
    clips_per_track: int
    min_seconds: float
    silence_dbfs: float
    spectrogram: SpectrogramParams
    inputs: Inputs = dataclasses.field(default_factory=Inputs)
    popularity: str = "listens"

    def __post_init__(self) -> None:
        # How many split_sizes there are is checked below.
        kinds = typing.get_type_hints(DatasetConfig) | {"split_sizes": tuple[float, ...]}
        for name, kind in kinds.items():
            value = getattr(self, name)
            require(
                misfit(value, kind, name=name) is None,
                f"config.{name}: {value!r} is not a possible value; configs/dataset_artist.py has "
                "one that is",
            )
        require(
            self.subset in SUBSETS,
            f"config.subset: {self.subset!r} is none of {', '.join(SUBSETS)}",
        )
        require(
            bool(self.thresholds) != bool(self.quantiles),
            f"config.thresholds: {self.thresholds} and config.quantiles: {self.quantiles}; "
            "exactly one of the two is given, the other is ()",
        )
        require(
            self.popularity in POPULARITIES,
            f"config.popularity: {self.popularity!r} is none of {', '.join(POPULARITIES)}",
        )
        if self.popularity == "rank_among_contemporaries":
            require(
                all(0 < threshold < 1 for threshold in self.thresholds),
                f"config.thresholds: {self.thresholds} are not all between 0 and 1, as ranks are; "
                "such as (0.168, 0.635)",
            )
        else:
            require(
                all(isinstance(threshold, int) for threshold in self.thresholds),
                f"config.thresholds: {self.thresholds} are not whole numbers",
            )
        for name in ("thresholds", "quantiles"):
            edges = getattr(self, name)
            require(list(edges) == sorted(set(edges)), f"config.{name}: {edges} do not rise")
        require(
            all(self.class_names) and len(set(self.class_names)) == len(self.class_names),
            f"config.class_names: {self.class_names} are not all different names",
        )
        require(
            all(0 < quantile < 1 for quantile in self.quantiles),
            f"config.quantiles: {self.quantiles} are not all between 0 and 1",
        )
        edges = self.thresholds or self.quantiles
        require(
            len(self.class_names) == len(edges) + 1,
            f"config.class_names: {len(self.class_names)} names for the {len(edges) + 1} classes "
            f"that {edges} make",
        )
        require(
            self.split_by in SPLIT_BY,
            f"config.split_by: {self.split_by!r} is none of {', '.join(SPLIT_BY)}",
        )
        require(
            len(self.split_sizes) == len(SPLITS)
            and min(self.split_sizes) >= 0
            and abs(sum(self.split_sizes) - 1) < 1e-6,
            f"config.split_sizes: {self.split_sizes} are not three shares that add up to 1",
        )
        require(
            self.clips_per_track >= 1,
            f"config.clips_per_track: {self.clips_per_track} is not at least 1",
        )
        require(self.min_seconds > 0, f"config.min_seconds: {self.min_seconds} is not above 0")

    @property
    def needs_dates(self) -> bool:
        """Returns whether every track must have a date."""
        return self.split_by == "date" or self.popularity != "listens"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetConfig":
        """Makes one of plain values; UserFacingError for a key or value that is not possible."""
        inputs = values.get("inputs", {})
        if not isinstance(inputs, Inputs):
            inputs = Inputs.from_dict(inputs)
        return config_of(cls, {"popularity": "listens"} | values | {"inputs": inputs})

    def to_dict(self) -> dict[str, Any]:
        """Returns the same as plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        values["inputs"] = self.inputs.to_dict()
        if self.inputs == Inputs():
            del values["inputs"]
        if self.popularity == "listens":
            del values["popularity"]
        return values
