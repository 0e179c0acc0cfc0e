"""The training loop: the same for one device, several, and several workers.

Keras 3's `model.fit` does not train under several workers, so the steps are our own. A replica
sums its weighted losses and divides by the weight of the whole global batch; the optimizer adds
the replicas' gradients. So the steps are the same however many replicas share a batch.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from trainer.data import reader
from trainer.data.augment import Augmentation, other_of_pair
from trainer.evaluation.predictions import Predictions
from trainer.model import input_encoder, network
from trainer.model.losses import losses
from trainer.network_config import PosterConfig
from trainer.run.checkpoints import Arrays, Damaged
from trainer.run.devices import local_replicas
from trainer.run.optimizer import class_weights, optimizer_of
from trainer.train_config import TrainConfig

Batch = dict[str, tf.Tensor]  # of a replica, or of all of them: see `reader.batches`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """How far a training run is: what its steps have seen of an epoch.

    Attributes:
        epoch: counted from 0.
        step: steps done in this epoch.
        weight, loss, correct: sums over the examples of these steps.
    """

    epoch: int = 0
    step: int = 0
    weight: float = 0.0
    loss: float = 0.0
    correct: float = 0.0

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weight

    @property
    def accuracy(self) -> float:
        return self.correct / self.weight


class Diverged(UserFacingError):
    """A loss or weights are not finite any more."""

    def __init__(self, position: Position):
        super().__init__(
            f"epoch {position.epoch + 1}: the loss is not finite; start anew with a lower "
            "--config.learning_rate and another --model_dir"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a call of the compiled steps came.

    Attributes:
        position: after it.
        waited_seconds: how long its steps waited for their batches.
        stop: whether any worker was asked to stop.
    """

    position: Position
    waited_seconds: float
    stop: bool


