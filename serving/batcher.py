"""Questions of many clients in one batch: whatever waits while a batch runs is the next one."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from serving.client import Answers

MAX_BATCH = 32


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
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, pictures: np.ndarray) -> concurrent.futures.Future:
        """The future Answers about pictures uint8 [batch, height, width]."""
        question = _Question(pictures, concurrent.futures.Future())
        self._questions.put(question)
        return question.answer

    def close(self) -> None:
        """Answers what was submitted, then ends the threads."""
        for _ in self._threads:
            self._questions.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            batch, size = [question], len(question.pictures)
            while size < MAX_BATCH:
                try:
                    question = self._questions.get_nowait()
                except queue.Empty:
                    break
                if question is None:
                    self._questions.put(None)
                    break
                batch.append(question)
                size += len(question.pictures)
            self._answer(batch)

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
