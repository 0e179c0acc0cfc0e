"""What a demo remembers of its steps."""

import os

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
