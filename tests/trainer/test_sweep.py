"""The sweep: its trials and their table, how it goes on, what it leaves alone."""

import dataclasses
import json
import shlex
import shutil
import signal

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from common import command
from common.errors import UserFacingError
from tests.support.commands import assert_refused, run_module, start_module
from trainer.experiments import results, search
from trainer.run import devices
from trainer.train_config import TrainConfig

SPACE = search.Space(learning_rates=(1e-5, 1e-3), batch_sizes=(4, 8), dropouts=(0.0, 0.5))


@pytest.fixture(scope="module")
def without_test(small_dataset_dir, tmp_path_factory):
    """A dataset whose test shards are gone."""
    folder = tmp_path_factory.mktemp("without_test") / "dataset"
    shutil.copytree(small_dataset_dir, folder, ignore=shutil.ignore_patterns("test.tfrecord-*"))
    return folder


def sweep(dataset_dir, output_dir, *, num_trials, stop_asked=lambda: False, **changes):
    path = results.config_path("two_conv_mono")
    config = TrainConfig.from_dict(command.config_file_values(path, ["--config.epochs=2"]))
    arguments = {"startup_trials": 3, "seed": 0, "strategy": "one_device"} | changes
    return search.run(
        config,
        arguments.pop("space", SPACE),
        dataset_dir=str(dataset_dir),
        output_dir=str(output_dir),
        num_trials=num_trials,
        stop_asked=stop_asked,
        **arguments,
    )


def trials_of(folder) -> list[dict]:
    return json.loads((folder / "sweep.json").read_text())["trials"]


def test_a_sweep_goes_on(without_test, tmp_path):
    """After a stop within its first trial; and with one more, which is stopped early, since it
    comes after some that are made to look perfect.
    """
    folder = tmp_path
    asked = iter([False, True])  # each epoch is one call of the compiled steps, then validation
    assert sweep(without_test, folder, num_trials=2, stop_asked=lambda: next(asked)) is None
    assert not (folder / "sweep.json").exists()
    assert sweep(without_test, folder, num_trials=2).best["batch_size"] in SPACE.batch_sizes
    trials = trials_of(folder)
    assert [(trial["number"], trial["epochs"]) for trial in trials] == [(1, 2), (2, 2)]
    for trial in trials:
        lines = (folder / "trials" / f"00{trial['number']}" / "metrics.jsonl").read_text()
        accuracies = [json.loads(line)["validation_accuracy"] for line in lines.splitlines()]
        assert trial["validation_accuracy"] == max(accuracies)
    assert not list(folder.rglob("checkpoints")) and not list(folder.rglob("evaluation.json"))

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "trials.journal")))
    study = optuna.load_study(study_name="sweep", storage=storage)
    for trial in study.get_trials()[:1] * 3:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
                intermediate_values={1: 1.0, 2: 1.0},
                value=1.0,
            )
        )
    found = sweep(without_test, folder, num_trials=6)
    last = trials_of(folder)[-1]
    assert (last["outcome"], last["epochs"]) == ("stopped early", 1)
    assert "6 trials: 5 to the end, 1 stopped early" in found.table
    assert found.table == (folder / "sweep.md").read_text()
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")

    asked = iter([True])  # within a seventh
    assert sweep(without_test, folder, num_trials=7, stop_asked=lambda: next(asked)) is None
    assert sweep(without_test, folder, num_trials=3).table == found.table  # as many as there are

    with pytest.raises(UserFacingError, match="another sweep: seed is 0 there and 1 here"):
        sweep(without_test, folder, num_trials=6, seed=1)


def test_a_sweep_all_of_whose_trials_diverge(without_test, tmp_path):
    space = dataclasses.replace(SPACE, learning_rates=(1e30, 1e31))
    with pytest.raises(
        UserFacingError, match="no trial came to its end; take lower --learning_rates"
    ):
        sweep(without_test, tmp_path, num_trials=1, space=space)


def test_a_space_that_does_not_fit(without_test, tmp_path):
    odd = dataclasses.replace(SPACE, batch_sizes=(4, 5))
    with pytest.raises(UserFacingError, match="--batch_sizes: 5 can't be shared by 2 replicas"):
        sweep(without_test, tmp_path, num_trials=1, space=odd, strategy="mirrored")
    certain = dataclasses.replace(SPACE, dropouts=(0.5, 0.999))
    with pytest.raises(UserFacingError, match=r"config\.dropout: 1\.0 is not in 0"):
        sweep(without_test, tmp_path, num_trials=1, space=certain)
    with pytest.raises(UserFacingError, match=r"--dropouts=0\.5,0\.1: the lowest and the highest"):
        dataclasses.replace(SPACE, dropouts=(0.5, 0.1))
    assert not list(tmp_path.iterdir())


def test_workers_are_refused_before_they_are_waited_for(tmp_path, monkeypatch):
    workers = {"worker": ["localhost:1", "localhost:2"]}
    place = {"cluster": workers, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(place))
    monkeypatch.setattr(devices, "strategy_for", lambda name: pytest.fail("waits for worker 1"))
    with pytest.raises(UserFacingError, match="TF_CONFIG: a sweep is for one process"):
        sweep(tmp_path, tmp_path, num_trials=1, strategy="auto")


def test_refusals(without_test, tmp_path):
    flags = ["--config=configs/six_conv_rgb.py", f"--dataset_dir={without_test}"]
    result = run_module("trainer.sweep", *flags, f"--output_dir={tmp_path}", "--dropouts=a,b")
    assert_refused(result, "--dropouts=a,b: not a list of numbers")
    assert_refused(run_module("trainer.sweep", *flags, "--output_dir=gs://a/b"), "gs://a/b")


@pytest.mark.integration
def test_the_same_sweep_has_the_same_trials(without_test, small_dataset_dir, tmp_path):
    """Those drawn by what the ones before reached, too; and the command it ends with trains."""

    def command_to(folder):
        return [
            "trainer.sweep",
            "--config=configs/two_conv_mono.py",
            "--config.epochs=2",
            "--config.deterministic",
            "--batch_sizes=4,8",
            "--trials=3",
            "--startup_trials=1",
            f"--dataset_dir={without_test}",
            f"--output_dir={folder}",
        ]

    process = start_module(*command_to(tmp_path / "stopped"))
    while "[trial 2] epoch 1/2" not in (line := process.stdout.readline()):
        assert line, "it ended before the second trial"
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 75, rest
    outputs = {}
    for name in ("stopped", "whole"):
        result = run_module(*command_to(tmp_path / name), fresh=name == "whole")
        assert result.returncode == 0, result.stdout + result.stderr
        outputs[name] = result.stdout
    assert "trial 1 of 3" not in outputs["stopped"]

    def without_times(name):
        return [{k: v for k, v in t.items() if k != "seconds"} for t in trials_of(tmp_path / name)]

    assert without_times("stopped") == without_times("whole")

    best = json.loads((tmp_path / "whole" / "sweep.json").read_text())["best"]
    (trial,) = (trial for trial in trials_of(tmp_path / "whole") if trial["number"] == best)
    words = shlex.split(outputs["whole"].splitlines()[-1])
    assert words[:3] == ["python", "-m", "trainer.train"]
    words = [word for word in words[2:] if not word.startswith(("--dataset_dir", "--model_dir"))]
    folders = [f"--dataset_dir={small_dataset_dir}", f"--model_dir={tmp_path / 'model'}"]
    result = run_module(*words, *folders)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["validation_accuracy"] for line in lines] == trial["curve"]
