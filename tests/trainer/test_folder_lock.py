"""Who may train into a folder: one run, all of whose workers are one."""

import json

import pytest

from common.errors import UserFacingError
from trainer.run import cluster, folder_lock


@pytest.mark.parametrize(
    ("strategy", "task", "is_ours"),
    [
        ("auto", {"type": "worker", "index": 0}, True),
        ("auto", {"type": "worker", "index": 1}, False),
        ("multi_worker", {"type": "worker", "index": 1}, False),
        ("one_device", {"type": "worker", "index": 1}, True),
    ],
)
def test_the_chief_locks_for_all_workers(monkeypatch, strategy, task, is_ours):
    jobs = {"worker": ["localhost:1", "localhost:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": task}))
    assert cluster.is_chief_here(strategy) == is_ours


def test_a_chief_of_its_own_locks(monkeypatch):
    jobs = {"chief": ["localhost:1"], "worker": ["localhost:2"]}
    for kind, is_ours in (("chief", True), ("worker", False)):
        values = {"cluster": jobs, "task": {"type": kind, "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(values))
        assert cluster.is_chief_here("auto") == is_ours


def test_a_process_without_workers_locks(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.is_chief_here("auto")


def test_both_folders_are_free_again_where_one_is_refused(tmp_path):
    model, export = str(tmp_path / "model"), str(tmp_path / "export")
    with folder_lock.hold(export, force=False):
        refused = pytest.raises(UserFacingError, match=f"{export}: another run is at work there")
        with refused, folder_lock.hold(model, export, force=False):
            pass
        with folder_lock.hold(model, force=False):
            pass
    assert not any(tmp_path.iterdir())


def test_a_run_does_not_wait_for_itself(tmp_path):
    """Whose versions go into its model folder."""
    folder = str(tmp_path / "model")
    with folder_lock.hold(folder, folder, force=False):
        refused = pytest.raises(UserFacingError, match=f"{folder}: another run is at work there")
        with refused, folder_lock.hold(folder, force=False):
            pass
    with folder_lock.hold(folder, force=False):
        pass
