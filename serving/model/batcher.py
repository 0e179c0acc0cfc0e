"""Dynamic batching: requests that arrive during a batch form the next."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from common.signatures import MAX_BATCH
from serving.model.predictions import Predictions

# {named input: array [batch, …]} that goes with pictures.
Beside = Mapping[str, np.ndarray]


class _Request(NamedTuple):
    pictures: np.ndarray
    beside: Beside
    future: concurrent.futures.Future[Predictions]


class Batcher:
    """Joins the requests of many threads into batches for a model.

    Args:
        ask: predicts for pictures uint8 [batch, height, width] and what is given beside them.
        threads: how many ask at once; one is enough for a model in this process, which uses all
            cores itself.
    """

    def __init__(self, ask: Callable[[np.ndarray, Beside], Predictions], *, threads: int = 1):
        self._ask = ask
        self._requests: collections.deque[_Request] = collections.deque()
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(
        self, pictures: np.ndarray, beside: Beside | None = None
    ) -> concurrent.futures.Future[Predictions]:
        """Queues pictures uint8 [batch, height, width]; the future has their predictions.

        Args:
            pictures: to ask about.
            beside: named inputs that go with them, the same names in each request.
        """
        request = _Request(pictures, beside or {}, concurrent.futures.Future())
        with self._changed:
            self._requests.append(request)
            self._changed.notify()
        return request.future

    def close(self) -> None:
        """Answers what was submitted, then ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._predict(batch)

    def _next_batch(self) -> list[_Request]:
        """Waits for requests of up to MAX_BATCH pictures, or one of more; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._closed)
            batch: list[_Request] = []
            room = MAX_BATCH
            while self._requests and (not batch or len(self._requests[0].pictures) <= room):
                batch.append(self._requests.popleft())
                room -= len(batch[-1].pictures)
            return batch

    def _predict(self, batch: list[_Request]) -> None:
        batch = [request for request in batch if request.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            predictions = self._ask(
                np.concatenate([request.pictures for request in batch]),
                {
                    name: np.concatenate([request.beside[name] for request in batch])
                    for name in batch[0].beside
                },
            )
        except Exception as error:
            for request in batch:
                request.future.set_exception(error)
            return
        start = 0
        for request in batch:
            end = start + len(request.pictures)
            part = predictions._replace(probabilities=predictions.probabilities[start:end])
            request.future.set_result(part)
            start = end
