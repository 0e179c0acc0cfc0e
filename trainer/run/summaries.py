"""The TensorBoard summaries of a training run: curves, a few of its pictures, confusions.

tensorboard --logdir=model
"""

import io

import matplotlib
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from sklearn import metrics

from common.dataset_info import DatasetInfo
from common.spectrogram import COLORMAP
from trainer.data import reader
from trainer.evaluation.epochs import EpochMetrics, EpochThroughput
from trainer.evaluation.predictions import Predictions
from trainer.run import model_folder

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_NUM_SAMPLES = 6


class Summaries:
    """Writes the event files `tensorboard/{train,validation}` in a model folder."""

    def __init__(self, model_dir: str):
        self._writers = {
            name: tf.summary.create_file_writer(model_folder.path(model_dir, f"tensorboard/{name}"))
            for name in ("train", "validation")
        }

    def write_samples(self, info: DatasetInfo, dataset_dir: str) -> None:
        """Writes the first training examples as they are stored, with their labels."""
        batches = reader.batches(info, dataset_dir, "train", batch_size=_NUM_SAMPLES)
        (batch,) = batches.take(1).as_numpy_iterator()
        colors = matplotlib.colormaps[COLORMAP](batch["spectrogram"][:, ::-1])[..., :3]
        labels = ", ".join(info.class_names[label] for label in batch["label"])
        with self._writers["train"].as_default():
            tf.summary.image(
                "spectrograms", colors, step=0, max_outputs=_NUM_SAMPLES, description=labels
            )

    def write_epoch(
        self,
        epoch: EpochMetrics,
        throughput: EpochThroughput,
        validation: Predictions | None,
        *,
        class_names: tuple[str, ...],
    ) -> None:
        """Writes an epoch's metrics, its throughput, and the confusion on the validation split."""
        step = epoch.epoch
        with self._writers["train"].as_default(step=step):
            for name in ("loss", "accuracy", "learning_rate"):
                tf.summary.scalar(name, getattr(epoch, name))
            for name in ("examples_per_second", "utilisation"):
                tf.summary.scalar(name, getattr(throughput, name))
        self._writers["train"].flush()
        if validation is None:
            return
        with self._writers["validation"].as_default(step=step):
            for name in ("loss", "accuracy"):
                tf.summary.scalar(name, getattr(epoch, f"validation_{name}"))
            picture = confusion_picture(validation, class_names)
            tf.summary.image("confusion", picture[np.newaxis])
        self._writers["validation"].flush()


def confusion_picture(predictions: Predictions, class_names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Draws how often each class was predicted for each, uint8 [height, width, 3].

    Args:
        predictions: of a split.
        class_names: in the order of the labels.
    """
    classes = range(len(class_names))
    counts = metrics.confusion_matrix(
        predictions.label, predictions.predicted, labels=list(classes)
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row in classes:
        for column in classes:
            color = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", color=color)
    axes.set_xticks(classes, class_names)
    axes.set_yticks(classes, class_names)
    axes.set(xlabel="predicted", ylabel="true")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    plt.close(figure)
    picture: NDArray[np.uint8] = tf.io.decode_png(png.getvalue(), channels=3).numpy()
    return picture
