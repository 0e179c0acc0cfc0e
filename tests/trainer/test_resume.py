"""Stopped anywhere and started again, a training ends in the same bits as one never stopped."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.commands import run_module
from tests.support.paths import ROOT

KILLS = int(os.environ.get("SOAK_TRAINING_KILLS", "1"))
GROUP_KILLS = int(os.environ.get("SOAK_GROUP_KILLS", "1"))

FLAGS = [
    "--config=configs/six_conv_rgb.py",
    "--config.deterministic",
    "--config.batch_size=2",
    "--config.steps_per_call=2",
    "--config.checkpoint_seconds=0",  # after every call
    # All that has a state of its own, or depends on where in the training a step is.
    "--config.learning_rate_schedule=cosine",
    "--config.warmup_epochs=1.5",
    "--config.clip_norm=0.5",
    "--config.class_weights=balanced",
    "--config.freq_mask=20",
    "--config.time_mask=30",
    "--config.patience=20",
    "--config.precision=mixed_bfloat16",
]
ONE = ["trainer.train", *FLAGS, "--strategy=one_device"]
MIRRORED = ["trainer.train", *FLAGS, "--strategy=mirrored"]
GROUP = ["trainer.launch", "--workers=2", "--max_restarts=0", "--", *FLAGS]

# Runs trainer.train on two logical CPUs, which no flag of it makes.
TWO_DEVICES = """
import runpy, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def command_of(arguments, dataset_dir, model_dir, *more):
    start = ["-c", TWO_DEVICES] if "--strategy=mirrored" in arguments else ["-m"]
    folders = [f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}"]
    return [sys.executable, *start, *arguments, *folders, *more]


def finish(command) -> str:
    """Runs a training to its end; what it printed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def outcome(model_dir) -> dict:
    """What must be the same: each array of the last checkpoint, and the files about metrics."""
    checkpoints = (model_dir / "checkpoints").glob("ckpt-*.npz")
    last = max(checkpoints, key=lambda path: int(path.stem.removeprefix("ckpt-")))
    with np.load(last) as arrays:
        found = {name: arrays[name].tobytes() for name in arrays.files}
    for name in ("metrics.jsonl", "learning_curves.png", "evaluation.json"):
        found[name] = (model_dir / name).read_bytes()
    return found


def assert_same(ours: dict, expected: dict) -> None:
    assert ours.keys() == expected.keys() and len(expected) > 50
    assert [name for name in expected if ours[name] != expected[name]] == []


def kill_at_random(command, draw: random.Random, *, steps: tuple[float, float]) -> bool:
    """Starts a training and kills all its processes in the first seconds of its steps.

    Returns:
        whether it was killed, and had not ended before.
    """
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while "network: " not in process.stdout.readline():
        pass
    time.sleep(draw.uniform(*steps))
    ended = process.poll() is not None
    workers = children(process.pid)
    process.kill()  # with it its workers go
    process.stdout.close()
    process.wait()
    while any(os.path.exists(f"/proc/{worker}/root") for worker in workers):
        time.sleep(0.1)
    return not ended


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


@pytest.fixture(scope="module")
def whole(dataset_dir, tmp_path_factory):
    """What a training that was never stopped ends in, by how it is run."""
    outcomes = {}

    def of(arguments, epochs):
        key = (*arguments, epochs)
        if key not in outcomes:
            model_dir = tmp_path_factory.mktemp("whole") / "model"
            finish(command_of(arguments, dataset_dir, model_dir, f"--config.epochs={epochs}"))
            outcomes[key] = outcome(model_dir)
        return outcomes[key]

    return of


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "kills"),
    [(ONE, KILLS), (MIRRORED, 1), (GROUP, GROUP_KILLS)],
    ids=["one device", "two devices", "two workers"],
)
def test_killed_at_random_moments(arguments, kills, dataset_dir, tmp_path, whole):
    epochs = 4 * kills
    model_dir = tmp_path / "model"
    command = command_of(arguments, dataset_dir, model_dir, f"--config.epochs={epochs}")
    draw = random.Random(kills)
    killed = sum(kill_at_random(command, draw, steps=(2.0, 8.0)) for _ in range(kills))
    assert killed >= (kills + 1) // 2
    there = list((model_dir / "checkpoints").glob("ckpt-*"))
    assert ("resumed after" in finish(command)) == bool(there)
    assert_same(outcome(model_dir), whole(arguments, epochs))


@pytest.mark.integration
@pytest.mark.parametrize("arguments", [ONE, GROUP], ids=["one device", "two workers"])
def test_sigterm_checkpoints(arguments, dataset_dir, tmp_path, whole):
    model_dir = tmp_path / "model"
    command = command_of(
        arguments, dataset_dir, model_dir, "--config.epochs=4", "--config.checkpoint_seconds=1000"
    )
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while "epoch 1/4" not in process.stdout.readline():
        pass
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 75, rest
    assert "the same command goes on" in rest
    assert "resumed after epoch" in finish(command)
    assert_same(outcome(model_dir), whole(arguments, 4))


@pytest.mark.integration
def test_a_group_starts_again_when_a_worker_dies(dataset_dir, tmp_path, whole):
    model_dir = tmp_path / "model"
    arguments = [a if a != "--max_restarts=0" else "--max_restarts=1" for a in GROUP]
    command = command_of(arguments, dataset_dir, model_dir, "--config.epochs=4")
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while "epoch 1/4" not in process.stdout.readline():
        pass
    os.kill(children(process.pid)[1], signal.SIGKILL)
    rest = process.stdout.read()
    assert process.wait(60) == 0, rest
    assert "worker 1 died (-9); all start again, 0 restarts left" in rest
    assert_same(outcome(model_dir), whole(GROUP, 4))


@pytest.mark.integration
def test_a_damaged_checkpoint(dataset_dir, tmp_path):
    """The one before is taken, saying so; with every one damaged nothing is trained anew."""
    arguments = [*ONE, f"--dataset_dir={dataset_dir}", f"--model_dir={tmp_path / 'model'}"]
    assert run_module(*arguments, "--config.epochs=2").returncode == 0
    folder = tmp_path / "model" / "checkpoints"
    last = max(folder.glob("*.npz"), key=lambda path: int(path.stem[5:]))
    expected = outcome(tmp_path / "model")
    good = last.read_bytes()
    last.write_bytes(good[: len(good) // 2])
    result = run_module(*arguments, "--config.epochs=2")
    assert result.returncode == 0, result.stderr
    assert f"{last}: the checkpoint is damaged; trying the one before" in result.stderr
    assert_same(outcome(tmp_path / "model"), expected)
    for path in folder.iterdir():
        path.write_bytes(b"PK")
    result = run_module(*arguments, "--config.epochs=2")
    assert result.returncode == 1
    assert "every checkpoint is damaged" in result.stderr
