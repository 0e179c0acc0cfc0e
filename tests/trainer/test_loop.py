"""The steps: the same however many replicas share a batch."""

import dataclasses
import functools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from common import dataset_reader
from common.errors import UserFacingError
from configs import short_chunk, two_conv_mono
from trainer.data import reader
from trainer.model.poster import build_network
from trainer.run import devices, loop, optimizer
from trainer.train_config import TrainConfig

# Batches of 6, so that the last one of 40 clips has padding, as that of 8 has.
CONFIG = dataclasses.replace(
    TrainConfig.from_dict(two_conv_mono.get_config().to_dict()),
    dropout=0.0,
    batch_size=6,
    steps_per_call=1,
)


@pytest.fixture(scope="module")
def dataset_dir(small_dataset_dir):
    return small_dataset_dir


def losses(trainer, dataset_dir, epochs=2) -> list[float]:
    """The loss of every step."""
    steps = []
    for epoch in range(epochs):
        before = loop.Position(epoch=epoch)
        for progress in trainer.run_epoch(str(dataset_dir), before):
            now = progress.position
            steps.append((now.loss - before.loss) / (now.weight - before.weight))
            before = now
    return steps


def test_one_strategy_may_follow_another():
    for dtype in (tf.float32, tf.int64):  # TensorFlow knows what they sum by its number alone
        strategy = devices.strategy_for("mirrored")

        @tf.function
        def total(value, strategy=strategy):
            def add():
                return tf.distribute.get_replica_context().all_reduce("sum", tf.identity(value))

            return strategy.experimental_local_results(strategy.run(add))[0]

        assert total(tf.constant(3, dtype)) == 6


def test_two_replicas_train_as_one_device_does(dataset_dir):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    one = loop.Trainer(CONFIG, info, devices.strategy_for("one_device"))
    two = loop.Trainer(CONFIG, info, devices.strategy_for("mirrored"))
    assert (one.strategy.num_replicas_in_sync, two.strategy.num_replicas_in_sync) == (1, 2)
    for split in ("train", "validation"):  # so that a batch with padding is among them
        assert info.splits[split].num_examples % CONFIG.batch_size != 0
    expected = losses(one, dataset_dir)
    assert len(expected) >= 9
    np.testing.assert_allclose(losses(two, dataset_dir), expected, rtol=1e-3)

    of_one, of_two = (trainer.predict(str(dataset_dir), "validation") for trainer in (one, two))
    for name in ("track_id", "label", "artist_id"):
        np.testing.assert_array_equal(getattr(of_one, name), getattr(of_two, name))
    assert len(set(of_one.track_id)) == info.splits["validation"].num_examples
    np.testing.assert_allclose(of_one.probabilities, of_two.probabilities, atol=1e-3)


def test_padding_counts_for_nothing(dataset_dir):
    """A batch larger than the split trains as Keras does on exactly the records there are."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    size = info.splits["train"].num_examples
    config = dataclasses.replace(CONFIG, batch_size=size + 7)
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    batch = next(iter(reader.batches(info, str(dataset_dir), "train", batch_size=size)))
    shape = info.config.spectrogram.shape
    twin = build_network(config.network, shape=shape, num_classes=3, seed=config.seed)
    twin.compile(
        keras.optimizers.Adam(config.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    expected_loss = twin.train_on_batch(batch["spectrogram"], batch["label"])

    (progress,) = trainer.run_epoch(str(dataset_dir), loop.Position())
    assert progress.position.mean_loss == pytest.approx(float(expected_loss), rel=1e-5)
    for ours, theirs in zip(trainer.model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_batch_that_replicas_can_not_share(dataset_dir):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    config = dataclasses.replace(CONFIG, batch_size=5)
    with pytest.raises(
        UserFacingError, match=r"config\.batch_size: 5 can't be shared by 2 replicas"
    ):
        loop.Trainer(config, info, devices.strategy_for("mirrored"))


def test_clipped_gradients_are_those_of_the_whole_batch(dataset_dir):
    """One step, its gradient by hand: the first step of SGD moves by learning rate × gradient."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    config = dataclasses.replace(CONFIG, clip_norm=0.01)
    moved = []
    for name in ("one_device", "mirrored"):
        trainer = loop.Trainer(config, info, devices.strategy_for(name))
        with trainer.strategy.scope():
            trainer.optimizer = keras.optimizers.SGD(1.0)
            trainer.optimizer.build(trainer.model.trainable_variables)
        before = trainer.model.get_weights()
        next(trainer.run_epoch(str(dataset_dir), loop.Position()))
        after = trainer.model.get_weights()
        moved.append(np.concatenate([(b - a).ravel() for a, b in zip(after, before, strict=True)]))
    assert np.linalg.norm(moved[0]) == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(moved[1], moved[0], atol=1e-6)


# A processor is slow in float16: a step of the poster's networks takes it half a minute.
NARROW = dataclasses.replace(
    TrainConfig.from_dict(short_chunk.get_config().to_dict()).network, width=4, texture_members=0
)


