"""The network that a config asks for, for the records of a dataset."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.inputs import STANDING_CATEGORY, Inputs
from trainer.model import fusion, poster
from trainer.model.input_encoder import encoder_of, inputs_of
from trainer.model.joint_head import MAX_GENRES, Seeds
from trainer.model.short_chunk import AudioTowers, MeanAnswer, PictureAnswer
from trainer.network_config import FusionConfig, NetworkConfig, PosterConfig, ShortChunkConfig

# Columns of a batch that a network is trained to tell, see `losses`.
TARGETS = ("label", "genre_index", "log_listens")
GENRES_OF_HEAD = "the genres of its heads"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Two models of the same layers.

    Attributes:
        model: what answers: from `spectrogram` uint8 [batch, height, width], or from a dict of this
            and, where the network takes them, `metadata` float32 [batch, size] (see
            `input_encoder`), `chroma` and `tempo` uint8, to logits float32 [batch, classes].
        learner: what is trained: the same, which may also take `whole`, the picture as it is
            stored, to a dict of `logits` and, where the network has heads that are trained on their
            own, their answers (logits [batch, genres, classes], log listens [batch]): `augmented`
            of the one that sees `spectrogram`, the lists `stored` and `of_metadata` of those that
            see the rest, and the list `classes` [batch, classes] each.
        inputs: that it takes beside the picture.
    """

    model: keras.Model
    learner: keras.Model
    inputs: Inputs


def build(
    config: NetworkConfig,
    info: DatasetInfo,
    *,
    dropout: float = 0.0,
    seed: int = 0,
    precision: str = "float32",
) -> Network:
    """Builds a network.

    Args:
        config: which one.
        info: of the dataset, which has the pictures' shape and mean, the classes, the vocabularies.
        dropout: share of the last features that training drops.
        seed: of the first weights and of the dropout.
        precision: of the layers' arithmetic, one of `train_config.PRECISIONS`; the weights and the
            logits are float32 in all.

    Raises:
        UserFacingError: it does not fit the dataset.
    """
    if isinstance(config, PosterConfig):
        model = poster.build_network(
            config,
            shape=info.config.spectrogram.shape,
            num_classes=len(info.class_names),
            statistics=None if info.statistics is None else info.statistics.spectrogram,
            dropout=dropout,
            seed=seed,
            precision=precision,
        )
        learner = keras.Model(model.inputs[0], {"logits": model.outputs[0]})
        return Network(model=model, learner=learner, inputs=Inputs())
    return _build_towers(config, info, dropout=dropout, seed=seed, precision=precision)


def genres_of(info: DatasetInfo) -> tuple[str, ...]:
    """The genres that a joint head tells apart, the most frequent first; none if unknown."""
    if info.statistics is None:
        return ()
    return tuple(info.statistics.categories.get(STANDING_CATEGORY, ()))[:MAX_GENRES]


def encoding_of(config: NetworkConfig, info: DatasetInfo) -> dict[str, str]:
    """What the weights beside the pictures' are for: {input: SHA-256 of its values or quantiles}.

    `GENRES_OF_HEAD` is none of the inputs, but what the heads tell apart.
    """
    if isinstance(config, PosterConfig):
        return {}
    encoder = encoder_of(inputs_of(config, info), info)
    known: dict[str, Any] = {} if encoder is None else encoder.known
    known |= {GENRES_OF_HEAD: genres_of(info)}
    return {
        name: hashlib.sha256(json.dumps(values).encode()).hexdigest()
        for name, values in known.items()
    }


def class_shares(info: DatasetInfo) -> list[float]:
    """How frequent each class is in the training split; evenly where it is empty."""
    # Of the counts alone: an update of a dataset that grows reads fewer clips than are counted.
    counts = [info.splits["train"].class_counts[name] for name in info.class_names]
    if not sum(counts):
        return [1 / len(counts)] * len(counts)
    return [count / sum(counts) for count in counts]


def is_of_head(path: str) -> bool:
    """Returns whether a weight of this path is one of the last layers, whose shape has the classes.

    Those of a joint head have the genres as well.
    """
    layer = path.partition("/")[0]
    return layer in ("logits", "genre_shares") or layer.endswith("_head")


def arguments_of(values: Mapping[str, tf.Tensor], model: keras.Model) -> Any:
    """Of the columns of a batch those that a model takes, as it takes them."""
    names = [tensor.name for tensor in model.inputs]
    if names == ["spectrogram"]:
        return values["spectrogram"]
    return {name: values["spectrogram" if name == "whole" else name] for name in names} | {
        name: values[name] for name in names if name in values
    }


def arrays_of(inputs: Inputs) -> tuple[str, ...]:
    """Which of the pictures of harmony and rhythm are inputs, in the order of the network's."""
    return tuple(name for name in ("chroma", "tempo") if getattr(inputs, name))


