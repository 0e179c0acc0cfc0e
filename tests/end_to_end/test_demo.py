"""The demo as a person runs it, in a copy of the checkout."""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import shlex

import keras
import pytest

from common import dataset_info, dataset_reader, records
from configs import six_conv_rgb
from tests.support import checkout as checkout_maker
from tests.support import fork_client, running_app
from tests.support.checkout import run
from trainer.run import devices
from trainer.run.loop import Trainer
from trainer.run.progress import Console
from trainer.run.session import Session
from trainer.train_config import TrainConfig

pytestmark = pytest.mark.integration


@pytest.fixture
def checkout(tmp_path):
    return checkout_maker.make(tmp_path / "checkout")


def check_artefacts(folder: pathlib.Path) -> None:
    for name in ("dataset/contact_sheet.png", "model/learning_curves.png"):
        assert (folder / "demo" / name).read_bytes().startswith(b"\x89PNG")
    assert (folder / "demo" / "dataset" / "dataset_card.md").exists()
    assert (folder / "demo" / "export" / "1" / "saved_model.pb").exists()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a checkout in which `make demo` has run, and what that printed."""
    folder = checkout_maker.make(tmp_path_factory.mktemp("demo") / "checkout")
    return folder, run(["make", "demo"], folder)


def table_of(output: str) -> str:
    return output[output.index("=== done") :]


def test_make_demo(demo):
    folder, output = demo
    check_artefacts(folder)
    info = json.loads((folder / "demo/dataset/dataset_info.json").read_text())
    evaluation = json.loads((folder / "demo/model/evaluation.json").read_text())
    assert info["split_check"]["artists_in_two_splits"] == 0
    assert evaluation["accuracy"] >= evaluation["baselines"]["majority"] + 0.15
    table = table_of(output)
    for word in ("clips in", "rejected", "majority class", "contact sheet", "in truth"):
        assert word in table
    assert f"{100 * evaluation['accuracy']:.1f} %" in table


def test_the_command_that_it_ends_with_serves_the_page(demo):
    """And answers a song of its library."""
    folder, output = demo
    table = table_of(output)
    (command,) = re.findall(r"^\$ (.* serving\.app .*)$", table, re.MULTILINE)
    assert "open http://127.0.0.1:8080/" in table
    song = max((folder / "demo" / "library").rglob("*.mp3"), key=os.path.getsize)
    arguments = shlex.split(command.replace("--port=8080", "--port=0"))
    with running_app.started(arguments, cwd=folder) as app:
        assert b"How often is this song listened to" in app.ask("GET", "/").body
        assert app.predict(song.read_bytes()).status == 200


def test_a_second_demo_does_nothing_again(demo):
    folder, output = demo
    table = table_of(output)
    again = run(["make", "demo"], folder)
    assert again.count("finished before, and nothing of it has changed") == 2
    assert again[again.index("  clips in") :] == table[table.index("  clips in") :]


def test_labels_that_say_nothing(demo):
    """The same network finds nothing in them, so no leak feeds its figure.

    In half of the demo's epochs, after which it is right about four of five of the true ones.
    """
    folder, _ = demo
    shuffle_labels(folder / "demo/dataset", folder / "shuffled")
    values = six_conv_rgb.get_config().to_dict() | {"epochs": 5}
    keras.utils.set_random_seed(values["seed"])
    info = dataset_reader.load_dataset_info(str(folder / "shuffled"))
    trainer = Trainer(TrainConfig.from_dict(values), info, devices.strategy_for("one_device"))
    session = Session(
        trainer,
        dataset_dir=str(folder / "shuffled"),
        model_dir=str(folder / "shuffled_model"),
        stop_asked=lambda: False,
        console=Console(silent=True),
    )
    session.open()
    assert session.run_epochs() and session.evaluate()
    evaluation = session.evaluation
    low, _ = evaluation.accuracy_ci95
    assert low <= evaluation.baselines.majority
    assert evaluation.accuracy <= evaluation.baselines.majority + 0.1


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
    """Its commands are forked; `test_make_demo` has those that start by themselves."""
    audio, catalog = fma_sample / "fma_small", fma_sample / "fma_metadata" / "tracks.csv"
    python = f"BIN={os.path.dirname(fork_client.python())}"
    inputs = [f"AUDIO_DIR={audio}", f"TRACKS_CSV={catalog}"]
    output = run(["make", "demo", python, *inputs], checkout, forked=True)
    check_artefacts(checkout)
    info = json.loads((checkout / "demo/dataset/dataset_info.json").read_text())
    assert sum(split["num_examples"] for split in info["splits"].values()) == 12
    assert info["missing_audio"] == 46
    assert "means nothing" in output
