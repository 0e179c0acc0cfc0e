"""What `docker build` would copy into an image of the project, without Docker."""

import fnmatch
import pathlib
import re
import shutil
import subprocess

from tests.support.paths import ROOT


def _let_through(name: str, patterns: list[str]) -> bool:
    """Whether a .dockerignore lets a file into the build: of its patterns the last that fits."""
    through = True
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        parts = name.split("/")
        for end in range(1, len(parts) + 1):  # a folder's pattern holds for what is in it
            head = "/".join(parts[:end])
            anywhere = wanted.startswith("**/") and fnmatch.fnmatch(parts[end - 1], wanted[3:])
            # A * of Docker's stays in its folder.
            here = fnmatch.fnmatch(head, wanted) and head.count("/") == wanted.count("/")
            if anywhere or here:
                through = pattern.startswith("!")
                break
    return through


def copied_files(dockerfile: pathlib.Path) -> list[str]:
    """The files of the checkout that the image gets, relative to it."""
    patterns = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().split()
    copies = re.findall(r"^COPY (.*) \S+$", dockerfile.read_text(), re.MULTILINE)
    copied = {name for names in copies for name in names.split()}
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return sorted(
        name
        for name in listing
        if name
        and (ROOT / name).is_file()
        and name.split("/")[0] in copied
        and _let_through(name, patterns)
    )


def copy_tree(dockerfile: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Writes into a folder what the image gets; returns the folder."""
    for name in copied_files(dockerfile):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder
