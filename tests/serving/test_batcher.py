"""Questions in one batch get each its own answer."""

import itertools
import threading

import numpy as np
import pytest

from common.signatures import MAX_BATCH
from serving.model.batcher import Batcher
from serving.model.predictions import Predictions


def test_everyone_gets_the_own_answer():
    """While the first batch runs, what comes waits, and goes together as the next ones."""
    sizes, first, go_on = [], threading.Event(), threading.Event()

    def ask(pictures, _beside):
        sizes.append(len(pictures))
        first.set()
        go_on.wait(20)
        return Predictions(pictures.reshape(len(pictures), -1).astype(np.float32), "7")

    random = np.random.default_rng(0)
    counts = [*random.integers(1, 9, 40), MAX_BATCH + 8, *random.integers(1, 31, 20)]
    questions = [random.integers(0, 256, (int(n), 2, 2), np.uint8) for n in counts]
    batcher = Batcher(ask)
    answers = [batcher.submit(questions[0])]
    first.wait(20)
    answers += [batcher.submit(question) for question in questions[1:]]
    go_on.set()
    for question, answer in zip(questions, answers, strict=True):
        given = answer.result(20)
        np.testing.assert_array_equal(given.probabilities, question.reshape(len(question), -1))
        assert given.version == "7"
    batcher.close()
    assert sum(sizes) == sum(map(len, questions))
    # A song that is more by itself goes alone; no other batch is, and the next one had no room.
    assert [size for size in sizes if size > MAX_BATCH] == [MAX_BATCH + 8]
    assert all(a + b > MAX_BATCH for a, b in itertools.pairwise(sizes[1:]))


def test_an_error_is_everyones_and_the_last_question_is_answered():
    def ask(pictures, _beside):
        if pictures.max() > 8:
            raise ValueError("too bright")
        return Predictions(pictures[:, 0].astype(np.float32), None)

    batcher = Batcher(ask)
    with pytest.raises(ValueError, match="too bright"):
        batcher.submit(np.full((1, 1, 1), 9, np.uint8)).result(20)
    last = batcher.submit(np.ones((1, 1, 1), np.uint8))
    batcher.close()
    assert last.result(0).probabilities == [[1]]
