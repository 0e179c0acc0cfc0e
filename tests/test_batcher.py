"""Questions in one batch get each its own answer."""

import threading

import numpy as np
import pytest

from serving.batcher import MAX_BATCH, Batcher
from serving.client import Answers


def test_everyone_gets_the_own_answer():
    """While the first batch runs, what comes waits, and goes together as the next ones."""
    sizes, first, go_on = [], threading.Event(), threading.Event()

    def ask(pictures):
        sizes.append(len(pictures))
        first.set()
        go_on.wait(20)
        return Answers(pictures.reshape(len(pictures), -1).astype(np.float32), "7")

    random = np.random.default_rng(0)
    questions = [random.integers(0, 256, (int(n), 2, 2), np.uint8) for n in
                 random.integers(1, 9, 40)]  # fmt: skip
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
    assert max(sizes) < MAX_BATCH + 8
    assert min(sizes[1:-1]) >= MAX_BATCH  # full but for the first and the last


def test_an_error_is_everyones_and_the_last_question_is_answered():
    def ask(pictures):
        if pictures.max() > 8:
            raise ValueError("too bright")
        return Answers(pictures[:, 0].astype(np.float32), None)

    batcher = Batcher(ask)
    with pytest.raises(ValueError, match="too bright"):
        batcher.submit(np.full((1, 1, 1), 9, np.uint8)).result(20)
    last = batcher.submit(np.ones((1, 1, 1), np.uint8))
    batcher.close()
    assert last.result(0).probabilities == [[1]]
