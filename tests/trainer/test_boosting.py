"""The baseline of metadata: what it learns of columns of any kind, and of scant ones."""

import numpy as np
import pytest

from common.inputs import Inputs
from trainer.evaluation import boosting

INPUTS = Inputs(categories=("genre", "licence"), numbers=("date_created",), artist_history=True)


def columns(count: int, *, seed: int) -> dict[str, np.ndarray]:
    """The licence says whether a track is `low`, the date what it is else; nothing else does."""
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=count)
    history = rng.normal(6, 1, count).astype(np.float32)
    history[rng.random(count) < 0.5] = np.nan
    return {
        "genre": rng.choice(np.array([b"Rock", b"Folk", b""], object), count),
        "category/licence": np.array([b"by", b"", b""], object)[label],
        "date_created": np.where(label == 2, 1_000 + rng.integers(99, size=count), -1),
        "artist_tracks": rng.integers(0, 5, count),
        "artist_mean_log_listens": history,
        "label": label,
    }


@pytest.fixture(scope="module")
def training() -> dict[str, np.ndarray]:
    return columns(300, seed=1)


def predict(training, asked) -> np.ndarray:
    return boosting.predict(INPUTS, training, asked, num_classes=3)


def test_categories_and_numbers_and_that_one_is_unknown(training):
    asked = columns(200, seed=2)
    probabilities = predict(training, asked)
    assert (probabilities.argmax(axis=1) == asked["label"]).mean() > 0.98
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_value_never_seen_is_unknown(training):
    asked = columns(50, seed=3)
    strange = asked | {"genre": np.array([b"Polka"] * 50, object)}
    unknown = asked | {"genre": np.array([b""] * 50, object)}
    np.testing.assert_array_equal(predict(training, strange), predict(training, unknown))


def test_nothing_to_learn_from(training):
    """No column has a known value: the shares of the classes."""
    count = len(training["label"])
    empty = {
        "genre": np.array([b""] * count, object),
        "category/licence": np.array([b""] * count, object),
        "date_created": np.full(count, -1),
        "artist_tracks": np.full(count, -1),
        "artist_mean_log_listens": np.full(count, np.nan, np.float32),
        "label": training["label"],
    }
    shares = np.bincount(training["label"]) / count
    probabilities = predict(empty, columns(20, seed=5))
    np.testing.assert_allclose(probabilities, np.tile(shares, (20, 1)), atol=1e-3)


def test_classes_that_training_has_none_of(training):
    two = training | {"label": np.where(training["label"] == 1, 0, training["label"])}
    probabilities = predict(two, columns(20, seed=6))
    assert (probabilities[:, 1] == 0).all() and (probabilities[:, [0, 2]] > 0).all()
    one = training | {"label": np.full(len(training["label"]), 2)}
    np.testing.assert_array_equal(predict(one, columns(4, seed=6)), [[0, 0, 1]] * 4)


def test_more_values_than_the_library_takes():
    """The most frequent ones count."""
    rare = np.array([f"place {number}".encode() for number in range(400)], object)
    places = np.concatenate([np.repeat(np.array([b"here", b"there"], object), 100), rare])
    label = np.concatenate([np.repeat([0, 2], 100), np.ones(400, int)])
    inputs = Inputs(categories=("place",))
    asked = {"category/place": np.array([b"here", b"there"], object)}
    training = {"category/place": places, "label": label}
    probabilities = boosting.predict(inputs, training, asked, num_classes=3)
    assert probabilities.argmax(axis=1).tolist() == [0, 2]


def test_what_it_has_beside_which_network():
    everything = Inputs(
        categories=("licence",), numbers=("duration",), texts=("title",), artist_history=True
    )
    assert boosting.inputs_without_sound(everything) == Inputs(
        categories=("licence",), numbers=("duration",), artist_history=True
    )
    of_every_record = Inputs(categories=("genre",), numbers=("date_created",))
    for inputs in (Inputs(), Inputs(texts=("title",)), Inputs(chroma=True, tempo=True)):
        assert boosting.inputs_without_sound(inputs) == of_every_record
