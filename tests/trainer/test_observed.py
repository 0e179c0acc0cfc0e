"""What clips look like to the drift report, of datasets as they are stored."""

import numpy as np
import pytest
import tensorflow as tf

from common import dataset_reader
from tests.support import drifting
from trainer.continuous import observed
from trainer.data import reader
from trainer.follow_config import FollowConfig


def seen(folder, **how):
    info = drifting.write(folder, seed=how.pop("seed"), sizes=(150, 0, 0), **how)
    return observed.observe(info, reader.read_records(info, str(folder), "train"))


def alarms(old, new) -> set[str]:
    return {each.name for each in observed.compare(old, new, FollowConfig()) if each.alarms}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return seen(tmp_path_factory.mktemp("old") / "dataset", seed=0)


def test_what_is_seen_of_a_picture(tmp_path, old):
    info = drifting.write(tmp_path / "dataset", seed=0, sizes=(150, 0, 0))
    records = [
        values for _, values in dataset_reader.read_examples(info, str(tmp_path / "dataset"))
    ]
    assert old.artists == len(records)
    for row in (0, 77, 149):
        picture = np.frombuffer(records[row]["spectrogram"], np.uint8).astype(float)
        picture = picture.reshape(drifting.SIGNAL.shape)
        bands = picture.sum(axis=1)
        expected = {
            "level": picture.mean(),
            "contrast": picture.std(),
            "brightness": sum(n * band for n, band in enumerate(bands)) / bands.sum(),
            "motion": np.mean([abs(b - a) for a, b in zip(picture.T, picture.T[1:], strict=False)]),
            "listens": np.log(1 + records[row]["listens"]),
        }
        for name, value in expected.items():
            assert old.numbers[name][row] == pytest.approx(value, rel=1e-4), name
        assert old.categories["genre"][row] == records[row]["genre"]


def test_twenty_generations_of_the_same_music_alarm_nothing(tmp_path, old):
    for generation in range(1, 21):
        assert alarms(old, seen(tmp_path / str(generation), seed=generation)) == set()


def test_louder_music_alarms(tmp_path, old):
    assert "level" in alarms(old, seen(tmp_path / "louder", seed=1, louder=60))


def test_of_no_clips_nothing_is_said(tmp_path, old):
    info = drifting.write(tmp_path / "dataset", seed=0, sizes=(0, 0, 0))
    nothing = observed.observe(info, tf.data.Dataset.from_tensor_slices([b""]).take(0))
    assert nothing.artists == 0
    assert alarms(old, nothing) == alarms(nothing, old) == set()
