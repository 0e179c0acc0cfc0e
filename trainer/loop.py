"""The training loop: the same for one device, several, and several workers.

Keras 3's `model.fit` does not train under several workers, so the steps are our own. A replica
sums its weighted losses and divides by the weight of the whole global batch; the optimizer adds
the replicas' gradients. So the steps are the same however many replicas share a batch.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_pipelines.command import require
from beam_pipelines.dataset_info import DatasetInfo
from trainer import augment, dataset
from trainer.network import build_network
from trainer.train_config import TrainConfig

# Steps in one call of the compiled function; between calls the progress line is drawn.
STEPS_PER_CALL = 8


def strategy_for(name: str) -> tf.distribute.Strategy:
    """The strategy that --strategy names, over all GPUs, or all CPU devices where there is none.

    `mirrored` takes all of them, `one_device` the first, `auto` mirrors if there are several.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    if name == "mirrored" or (name == "auto" and len(names) > 1):
        return tf.distribute.MirroredStrategy(names)
    return tf.distribute.OneDeviceStrategy(names[0])


def devices_in(strategy: tf.distribute.Strategy) -> str:
    """The devices of a strategy in words, such as `2 × GPU`."""
    devices = strategy.extended.worker_devices
    return f"{len(devices)} × {devices[0].rpartition('device:')[2].partition(':')[0]}"


