"""What a person types, in a copy of the checkout: the demo and every command of the README."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from tests.demo import library as library_maker
from tests.paths import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture
def checkout(tmp_path):
    """A copy of what git knows, with the environment that runs the tests."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    folder = tmp_path / "checkout"
    for name in listing.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def run(command: list[str], folder: pathlib.Path) -> str:
    """The output of a command, which must succeed."""
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    print(result.stdout)
    return result.stdout


def check_artefacts(folder: pathlib.Path) -> None:
    for name in ("dataset/contact_sheet.png", "model/learning_curves.png"):
        assert (folder / "demo" / name).read_bytes().startswith(b"\x89PNG")
    assert (folder / "demo" / "export" / "1" / "saved_model.pb").exists()


def test_make_demo(checkout):
    output = run(["make", "demo"], checkout)
    check_artefacts(checkout)
    info = json.loads((checkout / "demo/dataset/dataset_info.json").read_text())
    evaluation = json.loads((checkout / "demo/model/evaluation.json").read_text())
    assert info["split_check"]["artists_in_two_splits"] == 0
    assert evaluation["accuracy"] >= evaluation["baselines"]["majority"] + 0.15
    table = output[output.index("=== done") :]
    for word in ("clips in", "rejected", "majority class", "contact sheet", "in truth"):
        assert word in table
    assert f"{100 * evaluation['accuracy']:.1f} %" in table


def test_make_demo_on_real_clips(checkout, fma_sample):
    audio, catalog = fma_sample / "fma_small", fma_sample / "fma_metadata" / "tracks.csv"
    output = run(["make", "demo", f"AUDIO_DIR={audio}", f"TRACKS_CSV={catalog}"], checkout)
    check_artefacts(checkout)
    info = json.loads((checkout / "demo/dataset/dataset_info.json").read_text())
    assert sum(split["num_examples"] for split in info["splits"].values()) == 12
    assert info["missing_audio"] == 46
    assert "means nothing" in output


def readme_commands() -> list[str]:
    """The lines of the README's sh blocks, comments and line ends taken off."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition(" # ")[0].strip() for line in lines]


def test_every_command_of_the_readme(checkout):
    """On a small library that lies where the README has the real FMA.

    `make test` is what runs this; `make demo` has its own tests.
    """
    library = library_maker.make_library(checkout, num_clips=40, seed=3)
    for track_id in sorted(library.rejected)[1:]:  # so few clips should not have four bad ones
        library_maker.audio_path(library.audio_dir, track_id).unlink()
    shutil.copy(max(library.audio_dir.rglob("*.mp3"), key=os.path.getsize), checkout / "song.mp3")
    commands = [line for line in readme_commands() if not line.startswith("make ")]
    assert len(commands) >= 5
    outputs = {command: run(command.split(), checkout) for command in commands}
    last = next(output for command, output in outputs.items() if "serving.predict" in command)
    assert json.loads(last.splitlines()[-1])["label"] in ("low", "medium", "high")
