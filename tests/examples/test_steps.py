"""What a demo remembers of its steps."""

import os

import pytest

from common.errors import UserFacingError
from examples.steps import Steps


def test_a_kill_leaves_what_was_noted_before(tmp_path):
    """Else the next run would take no step for finished, and remove what each has made."""
    steps = Steps(tmp_path / "steps.json")
    steps.begin("dataset", "rows")
    os.link(steps.path, tmp_path / "before")
    steps.finish("dataset", "rows")
    assert steps.finished("dataset", "rows")
    before = Steps(tmp_path / "before")  # whose bytes have not been overwritten in place
    assert before.begun("dataset", "rows") and not before.finished("dataset", "rows")


def test_only_what_a_demo_has_made_is_removed(tmp_path):
    """As with --output_dir=. where the README's commands have left a dataset and a model."""
    steps, folder = Steps(tmp_path / "steps.json"), tmp_path / "model"
    folder.mkdir()
    (folder / "precious").touch()
    with pytest.raises(UserFacingError, match="model: was not made by this demo"):
        steps.begin("training", "a dataset", folder)
    assert (folder / "precious").exists() and not steps.path.exists()
    (folder / "precious").unlink()
    folder.rmdir()
    steps.begin("training", "a dataset", folder)
    folder.mkdir()
    steps.begin("training", "a dataset", folder)  # goes on
    assert folder.exists()
    steps.begin("training", "another dataset", folder)
    assert not folder.exists()