def with_unknown(columns: Mapping[str, tf.Tensor], model: keras.Model) -> dict[str, tf.Tensor]:
    """The columns of a batch, and for those that a model takes and that are missing, unknown."""
    batch_size = tf.shape(columns["spectrogram"])[0]
    missing = {
        tensor.name: tf.zeros([batch_size, *tensor.shape[1:]], tensor.dtype)
        for tensor in model.inputs
        if tensor.name != "spectrogram"
    }
    return missing | dict(columns)


def _build_towers(
    config: ShortChunkConfig, info: DatasetInfo, *, dropout: float, seed: int, precision: str
) -> Network:
    """A network of audio towers, and with a FusionConfig of those for the other inputs."""
    if info.statistics is None:
        raise UserFacingError(
            f"config.network.architecture: {config.architecture} takes the mean of the pictures "
            "from the dataset_info.json, which has no statistics; build the dataset again with "
            "this version"
        )
    inputs = inputs_of(config, info)
    seeds = Seeds(seed)
    shares, num_genres = class_shares(info), max(1, len(genres_of(info)))
    towers = AudioTowers(
        config,
        num_genres=num_genres,
        class_shares=shares,
        statistics=info.statistics.spectrogram,
        dropout=dropout,
        seeds=seeds,
        precision=precision,
        synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1,
    )
    shape = info.config.spectrogram.shape
    taken = {"spectrogram": keras.Input((shape[0], None), dtype="uint8", name="spectrogram")}
    whole = keras.Input(shape, dtype="uint8", name="whole")
    stored = keras.Input(shape, dtype="uint8", name="spectrogram")
    beside: dict[str, Any] = {}
    for name in arrays_of(inputs):
        beside[name] = keras.Input(info.features[name]["shape"], dtype="uint8", name=name)
    encoder = encoder_of(inputs, info)
    if encoder is not None:
        beside["metadata"] = keras.Input((encoder.size,), dtype="float32", name="metadata")
    mean_answer = MeanAnswer(
        config.temperature, first_share=config.convolution_share, name="mean_answer"
    )
    picture_answer = PictureAnswer(shares, config.logit_adjustment, name="picture_answer")

    of_training = towers(taken["spectrogram"], whole=whole)
    of_answer = towers(stored, whole=stored)
    classes: list[Any] = []
    joint, joint_in_training = (
        mean_answer([logits for logits, _ in answers]) for answers in (of_answer, of_training)
    )
    augmented, *trained = of_training
    members: list[Any] = []
    if arrays_of(inputs):
        parts = [beside[name] for name in arrays_of(inputs)]
        answer, known = fusion.harmony_tower(
            parts, num_genres=num_genres, class_shares=shares, seeds=seeds
        )
        trained.append(answer)
        with_harmony = fusion.WithHarmony(dtype="float32", name="with_harmony")
        harmony = mean_answer([answer[0]])
        joint, joint_in_training = (
            with_harmony([each, harmony, known]) for each in (joint, joint_in_training)
        )
    if "metadata" in beside:
        assert isinstance(config, FusionConfig) and encoder is not None
        metadata, stretches = beside["metadata"], encoder.stretches
        genre, history = stretches.get(STANDING_CATEGORY), fusion.history_in(stretches)
        seen = {"member": metadata}
        if history is not None:
            seen["newcomer"] = fusion.Without(history, name="without_history")(metadata)
        values: dict[str, Any] = {"metadata": metadata}
        for kind, vector in seen.items():
            values[kind] = []
            for number in range(1, config.members + 1):
                name = f"{kind}{number}"
                answer = fusion.member(
                    vector, config, name=name, class_shares=shares, dropout=dropout, seeds=seeds
                )
                members.append(answer)
                flat = keras.layers.Reshape((len(shares),), dtype="float32", name=name)
                values[kind].append(flat(answer[0]))
        if genre is not None:
            values["of_genre"] = fusion.genre_head(metadata, genre, num_genres, shares)
            classes.append(values["of_genre"])
        combine = fusion.Combine(
            shares,
            config.picture_weight,
            genre=genre,
            history=history,
            name="combine",
        )
        logits, logits_in_training = (
            combine(values | {"joint": each, "of_picture": picture_answer(each)})
            for each in (joint, joint_in_training)
        )
    else:
        logits, logits_in_training = (picture_answer(each) for each in (joint, joint_in_training))
    answering = {"spectrogram": stored} | beside
    learner = keras.Model(
        taken | {"whole": whole} | beside,
        {
            "logits": logits_in_training,
            "augmented": augmented,
            "stored": trained,
            "of_metadata": members,
            "classes": classes,
        },
    )
    model = keras.Model(answering if beside else stored, logits)
    return Network(model=model, learner=learner, inputs=inputs)
