"""The networks beyond the poster's: what they take, what they learn, and what they do not."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import audio_features
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.inputs import Inputs
from configs import dataset_artist, fusion, short_chunk
from tests.support import drifting
from tests.support.datasets_with_inputs import write_dataset
from tests.support.made_sounds import made_piece
from trainer.data import augment, reader
from trainer.data.augment import Augmentation
from trainer.evaluation.predictions import Predictions
from trainer.model import network
from trainer.model.input_encoder import InputEncoder, encoder_of
from trainer.run import devices, input_importance, loop, split_evaluation
from trainer.train_config import TrainConfig

INPUTS = Inputs(
    categories=("genre", "licence"),
    numbers=("date_created", "tempo_of_cover"),
    texts=("title",),
    artist_history=True,
)
SMALL = dict(width=8, texture_units=16, texture_members=1)


def config_of(module, *, time_crop=16, **changes) -> TrainConfig:
    config = TrainConfig.from_dict(module.get_config().to_dict())
    small = dict(SMALL)
    if module is fusion:
        small |= dict(hidden_units=(16,), members=2)
    return dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, **small),
        time_crop=time_crop,
        **changes,
    )


def made_records(count: int, *, seed: int, planted: bool = True) -> list[dict]:
    """Noise as pictures; the licence says the class, or nothing does."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = int(generator.integers(3))
        told = label if planted else int(generator.integers(3))
        found.append(
            {
                "spectrogram": generator.integers(0, 256, drifting.SIGNAL.shape, np.uint8),
                "label": label,
                "listens": 10 ** (label + 2),
                "genre": [b"Rock", b"Folk", b""][generator.integers(3)],
                "date_created": int(generator.integers(1_200_000_000, 1_500_000_000)),
                "category/licence": [b"by", b"by-nc", b"by-sa"][told],
                "number/tempo_of_cover": float(generator.normal()) if told else None,
                "text/title": [b"The Love", b"Noise 2", None][generator.integers(3)],
                "artist_tracks": int(generator.integers(3)),
                "artist_mean_log_listens": float(generator.normal(6)),
            }
        )
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[str, DatasetInfo]:
    """A dataset of small pictures whose classes are planted in a category, and its description."""
    folder = tmp_path_factory.mktemp("made") / "dataset"
    splits = {
        "train": made_records(960, seed=1),
        "validation": made_records(32, seed=2),
        "test": made_records(60, seed=3),
    }
    return str(folder), write_dataset(folder, inputs=INPUTS, splits=splits, config=drifting.CONFIG)


def columns_of(info: DatasetInfo, built: network.Network, count: int) -> dict[str, tf.Tensor]:
    pictures = np.random.default_rng(0).integers(0, 256, (count, *drifting.SIGNAL.shape), np.uint8)
    return network.with_unknown({"spectrogram": tf.constant(pictures)}, built.model)


# ---- the networks


def test_without_metadata_fusion_answers_as_the_network_for_audio(made):
    """Of the same first weights; and the weights of all that is beside the picture add to it."""
    _, info = made
    audio = network.build(config_of(short_chunk).network, info, seed=5)
    both = network.build(config_of(fusion).network, info, seed=5)
    assert both.model.count_params() > audio.model.count_params()
    assert both.inputs == INPUTS
    columns = columns_of(info, both, 4)
    expected = audio.model(columns["spectrogram"], training=False)
    answers = both.model(network.arguments_of(columns, both.model), training=False)
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    known = columns | {"metadata": tf.ones_like(columns["metadata"])}
    answers = both.model(network.arguments_of(known, both.model), training=False)
    assert np.abs(answers - expected).max() > 1e-3


def test_an_input_that_the_dataset_does_not_have(made):
    _, info = made
    config = dataclasses.replace(config_of(fusion).network, inputs=("genre", "weather"))
    with pytest.raises(UserFacingError, match=r"config\.network\.inputs: .* no weather; it has"):
        network.build(config, info)


def test_only_what_is_named_is_taken(made):
    _, info = made
    config = dataclasses.replace(config_of(fusion).network, inputs=("genre", "artist_history"))
    assert network.build(config, info).inputs == Inputs(categories=("genre",), artist_history=True)


def test_an_older_dataset_without_statistics(made):
    _, info = made
    with pytest.raises(UserFacingError, match=r"no statistics; build the dataset again"):
        network.build(config_of(short_chunk).network, dataclasses.replace(info, statistics=None))


# ---- the encoder