class Trainer:
    """A network and its optimizer under a strategy, and the compiled steps.

    Args:
        config: of the training.
        info: of the dataset, which gives the shape of the pictures and the classes.
        strategy: under which everything is made and run.

    Raises:
        InputError: the replicas can't share a batch, or the config does not fit the pictures.
    """

    def __init__(self, config: TrainConfig, info: DatasetInfo, strategy: tf.distribute.Strategy):
        replicas = strategy.num_replicas_in_sync
        require(
            config.batch_size % replicas == 0,
            f"config.batch_size: {config.batch_size} can't be shared by {replicas} replicas",
        )
        height, width = info.config.spectrogram.shape
        for name, value, limit in (
            ("freq_mask", config.freq_mask, height),
            ("time_mask", config.time_mask, width),
        ):
            require(value <= limit, f"config.{name}: {value}, the pictures have {limit}")
        if config.freq_mask or config.time_mask:
            augment.masker(freq_mask=config.freq_mask, time_mask=config.time_mask)
        self.config = config
        self.info = info
        self.strategy = strategy
        with strategy.scope():
            self.model = build_network(
                config.network,
                shape=info.config.spectrogram.shape,
                num_classes=len(info.class_names),
                dropout=config.dropout,
                seed=config.seed,
            )
            self.optimizer = keras.optimizers.Adam(config.learning_rate)
            self.optimizer.build(self.model.trainable_variables)

    @property
    def state(self) -> dict[str, Any]:
        """All that a training goes on from, for `tf.train.Checkpoint`."""
        weights = {id(variable) for variable in self.model.weights}
        # The state of the dropout's generator, which Keras keeps out of its checkpoints.
        random = [v for v in self.model.variables if id(v) not in weights]
        return {"model": self.model, "optimizer": self.optimizer, "random": random}

    @tf.function
    def train_steps(self, iterator, num_steps: tf.Tensor) -> dict[str, tf.Tensor]:
        """Trains on the next `num_steps` batches; sums of weight, loss and correct answers."""
        totals = self._zero_totals()
        for _ in tf.range(num_steps):
            step = self.strategy.run(self._train_step, args=(next(iterator),))
            totals = self._add(totals, step)
        return totals

    @tf.function
    def predict_step(self, iterator):
        """The probabilities [batch, classes] of the next batch, and the batch, per replica."""
        return self.strategy.run(self._predict_step, args=(next(iterator),))

    def _train_step(self, batch):
        weight = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.reduce_sum(batch["weight"])
        )
        with tf.GradientTape() as tape:
            logits = self.model(batch["spectrogram"], training=True)
            totals = _totals(logits, batch)
            loss = totals["loss"] / weight
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return totals

    def _predict_step(self, batch):
        return tf.nn.softmax(self.model(batch["spectrogram"], training=False)), batch

    def _zero_totals(self):
        return {name: tf.zeros(()) for name in ("weight", "loss", "correct")}

    def _add(self, totals, step):
        reduced = self.strategy.reduce(tf.distribute.ReduceOp.SUM, step, axis=None)
        return {name: totals[name] + reduced[name] for name in totals}

    def distributed(self, split: str, dataset_dir: str, *, epoch: int | None = None) -> Iterable:
        """One pass over a split: shuffled and augmented for training in `epoch`, else as stored."""
        replicas = self.strategy.num_replicas_in_sync
        config = self.config
        training = {}
        if epoch is not None:
            training = {
                "shuffle_buffer": config.shuffle_buffer,
                "seed": config.seed,
                "epoch": epoch,
                "freq_mask": config.freq_mask,
                "time_mask": config.time_mask,
            }

        def of_worker(_):
            return dataset.batches(
                self.info,
                dataset_dir,
                split,
                batch_size=config.batch_size // replicas,
                group=replicas,
                **training,
            )

        return self.strategy.distribute_datasets_from_function(of_worker)

    def train_epoch(
        self, dataset_dir: str, epoch: int, on_progress: Callable[[int, int, dict], None]
    ) -> dict[str, float]:
        """Trains on every example once; mean `loss` and `accuracy` over the epoch.

        Args:
            dataset_dir: where the shards lie.
            epoch: counted from 0; decides the order of the examples.
            on_progress: called with steps done, steps in all, and the means so far.
        """
        iterator = iter(self.distributed("train", dataset_dir, epoch=epoch))
        num_steps = dataset.num_steps(self.info, "train", global_batch_size=self.config.batch_size)
        totals = dict.fromkeys(("weight", "loss", "correct"), 0.0)
        done = 0
        while done < num_steps:
            count = min(STEPS_PER_CALL, num_steps - done)
            part = self.train_steps(iterator, tf.constant(count))
            totals = {name: totals[name] + float(part[name]) for name in totals}
            done += count
            on_progress(done, num_steps, _means(totals))
        return _means(totals)

    def predictions(self, dataset_dir: str, split: str) -> dict[str, np.ndarray]:
        """The network's answer for every example of a split, exactly once.

        Returns:
            `probabilities` float32 [examples, classes] and the scalar columns of the records,
            ordered by `track_id`.
        """
        iterator = iter(self.distributed(split, dataset_dir))
        parts = []
        for _ in range(
            dataset.num_steps(self.info, split, global_batch_size=self.config.batch_size)
        ):
            probabilities, batch = self.predict_step(iterator)
            columns = {name: batch[name] for name in batch if name != "spectrogram"}
            columns["probabilities"] = probabilities
            local = {
                name: np.concatenate(
                    [part.numpy() for part in self.strategy.experimental_local_results(value)]
                )
                for name, value in columns.items()
            }
            kept = local.pop("weight") > 0
            parts.append({name: value[kept] for name, value in local.items()})
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.argsort(whole["track_id"], kind="stable")
        return {name: value[order] for name, value in whole.items()}


def _totals(logits, batch) -> dict[str, tf.Tensor]:
    """Weighted sums over a batch, of which a padding record is none."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
    correct = tf.cast(tf.argmax(logits, axis=-1) == batch["label"], tf.float32)
    weight = batch["weight"]
    return {
        "weight": tf.reduce_sum(weight),
        "loss": tf.reduce_sum(weight * losses),
        "correct": tf.reduce_sum(weight * correct),
    }


def _means(totals: dict[str, float]) -> dict[str, float]:
    return {
        "loss": totals["loss"] / totals["weight"],
        "accuracy": totals["correct"] / totals["weight"],
    }
