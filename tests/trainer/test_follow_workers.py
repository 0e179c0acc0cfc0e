"""What the chief tells the other workers of a group that follows, and when nothing."""

import queue
import threading

import pytest

from common.errors import UserFacingError
from trainer.continuous import workers
from trainer.run import devices
from trainer.run.loop import Diverged, Position


class Pair:
    """A chief and another worker as two threads, whose broadcast is a queue."""

    def __init__(self, monkeypatch):
        self._told = queue.Queue()
        self.trained = []
        monkeypatch.setattr(devices, "is_chief", lambda strategy: strategy == "chief")
        monkeypatch.setattr(devices, "broadcast", self._broadcast)

    def _broadcast(self, strategy, value):
        if strategy == "chief":
            self._told.put(value)
            return value
        return self._told.get(timeout=10)

    def ends(self, lead, train=None) -> list:
        """Exit code or error of the chief and of the other."""
        found = {}

        def end_of(name):
            try:
                found[name] = workers.run(
                    name, lead=lead, train=train or (lambda n, _: self.trained.append(n))
                )
            except Exception as error:
                found[name] = error

        threads = [threading.Thread(target=end_of, args=(name,)) for name in ("chief", "other")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found["chief"], found["other"]]


def test_the_others_train_what_the_chief_says_and_end_as_it_does(monkeypatch):
    pair = Pair(monkeypatch)

    def lead(code, *updates):
        def led(with_workers):
            for update in updates:
                with with_workers.training(update):
                    pass
            return code

        return led

    assert pair.ends(lead(0, 4, 5)) == [0, 0]
    assert pair.trained == [4, 5]
    assert pair.ends(lead(75, 6)) == [75, 75]
    assert pair.ends(lead(0)) == [0, 0]
    assert pair.trained == [4, 5, 6]


def test_the_others_end_where_the_chief_refuses_its_input(monkeypatch):
    def lead(_):
        raise UserFacingError("dataset: no such folder")

    chief, other = Pair(monkeypatch).ends(lead)
    assert str(chief) == "dataset: no such folder"
    assert isinstance(other, UserFacingError) and "the chief" in str(other)


def test_all_go_on_where_a_training_diverges(monkeypatch):
    """Which each finds, and the chief says what comes of it."""

    def diverge(*_):
        raise Diverged(Position(weight=1.0))

    def lead(with_workers):
        with pytest.raises(Diverged), with_workers.training(1):
            diverge()
        return 0

    assert Pair(monkeypatch).ends(lead, diverge) == [0, 0]


def test_nobody_is_told_anything_in_a_training(monkeypatch):
    """The others wait for its steps then, and notice that the chief is gone."""
    told = []
    monkeypatch.setattr(devices, "is_chief", lambda _: True)
    monkeypatch.setattr(devices, "broadcast", lambda _, value: told.append(value))

    def lead(with_workers):
        with with_workers.training(3):
            raise UserFacingError("a record is damaged")

    with pytest.raises(UserFacingError, match="damaged"):
        workers.run(None, lead=lead, train=lambda *_: None)
    assert told == [3]