def test_unknown_is_zeros_and_a_category_never_seen_is_unknown(made):
    _, info = made
    encoder = InputEncoder(INPUTS, info.statistics)
    unknown = encoder.unknown(3)
    np.testing.assert_array_equal(encoder(unknown), np.zeros([3, encoder.size]))
    asked = unknown | {"category/licence": tf.constant(["by-nc", "never seen", ""])}
    vectors = encoder(asked).numpy()
    place = encoder.stretches["category/licence"]
    values = info.statistics.categories["licence"]
    expected = [1.0, *(float(value == "by-nc") for value in values)]
    assert vectors[0, place].tolist() == expected
    vectors[0, place] = 0
    assert not vectors.any()


def test_what_is_heard_is_no_part_of_the_vector(made):
    _, info = made
    assert encoder_of(Inputs(chroma=True, tempo=True), info) is None
    both = encoder_of(Inputs(categories=("licence",), chroma=True), info)
    assert list(both.stretches) == ["category/licence"]


def test_numbers_lie_between_quantiles(made):
    _, info = made
    encoder = InputEncoder(Inputs(numbers=("date_created",)), info.statistics)
    edges = np.unique(np.float32(info.statistics.numbers["date_created"].quantiles[::2]))
    values = np.float32([edges[0], edges[-1], edges[3] + (edges[4] - edges[3]) / 4, np.nan])
    vectors = encoder({"date_created": tf.constant(values)}).numpy()
    assert vectors[0].tolist() == [1] + [-1] * (len(edges) - 1)
    assert vectors[1].tolist() == [1] + [1] * (len(edges) - 1)
    # The third quantile is behind it, of the next interval a quarter: −1 + 2/4.
    expected = [1, 1, 1, 1, -0.5] + [-1] * (len(edges) - 5)
    np.testing.assert_allclose(vectors[2], expected, atol=1e-3)
    assert not vectors[3].any()


def test_words_are_found_whatever_surrounds_them(made):
    _, info = made
    encoder = InputEncoder(Inputs(texts=("title",)), info.statistics)
    words = list(info.statistics.texts["title"])
    vector = encoder({"text/title": tf.constant(["LOVE, (the)!"])}).numpy()[0]
    found = {words[place - 1] for place in np.flatnonzero(vector) if place}
    assert found == {"the", "love"} and vector[0] == 1
    assert np.linalg.norm(vector[1:]) == pytest.approx(2)


# ---- what training changes


def test_inputs_are_left_out_as_wholes_by_index_alone():
    groups = (0, 0, 1, 1, 1, 2)
    augmentation = Augmentation(input_dropout=(0.3, 0.7, 0.0), groups=groups)
    indices = tf.range(400, dtype=tf.int64)
    values = {
        "spectrogram": tf.zeros([400, 4, 6], tf.uint8),
        "metadata": tf.ones([400, len(groups)]),
    }
    left = augment.augment(values, indices, augmentation, seed=3)["metadata"].numpy()
    for group, rate in enumerate(augmentation.input_dropout):
        mine = left[:, np.array(groups) == group]
        assert (mine == mine[:, :1]).all()
        assert mine.mean() == pytest.approx(1 - rate, abs=0.1)
    later = {name: value[100:] for name, value in values.items()}
    again = augment.augment(later, indices[100:], augmentation, seed=3)["metadata"]
    np.testing.assert_array_equal(again, left[100:])


def test_pairs_are_mixed_with_each_other():
    pictures = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 4, 8), np.uint8))
    values = {"spectrogram": pictures, "metadata": tf.eye(6)}
    indices = tf.range(6, dtype=tf.int64)
    augmentation = Augmentation(mixup=0.4, keep_whole=True)
    mixed = augment.augment(values, indices, augmentation, seed=1)
    np.testing.assert_array_equal(mixed["whole"], pictures)
    np.testing.assert_array_equal(mixed["metadata"], tf.eye(6))
    share = mixed["own_share"].numpy()
    assert ((share >= 0.5) & (share <= 1)).all() and len(set(share)) > 3
    levels = pictures.numpy().astype(float)
    other = levels[[1, 0, 3, 2, 5, 4]]
    expected = share[:, None, None] * levels + (1 - share)[:, None, None] * other
    np.testing.assert_allclose(mixed["spectrogram"], expected, atol=0.5001)


def test_a_rolled_picture_begins_anywhere():
    pictures = tf.constant(np.tile(np.arange(8, dtype=np.uint8), (200, 3, 1)))
    indices = tf.range(200, dtype=tf.int64)
    rolled = augment.augment(
        {"spectrogram": pictures},
        indices,
        Augmentation(time_roll=True, time_crop=5, keep_whole=True),
        seed=1,
    )
    assert rolled["spectrogram"].shape == (200, 3, 5)
    np.testing.assert_array_equal(rolled["whole"], pictures)
    firsts = rolled["spectrogram"].numpy()[:, 0, :]
    assert ((firsts[:, 1:].astype(int) - firsts[:, :-1]) % 8 == 1).all()
    assert set(firsts[:, 0]) == set(range(8))


