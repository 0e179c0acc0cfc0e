"""What README and documentation say: each command, flag, file and link of them, and the site."""

import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from examples import miniature_library as library_maker
from tests.support import checkout as checkout_maker
from tests.support.checkout import run
from tests.support.commands import run_module
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

BEAM = ("beam_pipelines.build_dataset", "beam_pipelines.stream_dataset")


@pytest.fixture
def checkout(tmp_path):
    return checkout_maker.make(tmp_path / "checkout")


def pages() -> list[pathlib.Path]:
    """The README, then the documentation's pages."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(kinds: str) -> list[str]:
    """The lines of the pages' blocks of these kinds, comments and line ends taken off; once each.

    An `sh` block can be typed as it is; `bash` and `console` have names to fill in, or take long.
    """
    found = []
    for page in pages():
        blocks = re.findall(rf"```(?:{kinds})\n(.*?)```", page.read_text(), re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        found += [line.removeprefix("$ ").partition(" # ")[0].strip() for line in lines]
    return list(dict.fromkeys(filter(None, found)))


def test_every_command_of_readme_and_docs(library, checkout):
    """On a small library that lies where the README has the real FMA.

    `make test` is what runs this; `make demo` and `make docs` have tests of their own.
    """
    for folder in (library.audio_dir, library.tracks_csv.parent):
        shutil.copytree(folder, checkout / folder.name)
    for track_id in sorted(library.rejected)[1:]:  # so few clips should not have four bad ones
        library_maker.audio_path(checkout / library.audio_dir.name, track_id).unlink()
    shutil.copy(max(library.audio_dir.rglob("*.mp3"), key=os.path.getsize), checkout / "song.mp3")
    typed = [line for line in commands("sh") if line.startswith("python ")]
    assert len(typed) >= 8
    # Instead of 100, of which each is like the one before.
    few = ["--config.epochs=1", "--config.warmup_epochs=0"]
    outputs = {
        command: run(
            shlex.split(command) + few * (" trainer.train " in command), checkout, forked=True
        )
        for command in typed
    }
    last = next(output for command, output in outputs.items() if "serving.predict" in command)
    assert json.loads(last.splitlines()[-1])["label"] in ("low", "medium", "high")


def test_every_flag_that_readme_and_docs_name_is_there():
    """Of the commands that are too long, or not for this machine, to be run."""
    flags_of: dict[str, set[str]] = {}
    for line in commands("sh|bash|console"):
        found = re.match(r"python -m ([\w.]+)(.*)", line)
        if found is None or found[1].startswith("tests."):
            continue
        module, arguments = found[1], found[2].partition(" -- ")[0]
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), line
        flags_of.setdefault(module, set()).update(re.findall(r" --(\w+)", arguments))
    assert len(flags_of) >= 8
    for module, names in flags_of.items():
        result = run_module(module, "--helpfull")
        known = set(re.findall(r"--(?:\[no\])?(\w+)", result.stdout + result.stderr))
        if module in BEAM:  # which hand on what is Beam's
            known |= flags_of_beam()
        assert names <= known, f"{module}: {sorted(names - known)}"


@functools.cache
def flags_of_beam() -> set[str]:
    """The flags of all of Beam's options."""
    code = (
        "from apache_beam.options.pipeline_options import PipelineOptions as P; import argparse\n"
        "parser = argparse.ArgumentParser(conflict_handler='resolve')\n"
        "[c._add_argparse_args(parser) for c in P.__subclasses__()]\n"
        "print(*(s.lstrip('-') for a in parser._actions for s in a.option_strings))"
    )
    result = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_every_page_that_readme_and_docs_link_to_is_there():
    for page in [*pages(), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_file_that_readme_and_docs_name_is_there():
    roots = "common|beam_pipelines|trainer|serving|tests|configs|examples|tools"
    for page in [*pages(), *ROOT.glob("*.md")]:
        for name in re.findall(rf"`((?:{roots})/[\w/.-]*)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_make_docs(checkout):
    """Builds without a warning, and asks no other host for anything."""
    run(["make", "docs"], checkout)
    site = checkout / "build" / "site"
    for page in ("index.html", "training.html", "reference/common.html"):
        html = (site / page).read_text()
        fetched = re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="(https?://[^"]*)"', html)
        assert not fetched, fetched
