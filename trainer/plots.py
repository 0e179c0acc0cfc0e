"""The training as a picture."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter


def learning_curves(
    history: list[dict[str, Any]], *, best_epoch: int, majority: float | None
) -> bytes:
    """A PNG of loss and accuracy by epoch.

    Args:
        history: the metrics of each epoch.
        best_epoch: counted from 1, the one whose weights are kept.
        majority: accuracy of the majority class on the validation split, None if unknown.
    """
    epochs = [line["epoch"] for line in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axes, name in ((left, "loss"), (right, "accuracy")):
        axes.plot(epochs, [line[name] for line in history], label="training")
        validation = [line[f"validation_{name}"] for line in history]
        if None not in validation:
            axes.plot(epochs, validation, label="validation")
        axes.axvline(best_epoch, color="gray", linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="epoch", title=name.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if majority is not None:
        right.axhline(
            majority, color="black", linestyle="--", linewidth=1, label="always the majority class"
        )
    left.set(ylabel="cross-entropy (nats)", ylim=(0, None))
    right.set(ylim=(0, 1))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend()
    right.legend(loc="lower right")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    return image.getvalue()
