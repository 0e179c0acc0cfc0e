"""Questions of many clients in one batch: whatever waits while a batch runs is the next one."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from common.signatures import MAX_BATCH
from serving.client import Answers


class _Question(NamedTuple):
    pictures: np.ndarray
    answer: concurrent.futures.Future


class Batcher:
    """Threads that ask a model.

    Args:
        ask: answers pictures uint8 [batch, height, width].
        threads: how many ask at once; one is enough for a model in this process, which uses all
            cores itself.
    """

    def __init__(self, ask: Callable[[np.ndarray], Answers], *, threads: int = 1):
        self._ask = ask
        self._questions: collections.deque[_Question] = collections.deque()
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, pictures: np.ndarray) -> concurrent.futures.Future:
        """The future Answers about pictures uint8 [batch, height, width]."""
        question = _Question(pictures, concurrent.futures.Future())
        with self._changed:
            self._questions.append(question)
            self._changed.notify()
        return question.answer

    def close(self) -> None:
        """Answers what was submitted, then ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[_Question]:
        """What waits, up to MAX_BATCH pictures or one question of more; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._questions or self._closed)
            batch, room = [], MAX_BATCH
            while self._questions and (not batch or len(self._questions[0].pictures) <= room):
                batch.append(self._questions.popleft())
                room -= len(batch[-1].pictures)
            return batch

    def _answer(self, batch: list[_Question]) -> None:
        batch = [question for question in batch if question.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            answers = self._ask(np.concatenate([question.pictures for question in batch]))
        except Exception as error:
            for question in batch:
                question.answer.set_exception(error)
            return
        start = 0
        for question in batch:
            end = start + len(question.pictures)
            part = answers._replace(probabilities=answers.probabilities[start:end])
            question.answer.set_result(part)
            start = end
