r"""Starts several workers of a training run on this machine, as torchrun does for its users.

python -m trainer.launch --workers=2 -- --config=configs/six_conv_rgb.py --dataset_dir=dataset …

Each worker is a `trainer.train`, or what --module names, with the flags after `--` and its task in
TF_CONFIG; its lines are printed with its number. Together they have as many threads as there are
cores. When one dies all are started again and resume from the newest checkpoint, a bounded number
of times; not when one refuses its input (exit code 1). SIGTERM and Ctrl-C are passed on, and the
command waits for the workers' checkpoint; a second Ctrl-C ends all at once.
"""

import contextlib
import json
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence

from absl import flags

from common import command
from common.errors import require
from trainer.run.child import Child, on_signals_to_stop, share_of_cores
from trainer.run.stop_signal import EXIT_STOPPED

_WORKERS = flags.DEFINE_integer("workers", 2, "How many workers.", lower_bound=1)
_MODULE = flags.DEFINE_enum(
    "module", "trainer.train", ("trainer.train", "trainer.follow"), "What each worker runs."
)
_MAX_RESTARTS = flags.DEFINE_integer(
    "max_restarts", 3, "How often a group in which a worker died is started again.", lower_bound=0
)


def main(argv: list[str]) -> int:
    require(
        len(argv) > 1,
        "no flags for the workers; python -m trainer.launch --workers=2 -- --config=…",
    )
    group = Group([sys.executable, "-m", _MODULE.value, *argv[1:]], _WORKERS.value)
    on_signals_to_stop(group.pass_on)
    for restarts_left in reversed(range(_MAX_RESTARTS.value + 1)):
        worker, code = group.run()
        if code in (0, 1, EXIT_STOPPED):
            return code
        fate = f"worker {worker} died ({code})"
        if group.was_signalled:
            print(f"error: {fate} when all were to stop; the same command goes on", file=sys.stderr)
            return 1
        if not restarts_left:
            break
        print(f"{fate}; all start again, {restarts_left - 1} restarts left", flush=True)
    print(f"error: {fate}, and --max_restarts={_MAX_RESTARTS.value} is used up", file=sys.stderr)
    return 1


class Group:
    """Runs workers that live and die together.

    Args:
        argv: of each worker's process.
        size: how many there are.
    """

    def __init__(self, argv: list[str], size: int):
        self._argv = argv
        self._size = size
        self._workers: list[Child] = []
        self.was_signalled = False

    def pass_on(self) -> None:
        """Passes a signal on to every worker as SIGTERM, on which they write a checkpoint."""
        self.was_signalled = True
        for worker in self._workers:
            worker.ask_to_stop()

    def run(self) -> tuple[int, int]:
        """Runs the workers until all end well or one does not: (its number, its exit code)."""
        addresses = [f"localhost:{port}" for port in free_ports(self._size)]
        self._workers = []
        try:
            for index in range(self._size):
                place = {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": index},
                }
                env = {"TF_CONFIG": json.dumps(place), **share_of_cores(self._size)}
                self._workers.append(Child(self._argv, name=f"worker {index}", env=env))
            if self.was_signalled:  # while they were started
                self.pass_on()
            return self._first_bad_end()
        finally:
            # Those that are left wait for one that is gone, and could wait for ever.
            for worker in self._workers:
                worker.end()

    def _first_bad_end(self) -> tuple[int, int]:
        while True:
            codes = [self._code(worker) for worker in self._workers]
            # Those that stop at a checkpoint do so one after the other.
            expected = (None, 0, EXIT_STOPPED) if None in codes else (0,)
            ends = [
                (index, code)
                for index, code in enumerate(codes)
                if code is not None and code not in expected
            ]
            if ends:
                return worst(ends)
            if None not in codes:
                return 0, 0
            time.sleep(0.1)

    def _code(self, worker: Child) -> int | None:
        """Returns the exit code of a worker; one that does not handle signals yet dies of it."""
        code = worker.code()
        return EXIT_STOPPED if self.was_signalled and code == -signal.SIGTERM else code


def worst(ends: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the (number, exit code) that says most about what went wrong.

    A death comes first, after which the others may have stopped; then a refusal.
    """
    return min(ends, key=lambda end: {EXIT_STOPPED: 2, 1: 1}.get(end[1], 0))


def free_ports(count: int) -> list[int]:
    """Finds ports of this machine that nobody listens on.

    They are below those that systems give to outgoing connections, one of which might have taken
    the port by the time the worker listens.
    """
    with contextlib.ExitStack() as sockets:
        ports: list[int] = []
        candidates = iter(random.sample(range(20_000, 32_768), 12_768))
        while len(ports) < count:
            port = next(candidates)
            with contextlib.suppress(OSError):
                sockets.enter_context(socket.create_server(("", port)))
                ports.append(port)
        return ports


if __name__ == "__main__":
    command.run(main)
