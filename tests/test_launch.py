"""Local workers: their output, their end, and what TF_CONFIG must say."""

import json
import sys

import numpy as np
import pytest

from beam_pipelines.command import InputError
from tests.conftest import assert_refused, run_module
from trainer import devices, launch


def tf_config(cluster, job="worker", index=0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


def test_workers_of_tf_config():
    assert devices.workers_of("") == 0
    assert devices.workers_of("{}") == 0
    assert devices.workers_of(tf_config({"worker": ["a:1", "b:1"]})) == 2
    assert devices.workers_of(tf_config({"chief": ["a:1"], "worker": ["b:1"]}, "chief")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": 3}}',
        tf_config({"worker": ["a:1"]}, index=1),
        tf_config({"worker": ["a:1"]}, job="chief"),
        tf_config({"worker": ["a:1"], "ps": ["b:1"]}),
    ],
)
def test_an_impossible_tf_config(text):
    with pytest.raises(InputError, match="TF_CONFIG"):
        devices.workers_of(text)


def test_multi_worker_without_workers(dataset_dir, tmp_path):
    result = run_module(
        "trainer.train",
        "--config=configs/two_conv_mono.py",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={tmp_path / 'model'}",
        "--strategy=multi_worker",
    )
    assert_refused(result, "TF_CONFIG", "trainer.launch")


def test_what_a_worker_refuses_ends_the_group(dataset_dir, tmp_path):
    """Without a restart, since it would be refused again."""
    result = run_module(
        "trainer.launch",
        "--workers=2",
        "--",
        "--config=configs/two_conv_mono.py",
        "--config.batch_size=3",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={tmp_path / 'model'}",
    )
    assert result.returncode == 1
    assert "config.batch_size: 3 can't be shared by 2 replicas" in result.stdout
    assert all(line.startswith("[worker ") for line in result.stdout.splitlines())
    assert "start again" not in result.stdout
    assert not (tmp_path / "model").exists()


def test_no_flags_for_the_workers():
    assert_refused(run_module("trainer.launch", "--workers=2"), "no flags for the workers")


@pytest.mark.integration
def test_two_workers_train_as_one_does(dataset_dir, tmp_path):
    """The same global batches give the same steps, each example comes to one of the workers."""
    found = {}
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        group = launch.Group(
            [sys.executable, "-m", "tests.steps_of_a_worker", str(dataset_dir), str(folder)], size
        )
        assert group.run() == (0, 0)
        found[size] = [np.load(path) for path in sorted(folder.iterdir())]
        assert len(found[size]) == size
    (alone,), (first, second) = found[1], found[2]
    assert len(alone["losses"]) >= 20
    for worker in (first, second):
        np.testing.assert_allclose(worker["losses"][:20], alone["losses"][:20], rtol=1e-3)
        np.testing.assert_allclose(worker["probabilities"], alone["probabilities"], atol=1e-5)
    np.testing.assert_array_equal(first["weights"], second["weights"])

    def examples(*workers):
        return sorted(tuple(example) for worker in workers for example in worker["seen"])

    assert len(set(examples(alone))) == len(examples(alone))
    assert examples(first, second) == examples(alone)
    assert abs(len(first["seen"]) - len(second["seen"])) <= 2
