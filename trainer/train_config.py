"""The config of a training run, checked once and then frozen."""

import dataclasses
import json
from typing import Any

from common.config import config_of
from common.errors import require

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
COLORS = ("mono", "rgb")


def color_name(color: str) -> str:
    """Returns one of COLORS as people write it."""
    return {"rgb": "RGB"}.get(color, color)


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "cosine")
CLASS_WEIGHTS = ("none", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of the network.

    Attributes:
        convolutions: how many of the poster's six blocks, from the first.
        color: `mono`, the spectrogram as a grayscale picture, or `rgb`, through a colormap.
    """

    convolutions: int
    color: str

    def __post_init__(self) -> None:
        require(
            1 <= self.convolutions <= 6,
            f"config.network.convolutions: {self.convolutions} is not between 1 and 6",
        )
        require(
            self.color in COLORS,
            f"config.network.color: {self.color!r} is none of {', '.join(COLORS)}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """See `configs/six_conv_rgb.py` for what each value means and where it comes from."""

    network: NetworkConfig
    learning_rate: float
    learning_rate_schedule: str
    warmup_epochs: float
    batch_size: int
    dropout: float
    epochs: int
    patience: int
    clip_norm: float
    class_weights: str
    freq_mask: int
    time_mask: int
    precision: str
    shuffle_buffer: int
    steps_per_call: int
    seed: int
    deterministic: bool
    checkpoint_seconds: float

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "epochs", "shuffle_buffer", "steps_per_call"):
            value = getattr(self, name)
            require(value > 0, f"config.{name}: {value} is not above 0")
        for name in (
            "freq_mask",
            "time_mask",
            "warmup_epochs",
            "patience",
            "clip_norm",
            "checkpoint_seconds",
            "seed",
        ):
            value = getattr(self, name)
            require(value >= 0, f"config.{name}: {value} is below 0")
        require(self.seed < 2**32, f"config.seed: {self.seed} is not below 2³²")
        require(0 <= self.dropout < 1, f"config.dropout: {self.dropout} is not in 0 ≤ … < 1")
        require(
            self.warmup_epochs < self.epochs,
            f"config.warmup_epochs: {self.warmup_epochs:g} leave none of {self.epochs} epochs",
        )
        for name, possible in (
            ("learning_rate_schedule", SCHEDULES),
            ("class_weights", CLASS_WEIGHTS),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, name)
            require(value in possible, f"config.{name}: {value!r} is none of {', '.join(possible)}")

    @property
    def settings_that_may_change(self) -> tuple[str, ...]:
        """The keys that may differ when a run is resumed: they only make it longer or shorter."""
        if self.learning_rate_schedule == "constant":
            return ("checkpoint_seconds", "epochs", "patience")
        return ("checkpoint_seconds", "patience")  # the schedule ends with the last epoch

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Builds a config of plain values; UserFacingError for an impossible key or value."""
        return config_of(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the same as plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values
