"""The poster's table: every figure as the trainings' files have it, and the command around it."""

import dataclasses
import json
import os
import re
import shutil
import signal
import statistics

import pytest

from common import command, dataset_reader
from common.errors import UserFacingError
from tests.support.commands import assert_refused, run_module, start_module
from trainer import reproduce
from trainer.evaluation import metrics
from trainer.evaluation.epochs import EpochMetrics
from trainer.experiments import results
from trainer.run import model_folder
from trainer.train_config import TrainConfig

PARAMETERS = {
    "2-conv mono": "28,344,899",
    "4-conv mono": "5,440,451",
    "4-conv RGB": "5,441,411",
    "6-conv RGB": "3,345,795",
}


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of all Markdown tables in a text, by the names in their headers."""
    rows, header = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
        elif set(cells[0]) != {"-"}:
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


def config_of(*flags) -> TrainConfig:
    path = results.config_path("six_conv_rgb")
    return TrainConfig.from_dict(command.config_file_values(path, flags))


@pytest.fixture
def training(model_dir, dataset_dir):
    """The six-layer network as one of the table's."""
    return results.Training(
        network="six_conv_rgb",
        config=config_of("--config.epochs=2"),
        dataset_dir=str(dataset_dir),
        info=dataset_reader.load_dataset_info(str(dataset_dir)),
        name="artist/six_conv_rgb/seed_0",
        model_dir=str(model_dir),
    )


def test_flags_override_a_config_file():
    config = config_of("--config.network.color=mono", "--config.seed=3", "--strategy=auto")
    assert (config.network.color, config.seed, config.batch_size) == ("mono", 3, 16)
    with pytest.raises(UserFacingError, match="epocs"):
        config_of("--config.epocs=3")
    with pytest.raises(UserFacingError, match=r"config\.epochs"):
        config_of("--config.epochs=many")


def test_which_trainings_are_finished(training, tmp_path):
    assert training.is_finished()
    longer = dataclasses.replace(training, config=config_of("--config.epochs=3"))
    assert not longer.is_finished()
    assert not dataclasses.replace(training, model_dir=str(tmp_path)).is_finished()
    other = dataclasses.replace(training, config=config_of("--config.epochs=2", "--config.seed=1"))
    with pytest.raises(UserFacingError, match=r"config\.seed is 0 there and 1 here"):
        other.is_finished()


def test_the_figures_are_those_of_the_files(training, model_dir, tmp_path):
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    speeds = [json.loads(s) for s in (model_dir / "throughput.jsonl").read_text().splitlines()]
    test = json.loads((model_dir / "evaluation.json").read_text())
    best = max(lines, key=lambda line: (line["validation_accuracy"], -line["validation_loss"]))
    (row,) = rows_of(results.write([training], str(tmp_path)))
    low, high = test["accuracy_ci95"]
    seconds = round(sum(line["seconds"] for line in speeds))
    assert row == {
        "network": "6-conv RGB",
        "parameters": PARAMETERS["6-conv RGB"],
        "seed": "0",
        "training": f"{100 * best['accuracy']:.1f} %",
        "validation": f"{100 * best['validation_accuracy']:.1f} %",
        "test": f"{100 * test['accuracy']:.1f} %",
        "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
        "poster": "61 %",
        "epochs": "2",
        "best": str(best["epoch"]),
        "time": f"{seconds // 60}:{seconds % 60:02} min",
    }
    (of_dataset,) = json.loads((tmp_path / "results.json").read_text())
    assert of_dataset["split_by"] == "artist"
    assert of_dataset["baselines"] == test["baselines"]
    (network,) = of_dataset["networks"]
    assert network["trainings"][0]["test_accuracy"] == test["accuracy"]
    assert "split_by=artist" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_epoch_is_the_one_that_is_kept(tmp_path):
    epochs = [
        EpochMetrics(
            epoch=epoch,
            loss=1.0,
            accuracy=epoch / 4,
            validation_loss=1.0,
            validation_accuracy=validation,
            learning_rate=1e-3,
        )
        for epoch, validation in ((1, 0.7), (2, 0.6))
    ]
    model_folder.write_history(str(tmp_path), epochs)
    test = metrics.Evaluation(
        num_examples=4,
        accuracy=0.5,
        accuracy_ci95=(0.2, 0.8),
        balanced_accuracy=0.5,
        macro_f1=0.5,
        per_class={},
        confusion=[],
        log_loss=1.0,
        ece=0.0,
        spearman=None,
        baselines=metrics.Baselines(majority=0.5, genre=0.5),
    )
    model_folder.write_evaluation(str(tmp_path), "test", test)
    export = tmp_path / "export" / "1"
    (export / "assets.extra").mkdir(parents=True)
    (export / "saved_model.pb").touch()
    (export / "assets.extra" / "model_info.json").write_text('{"num_parameters": 3}')
    for keep, epoch, accuracies in (("best", 1, (0.25, 0.7)), ("last", 2, (0.5, 0.6))):
        training = results.Training(
            network="six_conv_rgb",
            config=config_of(f"--config.keep={keep}"),
            dataset_dir="",
            info=None,
            name="",
            model_dir=str(tmp_path),
        )
        found = training.measured()
        assert found["best_epoch"] == epoch
        assert (found["train_accuracy"], found["validation_accuracy"]) == accuracies


