"""`config.follow`: how a model follows a dataset that grows, checked once and then frozen."""

import dataclasses
from typing import Any

from common import divergence
from common.config import config_of
from common.errors import require
from trainer.train_config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """See `configs/six_conv_rgb.py` for what each value means."""

    replay: float = 0.5
    epochs: int = 3
    learning_rate: float = 0.0
    test_generations: int = 0
    margin_log_loss: float = 0.02
    margin_macro_f1: float = 0.03
    drift_psi: float = divergence.PSI_THRESHOLD
    drift_js: float = divergence.JS_THRESHOLD
    drift_accuracy: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.replay < 1, f"config.follow.replay: {self.replay} is not in 0 ≤ … < 1")
        require(self.epochs > 0, f"config.follow.epochs: {self.epochs} is not above 0")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value >= 0, f"config.follow.{field.name}: {value} is below 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FollowConfig":
        """Of plain values; raises UserFacingError for a key or value that is not possible."""
        return config_of(cls, dataclasses.asdict(cls()) | values, name="config.follow")

    def of_update(self, config: TrainConfig, *, number: int) -> TrainConfig:
        """Returns the config of an update's training: short, kept to its end, with its own seed.

        Args:
            config: of a training from new weights.
            number: of the update.
        """
        return dataclasses.replace(
            config,
            epochs=self.epochs,
            learning_rate=self.learning_rate or config.learning_rate,
            warmup_epochs=config.warmup_epochs * self.epochs / config.epochs,
            patience=0,
            # So few clips are for validation that the best of few epochs would be one by chance.
            keep="last",
            seed=(config.seed + number) % 2**32,
        )
