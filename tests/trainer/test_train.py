"""Training as a command: what it leaves, how it goes on, what it refuses."""

import json
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from common import dataset_reader
from tests.support.commands import assert_refused, run_module
from tests.trainer.test_damaged_records import flip, frames
from trainer.evaluation import report
from trainer.evaluation.epochs import EpochMetrics, best_epoch
from trainer.evaluation.predictions import Predictions
from trainer.run import model_folder


@pytest.fixture(scope="module")
def model_dir(model_dir, tmp_path_factory):
    """A copy, since evaluations are written into it."""
    return shutil.copytree(model_dir, tmp_path_factory.mktemp("copy") / "model")


def train(dataset_dir, model_dir, *arguments, config="six_conv_rgb", fresh=False):
    return run_module(
        "trainer.train",
        f"--config=configs/{config}.py",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={model_dir}",
        *arguments,
        fresh=fresh,
    )


def history(model_dir) -> list[dict]:
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def weights(model_dir) -> dict[str, np.ndarray]:
    last = max((model_dir / "checkpoints").iterdir(), key=lambda path: int(path.stem[5:]))
    with np.load(last) as arrays:
        return dict(arrays)


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
        # Beside what the contract names.
        "ndcg",
        "top_tenth_recall",
        "spearman_age",
        "by_genre",
        "baseline_scores",
        "importance",
    }
    page = (model_dir / "report.html").read_text()
    assert f"{100 * evaluation['accuracy']:.1f} % of {evaluation['num_examples']} test clip" in page
    assert info["fingerprint"] in page
    assert (model_dir / "export" / "1" / "saved_model.pb").exists()


def test_evaluate_says_the_same(model_dir, dataset_dir):
    before = (model_dir / "evaluation.json").read_bytes()
    result = run_module(
        "trainer.evaluate", f"--model_dir={model_dir}", f"--dataset_dir={dataset_dir}"
    )
    assert result.returncode == 0, result.stderr
    assert f"report: {model_dir / 'report.html'}" in result.stdout
    first = json.loads(before)
    again = json.loads((model_dir / "evaluation.json").read_text())
    assert again["confusion"] == first["confusion"]
    assert again["log_loss"] == pytest.approx(first["log_loss"], rel=1e-5)


