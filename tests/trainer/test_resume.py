"""Stopped anywhere and started again, a training ends in the same bits as one never stopped."""

import os
import pathlib
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest

from tests.support.commands import run_module, start_module

KILLS = int(os.environ.get("SOAK_TRAINING_KILLS", "1"))
GROUP_KILLS = int(os.environ.get("SOAK_GROUP_KILLS", "1"))

FLAGS = [
    "--config=configs/two_conv_mono.py",
    "--config.network.color=rgb",
    "--config.freq_mask=4",
    "--config.time_mask=6",
    "--config.deterministic",
    "--config.batch_size=2",
    "--config.steps_per_call=2",
    "--config.checkpoint_seconds=0",  # after every call
    # All that has a state of its own, or depends on where in the training a step is.
    "--config.learning_rate_schedule=cosine",
    "--config.warmup_epochs=1.5",
    "--config.clip_norm=0.5",
    "--config.class_weights=balanced",
    "--config.patience=20",
    "--config.precision=mixed_bfloat16",
]
ONE = ["trainer.train", *FLAGS, "--strategy=one_device"]
MIRRORED = ["tests.support.training_on_two_devices", *FLAGS, "--strategy=mirrored"]
GROUP = ["trainer.launch", "--workers=2", "--max_restarts=1", "--", *FLAGS]
# For each kill that is to come, so that the training does not end before it; of one device, whose
# steps are faster, more.
EPOCHS, EPOCHS_OF_ONE = 4, 6


def command_of(arguments, dataset_dir, model_dir, *more) -> list[str]:
    return [*arguments, f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}", *more]


def finish(command, *, fresh=False) -> str:
    """Runs a training to its end; what it printed."""
    result = run_module(*command, fresh=fresh)
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
    assert ours.keys() == expected.keys() and len(expected) > 30
    assert [name for name in expected if ours[name] != expected[name]] == []


def line_of(epoch: int, epochs: int) -> str:
    """How the line of an epoch begins."""
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs} "


def start(command, *, until: str):
    """Starts a training and waits for a line of it."""
    process = start_module(*command)
    read_until(until, process)
    return process


def read_until(text: str, process) -> str:
    """What a process prints up to a line that has the text."""
    printed = ""
    while text not in (line := process.stdout.readline()):
        assert line, printed
        printed += line
    return printed + line


def kill_at_random(command, model_dir, draw: random.Random) -> bool:
    """Resumes a training and kills all its processes in one of its first steps.

    Returns:
        whether it was killed, and had not ended before.
    """
    process = start(command, until="resumed after epoch")
    number = newest(model_dir) + draw.randrange(6)
    while newest(model_dir) < number and process.poll() is None:
        time.sleep(0.02)
    time.sleep(draw.uniform(0.0, 0.5))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    return not ended


def newest(model_dir: pathlib.Path) -> int:
    """The number of the newest checkpoint, 0 before the first."""
    paths = (model_dir / "checkpoints").glob("ckpt-*.npz")
    return max((int(path.stem.removeprefix("ckpt-")) for path in paths), default=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training that was never stopped, by how it is run."""
    folders = {}

    def of(arguments, dataset_dir, epochs):
        key = (*arguments, epochs)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("whole") / "model"
            command = command_of(arguments, dataset_dir, folders[key], f"--config.epochs={epochs}")
            # So that those that must be the same differ in Python's hash.
            finish(command, fresh=True)
        return folders[key]

    return of


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "kills"),
    [(ONE, KILLS), (MIRRORED, 1), (GROUP, GROUP_KILLS)],
    ids=["one device", "two devices", "two workers"],
)
def test_stopped_and_killed_at_random_moments(arguments, kills, small_dataset_dir, tmp_path, whole):
    """By SIGTERM once, which checkpoints, and of a group a worker before: all start again."""
    epochs = kills * (EPOCHS_OF_ONE if arguments is ONE else EPOCHS)
    model_dir = tmp_path / "model"
    command = command_of(arguments, small_dataset_dir, model_dir, f"--config.epochs={epochs}")

    process = start([*command, "--config.checkpoint_seconds=1000"], until=line_of(1, epochs))
    if arguments is GROUP:
        os.kill(process.pids()[-1], signal.SIGKILL)
        printed = read_until(line_of(2, epochs), process)
        assert re.search(r"worker [01] died \(-9\); all start again, 0 restarts left", printed)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    rest = process.communicate()[0]
    assert process.returncode == 75, rest
    assert "the same command goes on" in rest

    draw = random.Random(kills)
    killed = sum(kill_at_random(command, model_dir, draw) for _ in range(kills))
    assert killed >= (kills + 1) // 2
    assert "resumed after epoch" in finish(command)
    assert_same(outcome(model_dir), outcome(whole(arguments, small_dataset_dir, epochs)))


@pytest.mark.integration
def test_a_damaged_checkpoint(small_dataset_dir, tmp_path, whole):
    """The one before is taken, saying so; with every one damaged nothing is trained anew."""
    model_dir = tmp_path / "model"
    epochs = EPOCHS_OF_ONE * KILLS
    shutil.copytree(whole(ONE, small_dataset_dir, epochs), model_dir)
    command = command_of(ONE, small_dataset_dir, model_dir, f"--config.epochs={epochs}")
    expected = outcome(model_dir)
    folder = model_dir / "checkpoints"
    last = max(folder.glob("*.npz"), key=lambda path: int(path.stem[5:]))
    good = last.read_bytes()
    last.write_bytes(good[: len(good) // 2])
    result = run_module(*command)
    assert result.returncode == 0, result.stderr
    assert f"{last}: the checkpoint is damaged; trying the one before" in result.stderr
    assert_same(outcome(model_dir), expected)
    for path in folder.iterdir():
        path.write_bytes(b"PK")
    result = run_module(*command)
    assert result.returncode == 1
    assert "every checkpoint is damaged" in result.stderr