# ---- trained


def convolutions_alone(config: TrainConfig) -> TrainConfig:
    """Without the statistics, and of other dense layers one set: all that is traced takes time."""
    fewer = {"texture_members": 0}
    if hasattr(config.network, "members"):
        fewer["members"] = 1
    return dataclasses.replace(config, network=dataclasses.replace(config.network, **fewer))


def trained(made, module, **changes) -> loop.Trainer:
    dataset_dir, info = made
    # One epoch of many clips, since each epoch makes its pipeline anew: more work than its steps.
    settings = dict(
        batch_size=16,
        epochs=1,
        learning_rate=1e-2,
        dropout=0.1,
        warmup_epochs=0.5,
        input_dropout=(("others", 0.1),),
    )
    config = convolutions_alone(config_of(module, **settings | changes))
    keras.utils.set_random_seed(0)
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    for epoch in range(config.epochs):
        for _ in trainer.run_epoch(dataset_dir, loop.Position(epoch=epoch)):
            pass
    return trainer


def accuracy(trainer: loop.Trainer, made) -> float:
    predictions = trainer.predict(made[0], "test")
    return float(predictions.correct.mean())


def importance(trainer: loop.Trainer, made, **settings):
    dataset_dir, info = made
    predictions = trainer.predict(dataset_dir, "test")
    return input_importance.measure(
        trainer.config,
        info,
        trainer.model.get_weights(),
        predictions,
        dataset_dir=dataset_dir,
        split="test",
        **settings,
    )


def test_fusion_learns_what_a_category_says_and_audio_does_not(made, monkeypatch):
    # Without what other tests look at, which makes the steps longer to trace.
    plain = dict(weight_average=0.0, mixup=0.0)
    trainer = trained(made, fusion, **plain)
    assert accuracy(trainer, made) > 0.9
    told = []
    found = importance(trainer, made, tell=told.append)
    assert found.keys() == {
        "spectrogram",
        "genre",
        "category/licence",
        "date_created",
        "number/tempo_of_cover",
        "text/title",
        "artist_history",
    }
    assert len(told) == len(found) and "genre" in " ".join(told)
    # The second is known but for the lowest class.
    told_by = dict(list(found.items())[:2])
    assert told_by.keys() == {"category/licence", "number/tempo_of_cover"}
    assert all(of.log_loss_increase_ci95[0] > 0 for of in told_by.values())
    assert all(of.num_examples == 60 for of in found.values())
    for name, of_input in importance(trainer, made).items():  # the same each time
        assert of_input.log_loss_increase == pytest.approx(found[name].log_loss_increase, abs=1e-4)
    assert importance(trainer, made, stop_asked=lambda: True) is None
    monkeypatch.setattr(input_importance, "MAX_CLIPS", 40)
    assert {of.num_examples for of in importance(trainer, made).values()} == {40}

    alone = trained(made, short_chunk, **plain)
    assert accuracy(alone, made) < 0.55
    assert importance(alone, made) == {}


HEARD = Inputs(chroma=True, tempo=True)
# 11 of the 30 seconds, in which key and pace are heard as well.
_WHOLE = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
SHORTER = dataclasses.replace(
    _WHOLE, spectrogram=dataclasses.replace(_WHOLE.spectrogram, num_samples=249_080)
)
PACES = (200, 250, 310)  # notes a minute


def heard_records(count: int, *, seed: int) -> list[dict]:
    """Pieces whose key and pace together say the class: the faster the higher, and one key more."""
    params = SHORTER.spectrogram
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        key, pace = int(generator.integers(2)), int(generator.integers(3))
        piece = made_piece(
            params,
            key=("white", "black")[key],
            notes_a_minute=PACES[pace],
            seed=1_000 * seed + number,
        )
        label = min(key + pace, 2)
        found.append(
            {
                **audio_features.of_window(piece, params, HEARD),
                "label": label,
                "listens": 10 ** (label + 2),
            }
        )
    return found


@pytest.fixture(scope="module")
def heard() -> dict[str, list[dict]]:
    return {
        name: heard_records(count, seed=seed)
        for seed, (name, count) in enumerate({"train": 240, "validation": 8, "test": 72}.items())
    }