@pytest.fixture(scope="module")
def in_float32(dataset_dir):
    """The losses of a config on one device, as two train; computed once for each."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))

    @functools.cache
    def of(config):
        trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
        return losses(trainer, dataset_dir)

    return of


@pytest.mark.parametrize(
    ("precision", "strategy", "network"),
    [
        ("mixed_bfloat16", "one_device", CONFIG.network),
        ("mixed_bfloat16", "mirrored", CONFIG.network),
        ("mixed_float16", "mirrored", NARROW),
    ],
)
def test_half_precision_trains_nearly_as_float32(
    strategy, precision, network, dataset_dir, in_float32
):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    config = dataclasses.replace(CONFIG, network=network, batch_size=12, precision=precision)
    half = loop.Trainer(config, info, devices.strategy_for(strategy))
    assert {weight.dtype for weight in half.model.weights} == {"float32"}
    expected = in_float32(dataclasses.replace(config, precision="float32"))
    np.testing.assert_allclose(losses(half, dataset_dir), expected, rtol=0.05)


def test_a_loss_scale_that_overflows_is_halved_and_changes_nothing(dataset_dir):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    config = dataclasses.replace(CONFIG, network=NARROW, precision="mixed_float16")
    trainer = loop.Trainer(config, info, devices.strategy_for("mirrored"))
    trainer.optimizer.dynamic_scale.assign(2.0**60)
    weights = trainer.model.trainable_weights  # batch normalisation changes its own all the same
    before = [weight.numpy() for weight in weights]
    next(trainer.run_epoch(str(dataset_dir), loop.Position()))
    assert float(trainer.optimizer.dynamic_scale.numpy()) == 2.0**59
    for now, then in zip(weights, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_rare_classes_weigh_more(dataset_dir):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    counts = list(info.splits["train"].class_counts.values())
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(optimizer.class_weights(info, "balanced"), expected, rtol=1e-6)
    plain = loop.Trainer(CONFIG, info, devices.strategy_for("one_device"))
    balanced = loop.Trainer(
        dataclasses.replace(CONFIG, class_weights="balanced"),
        info,
        devices.strategy_for("one_device"),
    )
    predictions = plain.predict(str(dataset_dir), "train")
    picked = predictions.probabilities[np.arange(len(labels)), predictions.label]
    by_hand = (expected[predictions.label] * -np.log(picked)).mean()
    whole = dataclasses.replace(balanced.config, batch_size=len(labels))
    trainer = loop.Trainer(whole, info, balanced.strategy)
    (progress,) = trainer.run_epoch(str(dataset_dir), loop.Position())
    assert progress.position.mean_loss == pytest.approx(by_hand, rel=1e-4)


def test_learning_rates():
    """Linear warm-up, then constant or half a cosine to 0 (Loshchilov and Hutter, 2017)."""
    config = dataclasses.replace(CONFIG, learning_rate=0.1, warmup_epochs=1.5, epochs=10)
    for name in ("constant", "cosine"):
        rate = optimizer.learning_rate(
            dataclasses.replace(config, learning_rate_schedule=name), 100
        )
        for step in range(0, 1001, 50):
            expected = 0.1 * min(step / 150, 1)
            if name == "cosine" and step > 150:
                expected = 0.05 * (1 + np.cos(np.pi * (step - 150) / 850))
            assert float(rate(step)) == pytest.approx(expected, abs=1e-7)
    assert optimizer.learning_rate(dataclasses.replace(config, warmup_epochs=0.0), 100) == 0.1
    for name in ("constant", "cosine"):
        short = dataclasses.replace(
            config, learning_rate_schedule=name, epochs=1, warmup_epochs=0.99
        )
        with pytest.raises(UserFacingError, match=r"warmup_epochs: 0\.99 leave none of 25 steps"):
            optimizer.learning_rate(short, 25)
        assert float(optimizer.learning_rate(short, 100)(99)) == pytest.approx(0.1)


def test_the_waiting_for_data_is_seen(dataset_dir, monkeypatch):
    """By a clock that only the reader moves, half a second for each batch that is waited for."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    waits, readings = threading.Semaphore(0), []
    clock = np.zeros((), np.float64)

    def read_clock():
        readings.append(None)
        if len(readings) % 2:  # before a batch; after it comes the second look
            waits.release()
        return clock.copy()

    def give_batch():
        assert waits.acquire(timeout=60)
        clock[()] += 0.5

    whole = reader.batches

    def slow(*arguments, **more):
        def wait(batch):
            tf.numpy_function(give_batch, [], [])
            return batch

        return whole(*arguments, **more).map(wait)

    monkeypatch.setattr(reader, "batches", slow)
    monkeypatch.setattr(
        loop, "_now", lambda: tf.ensure_shape(tf.numpy_function(read_clock, [], tf.float64), [])
    )
    trainer = loop.Trainer(CONFIG, info, devices.strategy_for("one_device"))
    waited = 0.0
    for progress in trainer.run_epoch(str(dataset_dir), loop.Position()):
        waited += progress.waited_seconds
    waits.release(1000)  # for the batches that are read ahead
    assert waited == pytest.approx(0.5 * trainer.steps_an_epoch)
