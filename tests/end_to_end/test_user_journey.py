"""What a person types, in a copy of the checkout: the demo and every command of the README."""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess

import pytest

from common import dataset_info, dataset_reader, records
from examples import miniature_library as library_maker
from tests.support import running_app
from tests.support.paths import ROOT

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
    assert (folder / "demo" / "dataset" / "dataset_card.md").exists()
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
    check_page(table, checkout)
    again = run(["make", "demo"], checkout)
    assert again.count("finished before, and nothing of it has changed") == 2
    assert again[again.index("  clips in") :] == table[table.index("  clips in") :]
    check_labels_that_say_nothing(checkout)


def check_page(table: str, checkout: pathlib.Path) -> None:
    """The command that the demo ends with serves the page, and answers a song of its library."""
    (command,) = re.findall(r"^\$ (.* serving\.app .*)$", table, re.MULTILINE)
    assert "open http://127.0.0.1:8080/" in table
    song = max((checkout / "demo" / "library").rglob("*.mp3"), key=os.path.getsize)
    arguments = shlex.split(command.replace("--port=8080", "--port=0"))
    with running_app.started(arguments, cwd=checkout) as app:
        assert b"How often is this song listened to" in app.ask("GET", "/").body
        assert app.predict(song.read_bytes()).status == 200


def check_labels_that_say_nothing(checkout: pathlib.Path) -> None:
    """The same training finds nothing in them, so no leak feeds its figure."""
    shuffle_labels(checkout / "demo/dataset", checkout / "shuffled")
    flags = ["--config=configs/six_conv_rgb.py", "--config.epochs=10"]
    folders = ["--dataset_dir=shuffled", "--model_dir=shuffled_model"]
    run(["python", "-m", "trainer.train", *flags, *folders], checkout)
    evaluation = json.loads((checkout / "shuffled_model/evaluation.json").read_text())
    low, _ = evaluation["accuracy_ci95"]
    assert low <= evaluation["baselines"]["majority"]
    assert evaluation["accuracy"] <= evaluation["baselines"]["majority"] + 0.1


def shuffle_labels(dataset_dir: pathlib.Path, folder: pathlib.Path) -> None:
    """Makes a dataset in which the labels of each split are dealt out anew."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    draw = random.Random(0)
    folder.mkdir()
    splits = {}
    for name, split in info.splits.items():
        examples = [
            [
                records.decode_example(record)
                for record in records.read_records((dataset_dir / shard.file).open("rb"), name=name)
            ]
            for shard in split.shards
        ]
        labels = [example["label"] for shard in examples for example in shard]
        draw.shuffle(labels)
        shards = []
        for shard, shards_examples in zip(split.shards, examples, strict=True):
            data = b"".join(
                records.frame(records.encode_example(example | {"label": labels.pop()}))
                for example in shards_examples
            )
            (folder / shard.file).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            shards.append(dataclasses.replace(shard, bytes=len(data), sha256=digest))
        splits[name] = dataclasses.replace(split, shards=tuple(shards))
    new = dataclasses.replace(
        info, splits=splits, fingerprint=dataset_info.fingerprint(info.config, splits)
    )
    (folder / dataset_info.FILE_NAME).write_text(new.to_json())


def test_make_demo_on_real_clips(checkout, fma_sample):
    audio, catalog = fma_sample / "fma_small", fma_sample / "fma_metadata" / "tracks.csv"
    output = run(["make", "demo", f"AUDIO_DIR={audio}", f"TRACKS_CSV={catalog}"], checkout)
    check_artefacts(checkout)
    info = json.loads((checkout / "demo/dataset/dataset_info.json").read_text())
    assert sum(split["num_examples"] for split in info["splits"].values()) == 12
    assert info["missing_audio"] == 46
    assert "means nothing" in output


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


def test_every_command_of_readme_and_docs(checkout):
    """On a small library that lies where the README has the real FMA.

    `make test` is what runs this; `make demo` and `make docs` have tests of their own.
    """
    library = library_maker.make_library(checkout, num_clips=40, seed=3)
    for track_id in sorted(library.rejected)[1:]:  # so few clips should not have four bad ones
        library_maker.audio_path(library.audio_dir, track_id).unlink()
    shutil.copy(max(library.audio_dir.rglob("*.mp3"), key=os.path.getsize), checkout / "song.mp3")
    typed = [line for line in commands("sh") if line.startswith("python ")]
    assert len(typed) >= 8
    outputs = {command: run(shlex.split(command), checkout) for command in typed}
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
        result = subprocess.run(
            ["python", "-m", module, "--helpfull"],
            cwd=ROOT,
            env=os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        known = set(re.findall(r"--(?:\[no\])?(\w+)", result.stdout + result.stderr))
        if module == "beam_pipelines.build_dataset":  # which hands on what is Beam's
            known |= flags_of_beam()
        assert names <= known, f"{module}: {sorted(names - known)}"


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
