"""The optimizer, its learning-rate schedule, and what each class weighs in the loss."""

import keras
import numpy as np
from numpy.typing import NDArray

from common.dataset_info import DatasetInfo
from common.errors import require
from trainer.train_config import TrainConfig


def optimizer_of(config: TrainConfig, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """Adam, with a weight decay AdamW, whose kernels alone decay; scaling the loss for float16."""
    rate = learning_rate(config, steps_an_epoch)
    if config.weight_decay:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "genre_shares"])
    else:
        optimizer = keras.optimizers.Adam(rate)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def learning_rate(
    config: TrainConfig, steps_an_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate as Keras takes it: a number or a schedule.

    Raises:
        UserFacingError: the warm-up is all there is.
    """
    schedules = keras.optimizers.schedules
    num_steps = config.epochs * steps_an_epoch
    warmup_steps = round(config.warmup_epochs * steps_an_epoch)
    require(
        warmup_steps < num_steps,
        f"config.warmup_epochs: {config.warmup_epochs:g} leave none of {num_steps} steps",
    )
    if config.learning_rate_schedule == "cosine":
        return schedules.CosineDecay(
            0.0 if warmup_steps else config.learning_rate,
            decay_steps=num_steps - warmup_steps,
            warmup_target=config.learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if warmup_steps:
        return schedules.PolynomialDecay(0.0, warmup_steps, end_learning_rate=config.learning_rate)
    return config.learning_rate


def class_weights(info: DatasetInfo, how: str) -> NDArray[np.float32]:
    """Returns the weight of each class in the loss, float32 [classes]; 1 in the mean.

    `balanced` is scikit-learn's: examples / (classes × examples of the class).
    """
    counts = np.array([info.splits["train"].class_counts[name] for name in info.class_names])
    if how == "none":
        return np.ones(len(counts), np.float32)
    balanced = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return np.asarray(balanced, np.float32)
