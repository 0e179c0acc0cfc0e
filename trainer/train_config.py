"""What a network is trained with, checked once and then frozen."""

import dataclasses
import json
from typing import Any

from beam_pipelines.command import config_of, require

COLORS = ("mono", "rgb")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of the network.

    Attributes:
        convolutions: how many of the poster's six blocks, from the first.
        color: `mono`, the picture as it is stored, or `rgb`, through a colormap.
    """

    convolutions: int
    color: str

    def __post_init__(self):
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
    batch_size: int
    dropout: float
    epochs: int
    freq_mask: int
    time_mask: int
    shuffle_buffer: int
    seed: int
    deterministic: bool

    def __post_init__(self):
        for name in ("learning_rate", "batch_size", "epochs", "shuffle_buffer"):
            value = getattr(self, name)
            require(value > 0, f"config.{name}: {value} is not above 0")
        for name in ("freq_mask", "time_mask"):
            value = getattr(self, name)
            require(value >= 0, f"config.{name}: {value} is below 0")
        require(0 <= self.dropout < 1, f"config.dropout: {self.dropout} is not in 0 ≤ … < 1")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Of plain values; raises InputError for a key or value that is not possible."""
        return config_of(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
