"""The config of a training run, checked once and then frozen."""

import dataclasses
import json
from typing import Any

from common.config import config_of
from common.errors import require
from trainer.network_config import NetworkConfig, network_config_of

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "cosine")
CLASS_WEIGHTS = ("none", "balanced")
KEPT = ("best", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """See `configs/six_conv_rgb.py` for what each value means and where it comes from.

    What came later has a default, with which a training is what it was, and the plain values leave
    it out there: the `training.json` of an older folder reads as it did.
    """

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
    weight_decay: float = 0.0
    weight_average: float = 0.0
    keep: str = "best"
    label_smoothing: float = 0.0
    ordinal_loss: float = 0.0
    genre_loss: float = 0.0
    listens_loss: float = 0.0
    mixup: float = 0.0
    time_roll: bool = False
    time_crop: int = 0
    level_shift: float = 0.0
    input_dropout: tuple[tuple[str, float], ...] = ()
    shrink_perturb: tuple[float, float] = (1.0, 0.0)

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
            "weight_decay",
            "ordinal_loss",
            "genre_loss",
            "listens_loss",
            "mixup",
            "time_crop",
            "level_shift",
        ):
            value = getattr(self, name)
            require(value >= 0, f"config.{name}: {value} is below 0")
        require(self.seed < 2**32, f"config.seed: {self.seed} is not below 2³²")
        for name in (
            "dropout",
            "weight_average",
            "label_smoothing",
        ):
            value = getattr(self, name)
            require(0 <= value < 1, f"config.{name}: {value} is not in 0 ≤ … < 1")
        for name, value in self.input_dropout:
            require(0 <= value < 1, f"config.input_dropout.{name}: {value} is not in 0 ≤ … < 1")
        pair = self.shrink_perturb
        require(
            isinstance(pair, tuple)
            and len(pair) == 2
            and all(type(value) in (int, float) and 0 <= value <= 1 for value in pair),
            f"config.shrink_perturb: {pair!r} are not two numbers from 0 to 1",
        )
        require(
            self.warmup_epochs < self.epochs,
            f"config.warmup_epochs: {self.warmup_epochs:g} leave none of {self.epochs} epochs",
        )
        for name, possible in (
            ("learning_rate_schedule", SCHEDULES),
            ("class_weights", CLASS_WEIGHTS),
            ("keep", KEPT),
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
        """Of plain values; raises UserFacingError for a key or value that is not possible."""
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(cls)
            if field.default is not dataclasses.MISSING
        }
        # How a model follows a dataset is no part of a training: see `FollowConfig`.
        values = {key: value for key, value in (defaults | values).items() if key != "follow"}
        if isinstance(values["input_dropout"], dict):
            values["input_dropout"] = tuple(sorted(values["input_dropout"].items()))
        if isinstance(values.get("network"), dict):
            values["network"] = network_config_of(values["network"])
        return config_of(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        if self.input_dropout:
            values["input_dropout"] = dict(self.input_dropout)
        plain: dict[str, Any] = json.loads(json.dumps(values | {"network": self.network.to_dict()}))
        return plain
