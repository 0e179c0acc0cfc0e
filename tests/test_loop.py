"""The steps: the same however many replicas share a batch."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_pipelines.command import InputError
from configs import six_conv_rgb
from trainer import dataset, loop
from trainer.network import build_network
from trainer.train_config import TrainConfig

CONFIG = dataclasses.replace(
    TrainConfig.from_dict(six_conv_rgb.get_config().to_dict()), dropout=0.0, batch_size=4
)


def losses(trainer, dataset_dir, epochs=3) -> list[float]:
    """The loss of every step."""
    steps = []
    for epoch in range(epochs):
        iterator = iter(trainer.distributed("train", str(dataset_dir), epoch=epoch))
        for _ in range(dataset.num_steps(trainer.info, "train", global_batch_size=4)):
            totals = trainer.train_steps(iterator, tf.constant(1))
            steps.append(float(totals["loss"] / totals["weight"]))
    return steps


def test_two_replicas_train_as_one_device_does(dataset_dir):
    info = dataset.load_info(str(dataset_dir))
    one = loop.Trainer(CONFIG, info, loop.strategy_for("one_device"))
    two = loop.Trainer(CONFIG, info, loop.strategy_for("mirrored"))
    assert (one.strategy.num_replicas_in_sync, two.strategy.num_replicas_in_sync) == (1, 2)
    assert info.splits["train"].num_examples % 4 != 0  # so that a batch with padding is among them
    expected = losses(one, dataset_dir)
    assert len(expected) >= 9
    np.testing.assert_allclose(losses(two, dataset_dir), expected, rtol=1e-3)

    answers = [trainer.predictions(str(dataset_dir), "test") for trainer in (one, two)]
    for name in ("track_id", "label", "artist_id"):
        np.testing.assert_array_equal(answers[0][name], answers[1][name])
    assert len(set(answers[0]["track_id"])) == info.splits["test"].num_examples
    np.testing.assert_allclose(answers[0]["probabilities"], answers[1]["probabilities"], atol=1e-3)


def test_padding_counts_for_nothing(dataset_dir):
    """A batch larger than the split trains as Keras does on exactly the records there are."""
    info = dataset.load_info(str(dataset_dir))
    size = info.splits["train"].num_examples
    config = dataclasses.replace(CONFIG, batch_size=size + 7)
    trainer = loop.Trainer(config, info, loop.strategy_for("one_device"))
    batch = next(iter(dataset.batches(info, str(dataset_dir), "train", batch_size=size)))
    twin = build_network(config.network, shape=(102, 159), num_classes=3, seed=config.seed)
    twin.compile(
        keras.optimizers.Adam(config.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    expected_loss = twin.train_on_batch(batch["spectrogram"], batch["label"])

    means = trainer.train_epoch(str(dataset_dir), 0, lambda *_: None)
    assert means["loss"] == pytest.approx(float(expected_loss), rel=1e-5)
    for ours, theirs in zip(trainer.model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_batch_that_replicas_can_not_share(dataset_dir):
    info = dataset.load_info(str(dataset_dir))
    config = dataclasses.replace(CONFIG, batch_size=5)
    with pytest.raises(InputError, match=r"config\.batch_size: 5 can't be shared by 2 replicas"):
        loop.Trainer(config, info, loop.strategy_for("mirrored"))
