"""A training between its first step and its last: what it goes on from, what it refuses."""

import collections
import dataclasses
import json
import zlib
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import dataset_reader
from common.errors import UserFacingError
from configs import two_conv_mono
from tests.benchmarks.made_dataset import make_dataset
from tests.support import drifting
from tests.trainer.test_damaged_records import flip, frames
from trainer.data import damaged_records, reader
from trainer.evaluation.epochs import best_epoch
from trainer.run import devices, loop, model_folder, resume
from trainer.run.loop import Diverged
from trainer.run.progress import Console
from trainer.run.session import Session, measure_epoch
from trainer.train_config import TrainConfig

# 60 clips are 15 steps in 8 calls.
CONFIG = dataclasses.replace(
    TrainConfig.from_dict(two_conv_mono.get_config().to_dict()),
    batch_size=4,
    steps_per_call=2,
    epochs=2,
    checkpoint_seconds=0,  # after every call
)


@pytest.fixture
def made(tmp_path):
    """A dataset of 60 clips in 3 shards, of small pictures."""
    config = drifting.CONFIG
    make_dataset(tmp_path / "dataset", num_shards=3, examples_a_shard=20, config=config)
    return str(tmp_path / "dataset")


class Seen(loop.Trainer):
    """A trainer that writes down which pictures its steps train on."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pictures = []

    def _replica_step(self, batch):
        def note(pictures, weights):
            kept = pictures[weights > 0]
            self.pictures += [zlib.crc32(picture.tobytes()) for picture in kept]

        tf.numpy_function(note, [batch["spectrogram"], batch["weight"]], [])
        super()._replica_step(batch)


class Training:
    """A training in a folder, as often as it is started."""

    def __init__(self, dataset_dir, model_dir, *, info=None, **changes):
        self.dataset_dir, self.model_dir = str(dataset_dir), str(model_dir)
        self.info = info or dataset_reader.load_dataset_info(self.dataset_dir)
        self.config = dataclasses.replace(CONFIG, **changes)

    def run(self, *, stop_asked=lambda: False, after_epoch=lambda epoch: True):
        """Starts it once more; its history, None if it was stopped."""
        keras.backend.clear_session()  # as a new process would
        keras.utils.set_random_seed(self.config.seed)
        self.trainer = Seen(self.config, self.info, devices.strategy_for("one_device"))
        session = self.session(stop_asked)
        session.open()
        self.began = session.position
        try:
            return session.history if session.run_epochs(after_epoch) else None
        finally:
            # A kill comes a moment after the write that has begun, as busy as the machine may be.
            session._checkpoints.wait()

    def session(self, stop_asked=lambda: False):
        return Session(
            self.trainer,
            dataset_dir=self.dataset_dir,
            model_dir=self.model_dir,
            stop_asked=stop_asked,
            console=Console(silent=True),
        )

    def numbers(self) -> list[int]:
        return model_folder.newest_checkpoints(self.model_dir).numbers()

    def newest(self) -> dict[str, np.ndarray]:
        return model_folder.newest_checkpoints(self.model_dir).load(self.numbers()[-1])


class Killed(Exception):
    pass


def at_call(number, do):
    """What is asked whether to stop: no until the call of this number, then what `do` says."""
    calls = iter(range(1, 10_000))
    return lambda: do() if next(calls) == number else False


def kill():
    raise Killed


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(1, marks=pytest.mark.integration),
        3,
        pytest.param(8, marks=pytest.mark.integration),
    ],
)
def test_every_example_once_an_epoch_after_a_kill(made, tmp_path, calls):
    """Not one twice and none left out, of those that the checkpoint and what follows it saw."""
    run = Training(made, tmp_path / "model", epochs=1)
    with pytest.raises(Killed):
        run.run(stop_asked=at_call(calls, kill))
    seen, steps = run.trainer.pictures, 2 * (calls - 1)
    assert len(seen) == 4 * steps
    run.run()
    assert (run.began.epoch, run.began.step) == (0, steps)
    everything = collections.Counter(
        zlib.crc32(picture.tobytes())
        for batch in reader.batches(run.info, made, "train", batch_size=4).as_numpy_iterator()
        for picture in batch["spectrogram"]
    )
    assert everything.total() == 60
    assert collections.Counter(seen + run.trainer.pictures) == everything


@pytest.mark.integration
def test_a_resume_with_other_records_damaged(made, tmp_path, caplog):
    """Its checkpoints are the newest, and an epoch is not gone on with in another order."""
    run = Training(made, tmp_path / "model")
    # 8 calls of the steps and 4 of the validation, then 2 of the second epoch.
    assert run.run(stop_asked=at_call(14, lambda: True)) is None
    before = run.numbers()
    shard = tmp_path / "dataset" / run.info.splits["train"].shards[1].file
    for begin, end in frames(shard.read_bytes())[4:]:  # so many that an epoch has fewer steps
        flip(shard, (begin + end) // 2)
    (tmp_path / "left").mkdir()
    left, _ = damaged_records.left_out(run.info, made, str(tmp_path / "left"))
    assert left.splits["train"].num_examples == 44
    again = Training(tmp_path / "left", tmp_path / "model", info=left)
    assert again.run(stop_asked=at_call(3, lambda: True)) is None
    assert "epoch 2 starts anew, since other records are damaged" in caplog.text
    assert (again.began.epoch, again.began.step) == (1, 0)
    assert min(again.numbers()) > max(before)
    assert again.newest()["position/step"] == 6

    assert [epoch.epoch for epoch in again.run()] == [1, 2]
    assert again.began.step == 6  # the same records are damaged as before
    assert len(again.trainer.pictures) == 44 - 6 * 4


@pytest.mark.integration
def test_asked_to_stop_at_the_validation(made, tmp_path):
    whole = Training(made, tmp_path / "whole", epochs=1)
    expected = whole.run()
    run = Training(made, tmp_path / "model", epochs=1)
    # 8 calls of the steps, 4 steps of the 16 clips for validation.
    assert run.run(stop_asked=at_call(10, lambda: True)) is None
    assert run.newest()["position/step"] == 15
    assert model_folder.read_history(run.model_dir) == []
    history = run.run()
    assert run.trainer.pictures == []  # all steps had been done
    assert dataclasses.asdict(history[0]) == pytest.approx(
        dataclasses.asdict(expected[0]), rel=1e-5
    )


def test_what_diverges_leaves_no_checkpoint_that_is_not_finite(made, tmp_path):
    run = Training(made, tmp_path / "model", steps_per_call=1, epochs=3)

    def too_high(epoch):
        run.trainer.optimizer.learning_rate.assign(1e30)
        return True

    with pytest.raises(Diverged, match=r"epoch 2: .* another --model_dir"):
        run.run(after_epoch=too_high)
    checkpoints = model_folder.newest_checkpoints(run.model_dir)
    assert checkpoints.numbers()
    for number in checkpoints.numbers():
        arrays = checkpoints.load(number)
        assert resume.is_finite({name: arrays[name] for name in arrays if name != "examples"})
    assert len(model_folder.read_history(run.model_dir)) == 1


def test_weights_that_are_not_finite_are_not_saved(made, tmp_path):
    """Such as those after the last step, whose loss was that before it."""
    run = Training(made, tmp_path / "model")
    run.run(stop_asked=at_call(1, lambda: True))
    weight = run.trainer.model.weights[0]
    weight.assign(np.full(weight.shape, np.nan))
    position = dataclasses.replace(run.began, step=2, weight=8.0, loss=8.0, correct=1.0)
    newest = model_folder.newest_checkpoints(run.model_dir)
    with pytest.raises(Diverged):
        resume.save_state(run.trainer, newest, position)
    with pytest.raises(Diverged):
        measure_epoch(run.trainer, position, None)
    assert newest.numbers() == [1]


def test_a_damaged_checkpoint_does_not_stay_among_the_newest(made, tmp_path, caplog):
    run = Training(made, tmp_path / "model")
    run.run(stop_asked=at_call(3, lambda: True))
    assert run.numbers() == [2, 3]
    path = tmp_path / "model" / "checkpoints" / "ckpt-3.npz"
    path.write_bytes(path.read_bytes()[:1000])
    run.run(stop_asked=at_call(1, lambda: True))
    assert f"{path}: the checkpoint is damaged; trying the one before" in caplog.text
    assert run.began.step == 4
    assert run.numbers() == [2, 3]
    assert run.newest()["position/step"] == 6


def test_damaged_weights_of_the_best_epoch(made, tmp_path):
    """Where the last epoch is the best its checkpoint has them; else one line says what to do."""
    run = Training(made, tmp_path / "model")
    history = run.run()
    best = tmp_path / "model" / "best"
    number = best_epoch(history)
    (best / f"ckpt-{number}.npz").write_bytes(b"PK")
    rising = [replace(epoch, validation_accuracy=epoch.epoch / 10) for epoch in history]
    model_folder.write_history(run.model_dir, rising)  # so that the second is the best
    for path in best.iterdir():
        path.write_bytes(b"PK")
    expected = run.trainer.model.get_weights()
    run.trainer.model.set_weights([np.zeros_like(weight) for weight in expected])
    model_folder.restore_best(run.model_dir, run.trainer.model)
    for ours, theirs in zip(run.trainer.model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    falling = [replace(epoch, validation_accuracy=-epoch.epoch / 10) for epoch in history]
    model_folder.write_history(run.model_dir, falling)  # the first
    with pytest.raises(UserFacingError, match=r"best/ckpt-1\.npz: .*trainer\.train with another"):
        model_folder.restore_best(run.model_dir, run.trainer.model)


def test_damaged_files_in_the_folder(made, tmp_path):
    run = Training(made, tmp_path / "model", epochs=2)
    run.run(after_epoch=lambda epoch: False)
    folder = tmp_path / "model"
    arguments = str(folder), run.config, run.info

    def opened():
        session = run.session()
        session.open()
        return session

    identity = (folder / "training.json").read_text()
    (folder / "training.json").write_text("")
    with pytest.raises(UserFacingError, match=r"training\.json: damaged"):
        model_folder.check(*arguments)
    with pytest.raises(UserFacingError, match=r"training\.json: damaged"):
        model_folder.load_config(str(folder), run.info)
    (folder / "training.json").write_text(identity)
    model_folder.check(*arguments)

    metrics = (folder / "metrics.jsonl").read_bytes()
    for wrong in (metrics[:-10], b"\xff" + metrics):
        (folder / "metrics.jsonl").write_bytes(wrong)
        with pytest.raises(UserFacingError, match=r"metrics\.jsonl: damaged"):
            opened()
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(UserFacingError, match=r"metrics\.jsonl has 0 of the 1 epochs"):
        opened()
    (folder / "metrics.jsonl").write_bytes(metrics)
    session = opened()
    assert session.position.epoch == len(session.history) == 1


def test_the_weights_are_there_before_the_history_speaks_of_them(made, tmp_path, monkeypatch):
    """So one who evaluates a training that runs, or was killed in between, finds them."""
    run = Training(made, tmp_path / "model", epochs=1)
    monkeypatch.setattr(model_folder, "write_history", lambda *_: kill())
    with pytest.raises(Killed):
        run.run()
    assert model_folder.best_checkpoints(run.model_dir).numbers() == [1]


def test_lost_workers(monkeypatch):
    """The errors of TensorFlow that tell of them, and those that may be a bug of this one's."""
    place = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    gone = "Collective ops is aborted by: {}\nThe error could be from a previous operation."
    errors = tf.errors
    lost = [
        (errors.UnavailableError, gone.format("Socket closed"), "Socket closed"),
        (errors.AbortedError, "task:1 has likely restarted.", "task:1 has likely restarted."),
        (errors.FailedPreconditionError, gone.format("the peer restarted"), "the peer restarted"),
        (errors.DeadlineExceededError, "Barrier timed out", "Barrier timed out"),
        (errors.CancelledError, gone.format("Cancelled"), "Cancelled"),
    ]
    own = [
        (errors.InternalError, "Dst tensor is not initialized."),
        (errors.FailedPreconditionError, "Could not find variable kernel."),
        (errors.InvalidArgumentError, gone.format("Incompatible shapes")),
        (errors.ResourceExhaustedError, "OOM when allocating"),
    ]
    for kind, message, reason in lost:
        monkeypatch.delenv("TF_CONFIG", raising=False)
        assert devices.lost_worker(kind(None, None, message)) is None
        monkeypatch.setenv("TF_CONFIG", json.dumps(place))
        assert devices.lost_worker(kind(None, None, message)) == reason
    for kind, message in own:
        assert devices.lost_worker(kind(None, None, message)) is None
