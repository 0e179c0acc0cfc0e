"""The steps of a demo, by the commands that a person would type.

A step that is finished is not done again, and one that was stopped goes on, as long as what it was
made from is the same.
"""

import dataclasses
import hashlib
import json
import pathlib
import shlex
import shutil
import sys
from typing import Any

from common import files
from common.errors import UserFacingError, require
from tools import heartbeat


@dataclasses.dataclass
class Steps:
    """What each step was made from, and whether it was finished, in a file of the demo's folder."""

    path: pathlib.Path

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text()))
        except (OSError, ValueError):
            return {}

    def _write(self, name: str, *, made_from: str, finished: bool) -> None:
        steps = self._read() | {name: {"made_from": made_from, "finished": finished}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(steps, indent=2) + "\n"
        files.write_atomically(str(self.path.parent), self.path.name, text.encode())

    def begun(self, name: str, made_from: str) -> bool:
        """Returns whether this step was begun from the same things, so that it can go on."""
        return bool(self._read().get(name, {}).get("made_from") == made_from)

    def finished(self, name: str, made_from: str) -> bool:
        return self.begun(name, made_from) and bool(self._read()[name]["finished"])

    def begin(self, name: str, made_from: str, *folders: pathlib.Path) -> None:
        """Begins a step, or goes on with it.

        Args:
            name: of the step.
            made_from: a digest of what it is made from.
            folders: where its results go; those of a step that was made from other things are
                removed.

        Raises:
            UserFacingError: there is such a folder, and this demo has not made it.
        """
        if not self.begun(name, made_from):
            for folder in folders:
                require(
                    name in self._read() or not folder.exists(),
                    f"{folder}: was not made by this demo; remove it, or take another --output_dir",
                )
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        self._write(name, made_from=made_from, finished=False)

    def finish(self, name: str, made_from: str) -> None:
        self._write(name, made_from=made_from, finished=True)


def digest(*parts: str | bytes) -> str:
    """Returns the SHA-256 of what a step is made from."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()


def source_of(*packages: str) -> str:
    """Returns the digest of the packages' source, so that a change of it makes their step anew."""
    root = pathlib.Path(__file__).resolve().parent.parent
    paths = sorted(path for package in packages for path in (root / package).rglob("*.py"))
    return digest(*(path.read_bytes() for path in paths))


def step(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def run(*arguments: str) -> None:
    """Runs a module of the project as a person would, and shows how."""
    print(f"$ python -m {shlex.join(arguments)}", flush=True)
    if code := heartbeat.run([sys.executable, "-m", *arguments]):
        raise UserFacingError(f"python -m {arguments[0]} failed (exit code {code})")


def skip(folder: pathlib.Path) -> None:
    print(f"finished before, and nothing of it has changed: {folder} (remove it to make it anew)")
