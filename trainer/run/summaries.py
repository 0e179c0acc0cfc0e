"""What a training shows in TensorBoard: curves, a few pictures that it trains on, its confusions.

tensorboard --logdir=model
"""

import io
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf
from sklearn import metrics

from common.dataset_info import DatasetInfo
from trainer.data import reader
from trainer.model.network import COLORMAP
from trainer.run import model_folder

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_NUM_SAMPLES = 6


class Board:
    """The event files of a training, `tensorboard/{train,validation}` in its model folder."""

    def __init__(self, model_dir: str):
        self._writers = {
            name: tf.summary.create_file_writer(model_folder.path(model_dir, f"tensorboard/{name}"))
            for name in ("train", "validation")
        }

    def show_samples(self, info: DatasetInfo, dataset_dir: str) -> None:
        """The first training examples as they are stored, with their labels."""
        batches = reader.batches(info, dataset_dir, "train", batch_size=_NUM_SAMPLES)
        (batch,) = batches.take(1).as_numpy_iterator()
        colors = matplotlib.colormaps[COLORMAP](batch["spectrogram"][:, ::-1])[..., :3]
        labels = ", ".join(info.class_names[label] for label in batch["label"])
        with self._writers["train"].as_default():
            tf.summary.image(
                "spectrograms", colors, step=0, max_outputs=_NUM_SAMPLES, description=labels
            )

    def show_epoch(
        self,
        line: dict[str, Any],
        throughput: dict[str, Any],
        validation: dict[str, np.ndarray] | None,
        *,
        class_names: tuple[str, ...],
    ) -> None:
        """An epoch's metrics, how fast it was, and the `validation` answers, if there are any."""
        step = line["epoch"]
        with self._writers["train"].as_default(step=step):
            for name in ("loss", "accuracy", "learning_rate"):
                tf.summary.scalar(name, line[name])
            for name in ("examples_per_second", "utilisation"):
                tf.summary.scalar(name, throughput[name])
        self._writers["train"].flush()
        if validation is None:
            return
        with self._writers["validation"].as_default(step=step):
            for name in ("loss", "accuracy"):
                tf.summary.scalar(name, line[f"validation_{name}"])
            picture = confusion_picture(
                validation["label"], validation["probabilities"], class_names
            )
            tf.summary.image("confusion", picture[np.newaxis])
        self._writers["validation"].flush()


def confusion_picture(
    labels: np.ndarray, probabilities: np.ndarray, class_names: tuple[str, ...]
) -> np.ndarray:
    """How often each class was answered for each: uint8 [height, width, 3].

    Args:
        labels: int [examples].
        probabilities: [examples, classes].
        class_names: in the order of the labels.
    """
    classes = range(len(class_names))
    counts = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=list(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row in classes:
        for column in classes:
            color = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", color=color)
    axes.set_xticks(classes, class_names)
    axes.set_yticks(classes, class_names)
    axes.set(xlabel="answered", ylabel="true")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    plt.close(figure)
    return tf.io.decode_png(png.getvalue(), channels=3).numpy()
