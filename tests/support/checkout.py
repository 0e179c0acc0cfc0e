"""A copy of the checkout, in which a test does what a person does."""

import os
import pathlib
import shutil
import subprocess

from tests.support import fork_client
from tests.support.paths import ROOT


def make(folder: pathlib.Path) -> pathlib.Path:
    """Copies what git knows into a folder, with the environment that runs the tests."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listing.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def run(command: list[str], folder: pathlib.Path, *, forked: bool = False) -> str:
    """The output of a command, which must succeed.

    Where it is `forked`, its `python` is that of `fork_client`.
    """
    places = [str(ROOT / ".venv" / "bin"), os.environ["PATH"]]
    copy = {}
    if forked:
        places.insert(0, os.path.dirname(fork_client.python()))
        copy = {fork_client.COPY: str(folder)}
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": os.pathsep.join(places)} | copy,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    print(result.stdout)
    return result.stdout
