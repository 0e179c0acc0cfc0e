"""`stream_dataset` without an end, as a person runs it and ends it with Ctrl-C."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from common import generations
from common.generations import Manifest
from tests.support.paths import ROOT
from tests.support.processes import command_line, descendants, wait_until_ended

# The longest until a first or further generation, on a machine that others use too.
_SECONDS = 240.0


class Streaming:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen, dataset: pathlib.Path, errors):
        self.process, self._dataset, self._errors = process, dataset, errors

    def manifests(self) -> list[Manifest]:
        numbers = generations.numbers_in(generations.sizes_below(str(self._dataset)))
        return generations.load(str(self._dataset), numbers)

    def wait_for(self, holds: Callable[[list[Manifest]], bool]) -> list[Manifest]:
        """Returns the manifests as soon as something holds of them."""
        number, end = -1, 0.0
        while not holds(found := self.manifests()):
            assert self.process.poll() is None, self.errors
            if len(found) > number:
                number, end = len(found), time.monotonic() + _SECONDS
            assert time.monotonic() < end, [dict(manifest.counts) for manifest in found]
            time.sleep(0.1)
        return found

    def wait_for_generations(self, number: int) -> list[Manifest]:
        return self.wait_for(lambda found: len(found) >= number)

    def below(self, word: str) -> list[int]:
        """Returns the processes that it has started whose command lines have a word."""
        return [pid for pid in descendants(self.process.pid) if word in command_line(pid)]

    def kill(self) -> None:
        """Kills it with -9; all that it has started ends with it, its engine too."""
        below = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        wait_until_ended(below, seconds=60)

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def end(self) -> str:
        """Ends it with Ctrl-C, as it should end then, and returns what it printed."""
        below = descendants(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        assert (self.process.returncode, self.errors) == (
            130,
            "\ninterrupted; the same command goes on\n",
        )
        wait_until_ended(below)
        return out


@contextlib.contextmanager
def streaming(
    dataset: pathlib.Path, *arguments: str, made_up: bool = False, env: dict[str, str] | None = None
) -> Iterator[Streaming]:
    """Runs the command while the block does.

    Args:
        dataset: its folder.
        arguments: flags, but for folder and config.
        made_up: whether its decoder is one that makes pictures of any bytes.
        env: more of an environment.
    """
    module = "tests.support.made_up_stream" if made_up else "beam_pipelines.stream_dataset"
    command = [
        *(sys.executable, "-m", module, f"--output_dir={dataset}"),
        *("--config=configs/dataset_artist.py", "--config.split_sizes=(0.5,0.25,0.25)"),
        *arguments,
    ]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (env or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield Streaming(process, dataset, errors)
        finally:
            for pid in descendants(process.pid):  # some have a group of their own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