def test_seeds_and_two_splits(training, model_dir, tmp_path):
    """Three seeds on each of two splits, whose evaluations differ by what is written here."""
    accuracies = {"track": [0.5, 0.625, 0.55], "artist": [0.4, 0.375, 0.41]}
    trainings = []
    for by, values in accuracies.items():
        check = {"by": by, "groups_in_two_splits": 0, "artists_in_two_splits": 9 * (by == "track")}
        info = dataclasses.replace(training.info, split_check=check, fingerprint=by)
        for seed, accuracy in enumerate(values):
            folder = tmp_path / by / str(seed)
            ignored = shutil.ignore_patterns("checkpoints", "best", "tensorboard", "variables")
            shutil.copytree(model_dir, folder, ignore=ignored)
            evaluation = json.loads((folder / "evaluation.json").read_text())
            (folder / "evaluation.json").write_text(json.dumps(evaluation | {"accuracy": accuracy}))
            config = dataclasses.replace(training.config, seed=seed)
            trainings.append(
                dataclasses.replace(training, config=config, info=info, model_dir=str(folder))
            )
    text = results.write(trainings, str(tmp_path))
    assert text.index("Tracks split at random") < text.index("No artist in two splits")
    assert "9 artists are in two splits" in text
    *by_seed, hidden = rows_of(text)
    for rows, values in zip((by_seed[:4], by_seed[4:]), accuracies.values(), strict=True):
        assert [row["seed"] for row in rows] == ["0", "1", "2", "mean of 3"]
        assert [row["test"] for row in rows[:3]] == [f"{100 * value:.1f} %" for value in values]
        mean, spread = 100 * statistics.mean(values), 100 * statistics.stdev(values)
        assert rows[3]["test"] == f"{mean:.1f} ± {spread:.1f} %"
    means = [100 * statistics.mean(values) for values in accuracies.values()]
    assert hidden["difference"] == f"{means[1] - means[0]:+.1f}"
    before = {name: (tmp_path / name).read_bytes() for name in ("results.json", "results.png")}
    results.write(trainings, str(tmp_path))
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_each_training_has_its_share_of_the_machine(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))

    def shares(size, gpus):
        return [reproduce.environment(place, size, gpus) for place in range(size)]

    assert shares(1, []) == [{}]
    assert shares(2, []) == [{"TF_NUM_INTRAOP_THREADS": "3"}] * 2
    assert shares(9, [])[8] == {"TF_NUM_INTRAOP_THREADS": "1"}
    assert shares(2, ["3", "7"]) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    assert shares(1, ["0", "1"]) == [{"CUDA_VISIBLE_DEVICES": "0,1"}]
    crowded = shares(3, ["0", "1"])
    assert [env["CUDA_VISIBLE_DEVICES"] for env in crowded] == ["0", "1", "0"]
    assert all(env["TF_FORCE_GPU_ALLOW_GROWTH"] == "true" for env in crowded)


def test_a_seed_is_one_however_it_is_written():
    assert reproduce.numbers_of(["2", "0"]) == [2, 0]
    for words in (["0", "00"], ["1", "x"], []):
        with pytest.raises(UserFacingError, match=f"--seeds={','.join(words)}: different"):
            reproduce.numbers_of(words)


def test_refusals(dataset_dir, tmp_path):
    command = ["trainer.reproduce", f"--dataset_dir={dataset_dir}", f"--output_dir={tmp_path}"]
    assert_refused(run_module(*command, "--seeds=0,x"), "--seeds=0,x")
    assert_refused(run_module(*command, "--", "--config.seed=1"), "--config.seed=1", "--seeds")
    assert_refused(run_module(*command, "--", "--config.epochs", "1"), "1: flags only")
    assert_refused(run_module(*command, "--", "--config.epocs=1"), "epocs")
    same = run_module(*command, f"--artist_dataset_dir={dataset_dir}")
    assert_refused(same, f"{dataset_dir}: split by artist, as")
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_the_four_networks(dataset_dir, tmp_path):
    """Stopped, then with one that fails, then to the end, then once more."""
    flags = [f"--dataset_dir={dataset_dir}", f"--output_dir={tmp_path}", "--parallel=2"]
    arguments = ["trainer.reproduce", *flags, "--", "--config.epochs=2"]
    process = start_module(*arguments)
    while "epoch 1/2" not in (line := process.stdout.readline()):
        assert line, "it ended before the first epoch"
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 75, rest
    assert "the same command goes on" in rest
    assert not (tmp_path / "results.json").exists()

    obstacle = tmp_path / "artist" / "six_conv_rgb"
    shutil.rmtree(obstacle, ignore_errors=True)
    obstacle.touch()
    result = run_module(*arguments, timeout=600)
    assert result.returncode == 1, result.stdout
    assert "error: artist/six_conv_rgb/seed_0 failed (1)" in result.stderr
    assert f"{obstacle}/seed_0: can't be written" in result.stderr
    assert not (tmp_path / "results.json").exists()

    obstacle.unlink()
    result = run_module(*arguments, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "trainings: 4, of which finished before: 3" in result.stdout
    assert set(re.findall(r"^\[(.*?)\]", result.stdout, re.MULTILINE)) == {
        "artist/six_conv_rgb/seed_0"
    }
    rows = rows_of((tmp_path / "results.md").read_text())
    assert {row["network"]: row["parameters"] for row in rows} == PARAMETERS
    assert [row["poster"] for row in rows] == ["42 %", "51 %", "53 %", "61 %"]
    assert (tmp_path / "results.md").read_text() in result.stdout
    for row, network in zip(rows, results.NETWORKS, strict=True):
        evaluation = tmp_path / "artist" / network / "seed_0" / "evaluation.json"
        accuracy = json.loads(evaluation.read_text())["accuracy"]
        assert row["test"] == f"{100 * accuracy:.1f} %"

    def written():
        return {path.name: path.read_bytes() for path in tmp_path.glob("results.*")}

    before = written()
    assert len(before) == 3
    result = run_module(*arguments)
    assert result.returncode == 0, result.stderr
    assert "trainings: 4, of which finished before: 4" in result.stdout
    assert not re.search(r"^\[", result.stdout, re.MULTILINE)
    assert written() == before