def test_the_report_shows_the_right_spectrograms(dataset_dir):
    """Those that the dataset's other reader finds for the tracks."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    examples = [
        example
        for split, example in dataset_reader.read_examples(info, str(dataset_dir))
        if split == "train"
    ]
    labels = np.array([example["label"] for example in examples])
    columns = ("listens", "artist_id", "track_id", "genre")
    predictions = Predictions(
        label=labels,
        probabilities=np.eye(3)[(labels + np.arange(len(labels)) % 2) % 3],  # half are wrong
        **{name: np.array([example[name] for example in examples]) for name in columns},
    )
    pictures = report.pictures_of_mistakes(info, str(dataset_dir), "train", predictions)
    assert len(pictures) == min(report.NUM_MISTAKES, len(labels) // 2)
    for picture, example in zip(pictures, examples[1::2], strict=False):
        assert picture.tobytes() == example["spectrogram"]


@pytest.mark.integration
def test_going_on_ends_in_the_same_bits(small_dataset_dir, tmp_path):
    flags = ["--config.deterministic", "--config.batch_size=4", "--strategy=one_device"]

    def trained(name, epochs, *, fresh=False):
        flags_now = (*flags, f"--config.epochs={epochs}")
        folders = (small_dataset_dir, tmp_path / name)
        result = train(*folders, *flags_now, config="two_conv_mono", fresh=fresh)
        assert result.returncode == 0, result.stderr
        return result.stdout

    trained("stopped", 1)
    assert "resumed after epoch 1 of 3" in trained("stopped", 3)
    trained("whole", 3, fresh=True)
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")
    stopped, whole = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert stopped.keys() == whole.keys() and len(stopped) > 20
    for name in whole:
        np.testing.assert_array_equal(stopped[name], whole[name], err_msg=name)


def test_a_finished_training_is_left_alone(model_dir, dataset_dir):
    def files():
        return {p: p.read_bytes() for p in sorted(model_dir.rglob("*")) if p.is_file()}

    before = files()
    result = train(dataset_dir, model_dir, "--config.epochs=2")
    assert result.returncode == 0, result.stderr
    assert f"exported before: {model_dir / 'export' / '1'}" in result.stdout
    assert files() == before


@pytest.mark.parametrize(
    ("history", "best"),
    [
        ([(0.5, 1.0), (0.7, 0.9), (0.6, 0.1)], 2),
        ([(0.7, 0.9), (0.7, 0.8), (0.7, 0.85)], 2),
        ([(0.7, 0.9), (0.7, 0.9)], 1),
        ([(None, None), (None, None), (None, None)], 3),
    ],
)
def test_the_best_epoch(history, best):
    epochs = [
        EpochMetrics(
            epoch=epoch,
            loss=1.0,
            accuracy=0.5,
            validation_loss=loss,
            validation_accuracy=accuracy,
            learning_rate=1e-3,
        )
        for epoch, (accuracy, loss) in enumerate(history, start=1)
    ]
    assert best_epoch(epochs) == best


def test_the_best_weights_are_those_of_the_best_epoch(model_dir, dataset_dir):
    """Evaluated anew on validation, they give what the history says of that epoch."""
    result = run_module(
        "trainer.evaluate",
        f"--model_dir={model_dir}",
        f"--dataset_dir={dataset_dir}",
        "--split=validation",
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads((model_dir / "evaluation_validation.json").read_text())
    lines = history(model_dir)
    losses = [line["validation_loss"] for line in lines]
    best = best_epoch(model_folder.read_history(str(model_dir)))
    assert measured["log_loss"] == pytest.approx(losses[best - 1], rel=1e-4)
    assert measured["log_loss"] != pytest.approx(losses[2 - best], rel=1e-4)


def test_damaged_shards_are_named(small_dataset_dir, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(small_dataset_dir, broken)

    def trained(*flags):
        return train(broken, tmp_path / "model", *flags, config="two_conv_mono")

    (shard, *_) = sorted(broken.glob("train.tfrecord-*"))
    begin, end = frames(shard.read_bytes())[1]
    flip(shard, (begin + end) // 2)
    assert_refused(trained(), shard, "record ", "--skip_damaged")
    result = trained("--skip_damaged", "--config.epochs=1")
    assert result.returncode == 0, result.stderr
    assert "damaged records: 1, left out" in result.stdout
    folders = [f"--model_dir={tmp_path / 'model'}", f"--dataset_dir={broken}"]
    result = run_module("trainer.evaluate", *folders, "--skip_damaged")
    assert result.returncode == 0, result.stderr
    assert "damaged records: 1, left out" in result.stdout
    shutil.rmtree(tmp_path / "model")
    shard.write_bytes(shard.read_bytes()[:-10])
    assert_refused(trained(), shard, "bytes")
    shard.unlink()
    assert_refused(trained(), shard, "missing")


@pytest.mark.integration
def test_patience_ends_a_training_that_gets_no_better(small_dataset_dir, tmp_path):
    flags = ["--config.patience=2", "--config.epochs=30", "--config.learning_rate=1e-9"]
    result = train(small_dataset_dir, tmp_path / "model", *flags, config="two_conv_mono")
    assert result.returncode == 0, result.stderr
    assert "no better validation accuracy for 2 epochs: ended early" in result.stdout
    lines = history(tmp_path / "model")
    best = best_epoch(model_folder.read_history(str(tmp_path / "model")))
    assert len(lines) == best + 2 < 30


def test_what_tensorboard_shows(model_dir):
    found = {}
    for name in ("train", "validation"):
        events = EventAccumulator(str(model_dir / "tensorboard" / name)).Reload()
        tensors = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
        found |= {f"{name}/{tag}": values for tag, values in tensors.items()}
    for line in history(model_dir):
        for tag, key in (("train/loss", "loss"), ("validation/accuracy", "validation_accuracy")):
            (value,) = (e for e in found[tag] if e.step == line["epoch"])
            assert make_ndarray(value.tensor_proto) == pytest.approx(line[key], rel=1e-6)
    assert {"train/spectrograms", "validation/confusion", "train/utilisation"} <= found.keys()


def test_refusals(model_dir, dataset_dir, tmp_path):
    new = tmp_path / "model"
    assert_refused(train(dataset_dir, new, "--config.learnin_rate=1"), "learnin_rate")
    assert_refused(train(dataset_dir, new, "--config.batch_size=0"), "config.batch_size: 0")
    assert_refused(train(dataset_dir, new, "--config.seed=4294967296"), "config.seed: 4294967296")
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
    assert_refused(train(dataset_dir, model_dir, "--config.epochs=1"), "config.epochs: 1, but")
    assert_refused(train(dataset_dir, new / "b", "--config.freq_mask=300"), "have 102")
    (tmp_path / "file").touch()
    assert_refused(train(dataset_dir, tmp_path / "file" / "m"), "can't be written")


@pytest.mark.integration
def test_a_training_that_diverges(small_dataset_dir, tmp_path):
    def trained(*flags):
        folders = (small_dataset_dir, tmp_path / "model")
        return train(*folders, *flags, config="two_conv_mono")

    too_high = ["--config.learning_rate=1e30", "--config.epochs=3"]
    assert_refused(trained(*too_high), "the loss is not finite")
    result = trained("--config.epochs=1")  # as the message says, in the same folder
    assert result.returncode == 0, result.stderr


def test_evaluate_refuses_a_folder_without_a_model(dataset_dir, tmp_path):
    result = run_module(
        "trainer.evaluate", f"--model_dir={tmp_path}", f"--dataset_dir={dataset_dir}"
    )
    assert_refused(result, tmp_path, "training.json")
