"""The training losses: one for each output of a network, and their sum."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.train_config import TrainConfig


def losses(
    outputs: Mapping[str, Any], targets: Mapping[str, tf.Tensor], config: TrainConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """The losses of each example, float32 [batch] each: of what is augmented, and of what is not.

    With mixup the first is asked for the other example of a pair, too; what sees the records as
    they are stored is not.

    Args:
        outputs: of `Network.learner`. Heads of their own are trained instead of what is put
            together from them.
        targets: `label` int64 [batch]; for joint heads `genre_index` int64 [batch], −1 where there
            is none, and `log_listens` float32 [batch].
        config: whose `label_smoothing`, `ordinal_loss`, `genre_loss`, `listens_loss` are looked at.
    """
    label = targets["label"]
    of_stored = tf.zeros(tf.shape(label)[:1])
    if "augmented" not in outputs:
        return of_classes(outputs["logits"], label, config), of_stored
    for head in outputs["stored"]:
        of_stored += of_head(head, targets, config)
    # Smoothed, what metadata say was worse in cross-validation: they are surer than a picture.
    plain = dataclasses.replace(config, label_smoothing=0.0)
    for logits in outputs["classes"]:
        of_stored += of_classes(logits, label, plain)
    for head in outputs["of_metadata"]:
        of_stored += of_head(head, targets, plain)
    return of_head(outputs["augmented"], targets, config), of_stored


def of_head(
    head: tuple[tf.Tensor, tf.Tensor], targets: Mapping[str, tf.Tensor], config: TrainConfig
) -> tf.Tensor:
    """The loss [batch] of a joint head: logits [batch, genres, classes] and log listens [batch]."""
    joint, log_listens = head
    total = of_classes(tf.reduce_logsumexp(joint, axis=1), targets["label"], config)
    if config.genre_loss and joint.shape[1] > 1:
        total += config.genre_loss * of_genre_and_class(
            joint, targets["genre_index"], targets["label"], config.label_smoothing
        )
    if config.listens_loss:
        total += config.listens_loss * huber(log_listens - targets["log_listens"])
    return total


def of_classes(logits: tf.Tensor, label: tf.Tensor, config: TrainConfig) -> tf.Tensor:
    """Cross-entropy [batch] of logits [batch, classes], smoothed and made ordinal as asked for."""
    loss = smoothed(
        tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits),
        -tf.nn.log_softmax(logits) if config.label_smoothing else None,
        config.label_smoothing,
    )
    if config.ordinal_loss:
        loss += config.ordinal_loss * ranked(tf.nn.softmax(logits), label)
    return loss


def of_genre_and_class(
    joint: tf.Tensor, genre: tf.Tensor, label: tf.Tensor, smoothing: float
) -> tf.Tensor:
    """Cross-entropy [batch] of joint logits [batch, genres, classes]; 0 where no genre is known.

    What is smoothed are the classes, within the genre.
    """
    num_genres, num_classes = joint.shape[1:]
    log_shares = tf.nn.log_softmax(tf.reshape(joint, [-1, num_genres * num_classes]))
    log_shares = tf.reshape(log_shares, [-1, num_genres, num_classes])
    mine = tf.gather(log_shares, tf.maximum(genre, 0), axis=1, batch_dims=1)
    given = tf.gather(mine, label, axis=1, batch_dims=1)
    return tf.where(genre >= 0, smoothed(-given, -mine if smoothing else None, smoothing), 0.0)


def smoothed(loss: tf.Tensor, of_all: tf.Tensor | None, smoothing: float) -> tf.Tensor:
    """Mixes the loss of the label with the mean over all classes (C. Szegedy et al., 2016)."""
    if of_all is None:
        return loss
    return (1 - smoothing) * loss + smoothing * tf.reduce_mean(of_all, axis=-1)


def ranked(probabilities: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """The ranked probability score [batch]: medium for high costs less than low for high.

    The squared distance of the cumulative probabilities (E. Epstein, A Scoring System for
    Probability Forecasts of Ranked Categories, 1969).
    """
    num_classes = probabilities.shape[1]
    below = tf.cumsum(probabilities, axis=1)[:, :-1]
    truth = tf.cast(
        label[:, tf.newaxis] <= tf.range(num_classes - 1, dtype=label.dtype), tf.float32
    )
    return tf.reduce_sum((below - truth) ** 2, axis=1)


def huber(difference: tf.Tensor) -> tf.Tensor:
    """The square near 0, a straight line beyond 1 (P. Huber, 1964)."""
    size = tf.abs(difference)
    return tf.where(size <= 1, 0.5 * difference**2, size - 0.5)