class Trainer:
    """Holds a network and its optimizer under a strategy, and the compiled steps.

    Args:
        config: of the training run.
        info: of the dataset, which gives the shape of the pictures and the classes.
        strategy: under which everything is made and run.

    Raises:
        UserFacingError: the replicas can't share a batch, or the config does not fit the pictures.
    """

    def __init__(self, config: TrainConfig, info: DatasetInfo, strategy: tf.distribute.Strategy):
        replicas = strategy.num_replicas_in_sync
        require(
            config.batch_size % replicas == 0,
            f"config.batch_size: {config.batch_size} can't be shared by {replicas} replicas",
        )
        check_augmentation(config, info, batch_size=config.batch_size // replicas)
        self.config = config
        self.info = info
        self.strategy = strategy
        self.steps_an_epoch = reader.num_steps(info, "train", global_batch_size=config.batch_size)
        self._class_weights = class_weights(info, config.class_weights)
        with strategy.scope():
            trained = self._build()
            # The averages of the weights are the weights of a network of their own.
            answering = self._build() if config.weight_average else trained
            self.model, self._learner = answering.model, trained.learner
            self._averages = []
            if config.weight_average:
                pairs = zip(answering.model.weights, trained.model.weights, strict=True)
                self._averages = list(pairs)
            self.optimizer = optimizer_of(config, self.steps_an_epoch)
            self.optimizer.build(self._learner.trainable_variables)
            # What each replica has seen in a call of `run_steps`.
            self._sums = {
                name: tf.Variable(
                    0.0,
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
                for name in ("weight", "loss", "correct")
            }
        inputs = trained.inputs
        encoder = input_encoder.encoder_of(inputs, info)
        arrays = network.arrays_of(inputs)
        self._taken = reader.Beside(encoder=encoder, arrays=arrays)
        self._learned = self._taken
        has_heads = not isinstance(config.network, PosterConfig)
        if has_heads:
            self._learned = dataclasses.replace(
                self._taken,
                genres=network.genres_of(info) if config.genre_loss else (),
                log_listens=bool(config.listens_loss),
            )
        self._augmentation = Augmentation.of(
            config,
            fill=fill_levels(info) if has_heads else (),
            groups=() if encoder is None else tuple(encoder.groups.tolist()),
            input_dropout=() if encoder is None else encoder.rates(config.input_dropout),
            keep_whole=has_heads,
        )

    def _build(self) -> network.Network:
        config = self.config
        return network.build(
            config.network,
            self.info,
            dropout=config.dropout,
            seed=config.seed,
            precision=config.precision,
        )

    # ---- state

    def state(self) -> dict[str, NDArray[Any]]:
        """Returns a copy of all variables that a training run resumes from, by name."""
        return {name: np.array(variable) for name, variable in self._variables().items()}

    def restore(self, state: Arrays, *, name: str) -> None:
        """Sets all variables to a state.

        Raises:
            Damaged: the state, called `name`, is not one of this network and optimizer.
        """
        variables = self._variables()
        fits = variables.keys() <= state.keys() and all(
            tuple(variable.shape) == state[name].shape for name, variable in variables.items()
        )
        if not fits:
            raise Damaged(f"{name}: not a state of this network")
        for key, variable in variables.items():
            variable.assign(state[key])

    def set_weights(self, weights: Arrays) -> None:
        """Sets the network's weights, by their paths; their averages begin there as well."""
        for weight in self.model.weights:
            weight.assign(weights[weight.path])
        for average, weight in self._averages:
            weight.assign(np.asarray(average.numpy()))

    def _variables(self) -> dict[str, keras.Variable]:
        # The model's include the state of the dropout's generator.
        of_model = {f"model/{variable.path}": variable for variable in self.model.variables}
        of_optimizer = {f"optimizer/{v.path}": v for v in self.optimizer.variables}
        of_learner = {}
        if self._averages:
            of_learner = {f"learner/{v.path}": v for v in self._learner.variables}
        return of_model | of_learner | of_optimizer

    # ---- steps

    # Of what is compiled only the loop over steps needs AutoGraph, which takes some 3 s of the
    # start of a training run to rewrite the rest.
    @tf.function
    def run_steps(
        self, iterator: tf.distribute.DistributedIterator, num_steps: tf.Tensor, stop: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Trains on the next `num_steps` batches.

        Returns:
            sums of `weight`, `loss` and `correct` over all replicas, `stop` of all workers, and the
            seconds that this worker waited for its batches.
        """
        for total in self._sums.values():
            total.assign(0.0)
        waited = tf.zeros((), tf.float64)
        for _ in tf.range(num_steps):
            before = _now()
            batch = iterator.get_next()
            with tf.control_dependencies(self.strategy.experimental_local_results(batch["weight"])):
                waited += _now() - before
            self.strategy.run(self._replica_step, args=(batch,))
            self._update_averages()
        return self._totals_of_all(stop), waited

    @tf.autograph.experimental.do_not_convert
    def _totals_of_all(self, stop: tf.Tensor) -> dict[str, tf.Tensor]:
        def of_all_replicas() -> dict[str, tf.Tensor]:
            mine = self._sums | {"stop": tf.cast(stop, tf.float32)}
            context = tf.distribute.get_replica_context()
            totals: dict[str, tf.Tensor] = context.all_reduce(
                tf.distribute.ReduceOp.SUM, {name: tf.identity(mine[name]) for name in mine}
            )
            return totals

        totals = self.strategy.run(of_all_replicas)
        return {name: self._first_local(total) for name, total in totals.items()}

    @tf.autograph.experimental.do_not_convert
    def _replica_step(self, batch: Batch) -> None:
        """Trains a replica by one step, in which the replicas' gradients are added up once."""
        with tf.GradientTape() as tape:
            outputs = self._learner(network.arguments_of(batch, self._learner), training=True)
            totals = self._totals(outputs["logits"], batch)
            objective = self._objective(outputs, batch)
            loss = self.optimizer.scale_loss(objective / self._examples_in_step(batch))
        variables = self._learner.trainable_variables
        gradients = tape.gradient(loss, variables)
        clip_norm = self.config.clip_norm
        if clip_norm or self.config.precision == "mixed_float16":
            # Gradient clipping by Keras, and its check that they are finite, would be done on the
            # gradients of each replica, before they are added up.
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            if clip_norm:
                scaled = self.optimizer.scale_loss(clip_norm)
                gradients, _ = tf.clip_by_global_norm(gradients, scaled)
            gradients = [g / self.strategy.num_replicas_in_sync for g in gradients]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for name, total in totals.items():
            self._sums[name].assign_add(total)

    def _objective(self, outputs: Mapping[str, Any], batch: Batch) -> tf.Tensor:
        """The weighted sum over a batch of what the gradients make smaller."""

        def of(targets: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            weights = tf.gather(tf.constant(self._class_weights), targets["label"])
            of_augmented, of_stored = losses(outputs, targets, self.config)
            return weights * of_augmented, weights * of_stored

        targets = {name: batch[name] for name in network.TARGETS if name in batch}
        of_augmented, of_stored = of(targets)
        if "own_share" in batch:
            others, _ = of({name: other_of_pair(values) for name, values in targets.items()})
            of_augmented = batch["own_share"] * of_augmented + (1 - batch["own_share"]) * others
        return tf.reduce_sum(batch["weight"] * (of_augmented + of_stored))

    @tf.autograph.experimental.do_not_convert
    def _update_averages(self) -> None:
        """Draws the averages towards the weights, at first faster, from where they began."""
        if not self._averages:
            return
        steps = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.config.weight_average, (1 + steps) / (10 + steps))
        for average, weight in self._averages:
            average.assign(average + (1 - decay) * (weight - average))

    def _examples_in_step(self, batch: Batch) -> tf.Tensor:
        """Counts the examples in the batches of all replicas, fewer in the last step."""
        size = self.config.batch_size
        before = batch["index"][0] // size * size
        left = self.info.splits["train"].num_examples - before
        return tf.cast(tf.minimum(left, size), tf.float32)

    def _totals(self, logits: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """Sums over the examples of a batch, without the padding."""
        label, weight = batch["label"], batch["weight"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
        losses *= tf.gather(tf.constant(self._class_weights), label)
        correct = tf.cast(tf.argmax(logits, axis=-1) == label, tf.float32)
        return {
            "weight": tf.reduce_sum(weight),
            "loss": tf.reduce_sum(weight * losses),
            "correct": tf.reduce_sum(weight * correct),
        }

    @tf.function(autograph=False)
    def predict_step(
        self, iterator: tf.distribute.DistributedIterator, stop: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Predicts the next batches of all replicas.

        Returns:
            probabilities [batch, classes], and [batch] each index and weight of the records; and
            [replicas], whether the worker of each was asked to `stop`.
        """

        def predict(batch: Batch) -> tuple[tf.Tensor, ...]:
            logits = self.model(network.arguments_of(batch, self.model), training=False)
            return tf.nn.softmax(logits), batch["index"], batch["weight"], stop[tf.newaxis]

        of_replicas = self.strategy.run(predict, args=(iterator.get_next(),))
        return tuple(self.strategy.gather(values, axis=0) for values in of_replicas)

    def _first_local(self, value: tf.Tensor) -> tf.Tensor:
        """Returns a value that is the same in every replica, of the first one here."""
        return self.strategy.experimental_local_results(value)[0]

    # ---- passes

    def distributed(
        self, split: str, dataset_dir: str, *, epoch: int | None = None, first_step: int = 0
    ) -> Iterable[Batch]:
        """Streams one pass over a split: shuffled and augmented in an `epoch`, else as stored."""
        config, replicas = self.config, self.strategy.num_replicas_in_sync
        training: dict[str, Any] = {"beside": self._taken}
        if epoch is not None:
            training = {
                "beside": self._learned,
                "shuffle_buffer": config.shuffle_buffer,
                "seed": config.seed,
                "epoch": epoch,
                "first_step": first_step,
                "augmentation": self._augmentation if self._augmentation.changes else None,
            }

        def of_worker(_: tf.distribute.InputContext) -> tf.data.Dataset:
            return reader.batches(
                self.info,
                dataset_dir,
                split,
                batch_size=config.batch_size // replicas,
                num_replicas=replicas,
                local_replicas=local_replicas(self.strategy),
                names=("label",),
                **training,
            )

        distributed: Iterable[Batch] = self.strategy.distribute_datasets_from_function(of_worker)
        return distributed

    def run_epoch(
        self,
        dataset_dir: str,
        position: Position,
        *,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> Iterator[Progress]:
        """Trains from a position to the end of its epoch, on every example left in it once.

        Args:
            dataset_dir: where the shards lie.
            position: where to resume; its epoch decides the order of the examples.
            stop_asked: whether this worker has been asked to stop.

        Yields:
            the progress after each call of the compiled steps.
        """
        iterator = iter(
            self.distributed("train", dataset_dir, epoch=position.epoch, first_step=position.step)
        )
        while position.step < self.steps_an_epoch:
            # A run is checkpointed and stopped between calls only, so that it adds up the same sums
            # wherever that was.
            count = min(self.config.steps_per_call, self.steps_an_epoch - position.step)
            totals, waited = self.run_steps(
                iterator, tf.constant(count), tf.constant(int(stop_asked()))
            )
            position = Position(
                epoch=position.epoch,
                step=position.step + count,
                weight=position.weight + float(totals["weight"]),
                loss=position.loss + float(totals["loss"]),
                correct=position.correct + float(totals["correct"]),
            )
            yield Progress(
                position=position, waited_seconds=float(waited), stop=bool(totals["stop"] > 0)
            )

    def predict(
        self, dataset_dir: str, split: str, *, stop_asked: Callable[[], bool] = lambda: False
    ) -> Predictions | None:
        """Predicts every example of a split, exactly once.

        Args:
            dataset_dir: where the shards lie.
            split: which.
            stop_asked: whether this worker has been asked to stop.

        Returns:
            the predictions; None in every worker if one was asked to stop before the end.
        """
        columns = reader.read_columns(self.info, dataset_dir, split, Predictions.columns())
        num_examples = self.info.splits[split].num_examples
        probabilities = np.zeros([num_examples, len(self.info.class_names)], np.float32)
        times_predicted = np.zeros(num_examples, int)
        iterator = iter(self.distributed(split, dataset_dir))
        num_steps = reader.num_steps(self.info, split, global_batch_size=self.config.batch_size)
        for _ in range(num_steps):
            of_replicas = self.predict_step(iterator, tf.constant(int(stop_asked())))
            predicted, index, weight, stop = (value.numpy() for value in of_replicas)
            if stop.any():
                return None
            kept = weight > 0
            probabilities[index[kept]] = predicted[kept]
            times_predicted[index[kept]] += 1
        assert (times_predicted == 1).all(), "an example was left out or predicted twice"
        return Predictions(probabilities=probabilities, **columns)


@tf.autograph.experimental.do_not_convert
def _now() -> tf.Tensor:
    """Reads a clock in a compiled function; op determinism forbids TensorFlow's own."""
    return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64), [])


def check_augmentation(config: TrainConfig, info: DatasetInfo, *, batch_size: int) -> None:
    """Raises UserFacingError if what training changes does not fit the pictures or the network.

    Args:
        config: of the training.
        info: of the dataset.
        batch_size: of a replica.
    """
    height, width = info.config.spectrogram.shape
    for name, value, limit in (
        ("freq_mask", config.freq_mask, height),
        ("time_mask", config.time_mask, config.time_crop or width),
        ("time_crop", config.time_crop, width),
    ):
        require(value <= limit, f"config.{name}: {value}, the pictures have {limit}")
    require(
        not config.mixup or batch_size % 2 == 0,
        f"config.mixup: pairs are mixed, and a replica's batch has {batch_size} examples",
    )
    if isinstance(config.network, PosterConfig):
        for name in ("time_crop", "genre_loss", "listens_loss"):
            require(
                not getattr(config, name),
                f"config.{name}: {getattr(config, name)}, which the poster's networks do not take",
            )
    require(
        not config.genre_loss or bool(network.genres_of(info)),
        f"config.genre_loss: {config.genre_loss}, but the dataset's statistics have no genre; "
        "build it with --config.inputs.categories=\"('genre',)\"",
    )


def fill_levels(info: DatasetInfo) -> tuple[int, ...]:
    """The mean level of each band, which a standardised picture has zeros for."""
    if info.statistics is None:
        return ()
    return tuple(round(level) for level in info.statistics.spectrogram.mean)
