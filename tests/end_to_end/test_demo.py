"""The demo as a person runs it, in a copy of the checkout."""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import shlex

import pytest

from common import dataset_info, dataset_reader, records
from tests.support import checkout as checkout_maker
from tests.support import running_app
from tests.support.checkout import run

pytestmark = pytest.mark.integration


@pytest.fixture
def checkout(tmp_path):
    return checkout_maker.make(tmp_path / "checkout")


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
