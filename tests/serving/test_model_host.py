"""Versions that can't be loaded: the one before goes on, and costs nothing."""

import json
import os
import shutil
import threading

import pytest

from common.errors import UserFacingError
from serving.model.model_host import ModelHost
from serving.web.limits import Limits
from tests.support import processes


@pytest.fixture
def export_dir(small_candidates, tmp_path):
    shutil.copytree(small_candidates / ".candidate-first", tmp_path / "export" / "1")
    return tmp_path / "export"


def add(export_dir, version, damage=None):
    """A copy of version 1 that appears at once; `damage` does something to its folder before."""
    shutil.copytree(export_dir / "1", export_dir / ".tmp")
    if damage:
        damage(export_dir / ".tmp")
    (export_dir / ".tmp").rename(export_dir / version)


def describe(folder, change):
    """Writes other values into a version's model_info.json."""
    path = folder / "assets.extra" / "model_info.json"
    values = json.loads(path.read_text())
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(values))


def test_a_damaged_version_is_tried_once_until_it_changes(export_dir):
    def host_of(folder):
        return ModelHost(str(folder), tf_serving=None, count=1, limits=Limits())

    def refuses(fragment):
        decoders, threads = processes.descendants(os.getpid()), threading.active_count()
        with pytest.raises(UserFacingError, match=fragment) as error:
            host.refresh()
        assert "\n" not in str(error.value)
        assert host.refresh() is None  # not again
        assert host.version == 1
        assert processes.descendants(os.getpid()) == decoders
        assert threading.active_count() <= threads

    host = host_of(export_dir)
    try:
        warm_up = "assets.extra/tf_serving_warmup_requests"
        add(export_dir, "2", lambda folder: (folder / warm_up).write_bytes(b"garbage " * 9))
        refuses("warmup_requests: damaged")
        (export_dir / "2" / "assets.extra" / "model_info.json").write_bytes(b"\xff")
        refuses("model_info.json: not a model_info.json .*UnicodeDecodeError")
        (export_dir / "2" / "saved_model.pb").write_bytes(b"x")
        shutil.copy(
            export_dir / "1" / "assets.extra" / "model_info.json", export_dir / "2" / "assets.extra"
        )
        refuses("2: not a whole export")
        shutil.rmtree(export_dir / "2")
        for change, fragment in (
            (
                {"class_names": ["low", "high"], "thresholds": [9], "reference": None},
                "3 classes, and .* names 2",
            ),
            ({"class_names": ["low", "low", "high"]}, "class_names is .*different texts"),
            ({"class_names": "low"}, "class_names is 'low'"),
            ({"thresholds": [9, 8]}, "thresholds is .*rising"),
            ({"thresholds": ["many", "more"]}, "thresholds is .*rising"),
            ({"min_seconds": "three"}, "min_seconds is 'three'; it is a number"),
            ({"silence_dbfs": 20.0}, "it takes no song"),
            ({"silence_dbfs": float("nan")}, "silence_dbfs is nan"),
            ({"min_seconds": 1e6}, "the longest that is taken"),
            ({"evaluation": [1]}, "evaluation is"),
            ({"signal": {"num_mels": 102.5}}, "num_mels"),
            ({"signal": {"num_mels": 101}}, "2: "),
        ):
            add(export_dir, "2", lambda folder, change=change: describe(folder, change))
            refuses(fragment)
            shutil.rmtree(export_dir / "2")
        add(export_dir, "2")
        assert host.refresh() == 2
        add(export_dir, "3", lambda folder: (folder / warm_up).unlink())
        with pytest.raises(UserFacingError, match=r"3/.*no warm-up file"):
            host_of(export_dir)
    finally:
        host.close()
