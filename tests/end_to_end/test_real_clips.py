"""On real clips of FMA: every way to ask gives the answer that training would."""

import json

import numpy as np
import pytest
import tensorflow as tf

from common import dataset_reader
from common.catalogue import clip_path
from serving.client import Client
from tests.support import model_server
from tests.support.commands import build, run_module
from tests.support.running_app import running_app
from trainer.run import devices, loop, model_folder

pytestmark = pytest.mark.integration

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def real_dataset(fma_sample, tmp_path_factory):
    """The dataset job's pictures of the real clips."""
    folder = tmp_path_factory.mktemp("real")
    metadata = fma_sample / "fma_metadata" / "tracks.csv"
    result = build(metadata, fma_sample / "fma_small", folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def trained(real_dataset, dataset_dir, model_dir):
    """The network as training has it: probabilities of each real record, by track."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    config = model_folder.load_config(str(model_dir), info)
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    model_folder.restore_best(str(model_dir), trainer.model)
    real = dataset_reader.load_dataset_info(str(real_dataset))
    answers = {}
    for _, example in dataset_reader.read_examples(real, str(real_dataset)):
        picture = np.frombuffer(example["spectrogram"], np.uint8).reshape(1, 102, 159)
        logits = trainer.model(picture, training=False)
        answers[example["track_id"]] = tf.nn.softmax(logits).numpy()[0]
    assert len(answers) == 12
    return answers


def test_every_way_gives_the_answer_of_training(fma_sample, trained, model_dir, exported):
    paths = {track: fma_sample / "fma_small" / clip_path(track) for track in sorted(trained)}
    export_dir = model_dir / "export"
    ways = {}
    printed = run_module("serving.predict", f"--export_dir={export_dir}", *paths.values())
    lines = map(json.loads, printed.stdout.splitlines())
    ways["serving.predict"] = [line["probabilities"] for line in lines]
    with running_app(export_dir) as app:
        answers = [app.predict(path.read_bytes()).json for path in paths.values()]
    ways["serving.app"] = [answer["probabilities"] for answer in answers]
    with model_server.serve_in_process(model_server.Model(export_dir)) as server:
        for target in server:
            with Client(target, exported.info) as client:
                answers = client.predict_files(paths.values())
                ways[target] = [answer.probabilities for answer in answers]
    expected = np.stack([trained[track] for track in paths])
    for way, given in ways.items():
        values = [list(probabilities.values()) for probabilities in given]
        np.testing.assert_allclose(values, expected, atol=TOLERANCE, err_msg=way)
        print(f"{way}: {np.abs(np.array(values) - expected).max():.1e}")


def test_verification_of_real_songs(fma_sample, real_dataset, model_dir):
    result = run_module(
        "serving.verify",
        f"--export_dir={model_dir / 'export'}",
        f"--dataset_dir={real_dataset}",
        f"--audio_dir={fma_sample / 'fma_small'}",
    )
    assert result.returncode == 0, result.stderr
    assert "trained on another dataset" in result.stdout
