"""Training as a command: what it leaves, how it goes on, what it refuses."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import run_module


def train(dataset_dir, model_dir, *arguments):
    return run_module(
        "trainer.train",
        "--config=configs/six_conv_rgb.py",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={model_dir}",
        *arguments,
    )


def history(model_dir) -> list[dict]:
    """The metrics without what a clock says."""
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def weights(model_dir) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(model_dir / "checkpoints"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if ".ATTRIBUTES/VARIABLE_VALUE" in name
    }


def assert_refused(result, *fragments):
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    for fragment in fragments:
        assert str(fragment) in line


def test_what_a_training_leaves(model_dir, dataset_dir):
    assert [line["epoch"] for line in history(model_dir)] == [1, 2]
    assert (model_dir / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    evaluation = json.loads((model_dir / "evaluation.json").read_text())
    info = json.loads((dataset_dir / "dataset_info.json").read_text())
    assert evaluation["num_examples"] == info["splits"]["test"]["num_examples"]
    assert evaluation.keys() == {
        "num_examples",
        "accuracy",
        "accuracy_ci95",
        "balanced_accuracy",
        "macro_f1",
        "per_class",
        "confusion",
        "log_loss",
        "ece",
        "spearman",
        "baselines",
    }
    assert (model_dir / "export" / "1" / "saved_model.pb").exists()


def test_evaluate_says_the_same(model_dir, dataset_dir):
    before = (model_dir / "evaluation.json").read_bytes()
    result = run_module(
        "trainer.evaluate", f"--model_dir={model_dir}", f"--dataset_dir={dataset_dir}"
    )
    assert result.returncode == 0, result.stderr
    first = json.loads(before)
    again = json.loads((model_dir / "evaluation.json").read_text())
    assert again["confusion"] == first["confusion"]
    assert again["log_loss"] == pytest.approx(first["log_loss"], rel=1e-5)


def test_going_on_ends_in_the_same_bits(dataset_dir, tmp_path):
    flags = ["--config.deterministic", "--config.batch_size=4", "--strategy=one_device"]
    for epochs in (1, 3):
        result = train(dataset_dir, tmp_path / "stopped", *flags, f"--config.epochs={epochs}")
        assert result.returncode == 0, result.stderr
    assert "resumed after epoch 1 of 3" in result.stdout
    result = train(dataset_dir, tmp_path / "whole", *flags, "--config.epochs=3")
    assert result.returncode == 0, result.stderr
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")
    stopped, whole = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert stopped.keys() == whole.keys() and len(stopped) > 30
    for name in whole:
        np.testing.assert_array_equal(stopped[name], whole[name], err_msg=name)


def test_refusals(model_dir, dataset_dir, tmp_path):
    new = tmp_path / "model"
    assert_refused(train(dataset_dir, new, "--config.learnin_rate=1"), "learnin_rate")
    assert_refused(train(dataset_dir, new, "--config.batch_size=0"), "config.batch_size: 0")
    assert_refused(train(dataset_dir, new, "--config.network.color=blue"), "config.network.color")
    assert_refused(train(tmp_path / "none", new), "none: no such folder")
    (tmp_path / "unfinished").mkdir()
    assert_refused(train(tmp_path / "unfinished", new), "unfinished", "dataset_info.json")
    assert not new.exists()
    assert_refused(
        train(dataset_dir, model_dir, "--config.network.convolutions=4"),
        model_dir,
        "config.network.convolutions is 6 there and 4 here",
    )
    (tmp_path / "file").touch()
    assert_refused(train(dataset_dir, tmp_path / "file" / "m"), "can't be written")


def test_evaluate_refuses_a_folder_without_a_model(dataset_dir, tmp_path):
    result = run_module(
        "trainer.evaluate", f"--model_dir={tmp_path}", f"--dataset_dir={dataset_dir}"
    )
    assert_refused(result, tmp_path, "training.json")