def test_gradient_boosting_on_what_each_network_takes(made):
    """The category that says the class, which the one for audio has not."""
    dataset_dir, info = made
    columns = reader.read_columns(info, dataset_dir, "test", Predictions.columns())
    evenly = np.full([60, 3], 1 / 3)
    found = {
        module: split_evaluation.evaluate(
            config_of(module),
            info,
            Predictions(probabilities=evenly, **columns),
            dataset_dir=dataset_dir,
            split="test",
        )
        for module in (fusion, short_chunk)
    }
    assert found[fusion].baselines.metadata > 0.95
    assert found[short_chunk].baselines.metadata < 0.55
    for evaluation in found.values():
        scores = evaluation.baseline_scores["metadata"]
        assert scores.accuracy == evaluation.baselines.metadata
        assert scores.accuracy_ci95[0] <= scores.accuracy <= scores.accuracy_ci95[1]


@pytest.mark.integration
def test_popularity_in_key_and_pace_is_learnt_by_chroma_and_tempo_alone(heard, tmp_path):
    splits = heard | {"train": 3 * heard["train"]}  # since each epoch takes more than its steps
    info = write_dataset(tmp_path / "dataset", inputs=HEARD, splits=splits, config=SHORTER)
    dataset = (str(tmp_path / "dataset"), info)
    settings = dict(
        epochs=10,
        warmup_epochs=1.0,
        genre_loss=0.0,
        mixup=0.0,
        time_crop=24,
        weight_decay=0.0,
    )
    trainer = trained(dataset, fusion, **settings)
    # Half of the clips are of the last class, and the pace alone tells two thirds.
    assert accuracy(trainer, dataset) > 0.8
    found = importance(trainer, dataset)
    assert min(found["chroma"].accuracy_decrease, found["tempo"].accuracy_decrease) > 0.05
    assert accuracy(trained(dataset, short_chunk, **settings), dataset) < 0.65


@pytest.mark.integration
def test_shuffled_labels_show_nothing_in_any_input(heard, tmp_path):
    splits = {}
    for seed, (name, pieces) in enumerate(heard.items()):
        # Labels that have nothing to do with the rest, nor has the pattern of what is missing.
        drawn = made_records(len(pieces), seed=seed, planted=False)
        splits[name] = [
            {**piece, **record, "spectrogram": piece["spectrogram"], "listens": 100}
            for piece, record in zip(pieces, drawn, strict=True)
        ]
    inputs = dataclasses.replace(INPUTS, chroma=True, tempo=True)
    info = write_dataset(tmp_path / "dataset", inputs=inputs, splits=splits, config=SHORTER)
    shuffled = (str(tmp_path / "dataset"), info)
    trainer = trained(shuffled, fusion, epochs=3, warmup_epochs=1.0, time_crop=24)
    evaluation = split_evaluation.evaluate(
        trainer.config,
        info,
        trainer.predict(shuffled[0], "test"),
        dataset_dir=shuffled[0],
        split="test",
        importance=importance(trainer, shuffled),
    )
    for scores in (evaluation, evaluation.baseline_scores["metadata"]):
        assert scores.accuracy_ci95[0] <= evaluation.baselines.majority
    assert len(evaluation.importance) == 9
    assert all(of.accuracy_decrease < 0.15 for of in evaluation.importance.values())


def test_the_average_of_the_weights_answers(made):
    """By hand, over two steps: towards the new weights by a share that falls."""
    dataset_dir, info = made
    config = convolutions_alone(config_of(short_chunk, steps_per_call=1))
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    expected = trainer.model.get_weights()
    pairs = trainer._averages
    steps = trainer.run_epoch(dataset_dir, loop.Position())
    for number in (1, 2):
        next(steps)
        decay = min(config.weight_average, (1 + number) / (10 + number))
        weights = [np.array(weight) for _, weight in pairs]
        expected = [a + (1 - decay) * (w - a) for a, w in zip(expected, weights, strict=True)]
    for ours, theirs in zip(trainer.model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_training_resumed_within_an_epoch_ends_as_one_never_stopped(made):
    """With averages, pairs mixed and inputs left out: nothing but the state tells where it was."""
    dataset_dir, info = made
    config = convolutions_alone(config_of(fusion, batch_size=48, steps_per_call=2))
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    position, state = loop.Position(), {}
    for number, progress in enumerate(trainer.run_epoch(dataset_dir, position)):
        if number == 1:
            state, position = trainer.state(), progress.position
    expected = trainer.state()
    trainer.restore(state, name="state")
    for _ in trainer.run_epoch(dataset_dir, position):
        pass
    for name, array in trainer.state().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
