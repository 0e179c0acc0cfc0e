r"""Trains the poster's four networks and writes its table with our figures beside its own.

python -m trainer.reproduce --dataset_dir=dataset --output_dir=poster \
    --artist_dataset_dir=dataset_artist --seeds=0,1,2 -- --config.epochs=100

Each training run is a `trainer.train` of its own, with the flags after `--`; its lines are printed
with its name. The same command resumes where it stopped and leaves finished runs alone. SIGTERM and
Ctrl-C are passed on and end it with exit code 75. In --output_dir:

    <split>/<network>/seed_<seed>/   each training run, as trainer.train leaves it
    results.md, .json, .png          the table, its figures, and a picture of them
"""

import collections
import re
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from common import command, lock
from common.errors import require
from trainer.run.child import Child, on_signals_to_stop, share_of_cores
from trainer.run.stop_signal import EXIT_STOPPED

if TYPE_CHECKING:
    from trainer.experiments.results import Training

_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir",
    None,
    "Where build_dataset put the dataset; configs/dataset_poster.py has the poster's random split.",
    required=True,
)
_ARTIST_DATASET_DIR = flags.DEFINE_string(
    "artist_dataset_dir",
    None,
    "Where it put one without an artist in two splits (configs/dataset_artist.py), for a second "
    "table that shows how much of the first is owed to knowing the artists.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Where the trainings and the table go.", required=True
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; each network is trained with each.")
_PARALLEL = flags.DEFINE_integer(
    "parallel",
    None,
    "How many training runs at a time, each on its share of the GPUs; one for each GPU unless "
    "given.",
    lower_bound=1,
)

_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)

_SECONDS_BETWEEN_LOOKS = 0.2


def main(argv: list[str]) -> int:
    train_flags = argv[1:]
    for flag in train_flags:
        require(
            flag.startswith("-"),
            f"{flag}: flags only, each as one word such as --config.epochs=1",
        )
        taken = re.match(r"--?(config|dataset_dir|model_dir|export_dir|config\.seed)(=|$)", flag)
        require(
            not taken,
            f"{flag}: this command sets it itself; --seeds, --dataset_dir and --output_dir are its "
            "own flags",
        )
    seeds = numbers_of(_SEEDS.value)
    output_dir = _OUTPUT_DIR.value.rstrip("/")
    with command.kept_back_stderr():
        from trainer.run import (
            folder_lock,
        )  # here, since a mistake in a flag should not wait for it
    dataset_dirs = [_DATASET_DIR.value.rstrip("/")]
    if _ARTIST_DATASET_DIR.value:
        dataset_dirs.append(_ARTIST_DATASET_DIR.value.rstrip("/"))
    with folder_lock.hold(output_dir, force=_FORCE_UNLOCK.value):
        return reproduce(dataset_dirs, output_dir, seeds, train_flags)


def reproduce(
    dataset_dirs: Sequence[str], output_dir: str, seeds: list[int], train_flags: list[str]
) -> int:
    """Trains what is not trained yet and writes the table; the exit code."""
    with command.kept_back_stderr():
        from trainer.experiments import results  # as in `main`

    trainings = results.trainings_of(dataset_dirs, output_dir, seeds, train_flags)
    gpus = results.gpus()

    unfinished = [training for training in trainings if not training.is_finished()]
    print(f"trainings: {len(trainings)}, of which finished before: ", end="")
    print(len(trainings) - len(unfinished), flush=True)
    queue = Queue(unfinished, train_flags, gpus=gpus, size=_PARALLEL.value or max(1, len(gpus)))
    on_signals_to_stop(queue.stop)
    queue.run()
    for child, code in queue.failed:
        print(f"error: {child.name} failed ({code}); its last lines:", file=sys.stderr)
        print(child.tail(), file=sys.stderr)
    if queue.failed:
        print("what is finished stays; the same command trains the rest", file=sys.stderr)
        return 1
    if queue.was_stopped:
        print("stopped as asked; the same command goes on")
        return EXIT_STOPPED

    print(results.write(trainings, output_dir))
    print(f"written: {output_dir}/results.md, results.json, results.png")
    return 0


def numbers_of(words: Sequence[str]) -> list[int]:
    """Returns the seeds that --seeds lists."""
    numbers = [int(word) for word in words if word.isdecimal()]
    require(
        bool(words) and len(set(numbers)) == len(words),
        f"--seeds={','.join(words)}: different whole numbers, such as 0,1,2",
    )
    return numbers


class Queue:
    """Runs trainings as processes of their own, some at a time.

    Args:
        trainings: in the order in which they are started.
        train_flags: that each is given.
        gpus: their names, as in CUDA_VISIBLE_DEVICES.
        size: how many run at a time.
    """

    def __init__(
        self, trainings: Sequence["Training"], train_flags: list[str], *, gpus: list[str], size: int
    ):
        self._waiting = collections.deque(trainings)
        self._train_flags = train_flags
        self._environments = [environment(place, size, gpus) for place in range(size)]
        self._running: dict[int, Child] = {}
        self.failed: list[tuple[Child, int]] = []
        self.was_stopped = False

    def stop(self) -> None:
        """Starts no more trainings and asks those that run for a checkpoint and an end."""
        self.was_stopped = True
        for child in list(self._running.values()):
            child.ask_to_stop()

    def run(self) -> None:
        """Returns when all have ended, well or not, or those that ran when it was stopped have."""
        try:
            while self._running or (self._waiting and not self.was_stopped):
                for place, env in enumerate(self._environments):
                    if place in self._running:
                        self._look_at(place)
                    elif self._waiting and not self.was_stopped:
                        self._start(place, env)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            for child in self._running.values():
                child.end()

    def _start(self, place: int, env: dict[str, str]) -> None:
        training = self._waiting.popleft()
        argv = [sys.executable, "-m", "trainer.train", *training.flags, *self._train_flags]
        self._running[place] = Child(argv, name=training.name, env=env)
        if self.was_stopped:  # while it was started
            self._running[place].ask_to_stop()

    def _look_at(self, place: int) -> None:
        code = self._running[place].code()
        if code is None:
            return
        child = self._running.pop(place)
        child.end()
        # A run that does not handle signals yet dies of it.
        if code == EXIT_STOPPED or (self.was_stopped and code == -signal.SIGTERM):
            self.was_stopped = True
        elif code:
            self.failed.append((child, code))
            print(f"{child.name} failed ({code}); the others go on", flush=True)


def environment(place: int, size: int, gpus: list[str]) -> dict[str, str]:
    """Returns the environment of one training run of the `size` that run at a time.

    Each has GPUs of its own if there are enough of them, and else a share of the cores.
    """
    if not gpus:
        return share_of_cores(size)
    mine = gpus[place::size] or [gpus[place % len(gpus)]]
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if size > len(gpus) else {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine), **shared}


if __name__ == "__main__":
    command.run(main)
