"""Checkpoints: read as they were written, or known to be damaged."""

import random

import numpy as np
import pytest

from common.errors import UserFacingError
from trainer.run.checkpoints import Checkpoints, Damaged


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return {
        "model/conv1/kernel": generator.normal(size=(3, 5, 1, 8)).astype(np.float32),
        "optimizer/iterations": np.array(17, np.int64),
        "position/loss": np.array(0.1 + 0.2),
    }


def assert_equal(found, arrays):
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_newest_stay_and_are_read_as_written(tmp_path, arrays):
    checkpoints = Checkpoints(str(tmp_path / "new"), keep=2)
    assert checkpoints.numbers() == []
    for number in (9, 10, 11):
        checkpoints.save(arrays | {"number": np.array(number)}, number=number)
    checkpoints.wait()
    assert checkpoints.numbers() == [10, 11]
    assert_equal(checkpoints.load(10), arrays | {"number": np.array(10)})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "ckpt-10.npz",
        "ckpt-11.npz",
    ]


def test_damage_anywhere_is_found_or_harmless(tmp_path, arrays):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(arrays)
    checkpoints.wait()
    path = tmp_path / "ckpt-1.npz"
    good, draw, found = path.read_bytes(), random.Random(0), 0
    for _ in range(500):
        place = draw.randrange(len(good))
        data = bytearray(good)
        data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(draw.choice([data, good[:place]]))
        try:
            assert_equal(checkpoints.load(1), arrays)
        except Damaged as error:
            assert str(path) in str(error)
            found += 1
    assert found > 400


def test_a_folder_that_can_not_be_written(tmp_path, arrays):
    (tmp_path / "file").touch()
    checkpoints = Checkpoints(str(tmp_path / "file" / "folder"))
    checkpoints.save(arrays)
    with pytest.raises(UserFacingError, match="folder: can't be written"):
        checkpoints.wait()
