"""Predictions as a command, in a process that knows neither Beam nor the trainer."""

import json
import re
import subprocess
import sys

import pytest

from common import export_folder
from common.errors import UserFacingError
from tests.support.commands import run_module
from tests.support.paths import ROOT


def song(library, track_id):
    name = f"{track_id:06d}"
    return library.audio_dir / name[:3] / f"{name}.mp3"


def test_imports():
    code = (
        "import sys, serving.predict\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'apache_beam', 'trainer'})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_a_line_for_each_file(model_dir, library):
    paths = [song(library, library.truncated[0]), *sorted(library.audio_dir.rglob("*.mp3"))[:2]]
    result = run_module("serving.predict", f"--export_dir={model_dir / 'export'}", *paths)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(path) for path in paths]
    good = [line for line in lines if "error" not in line]
    assert good
    for line in good:
        assert list(line["probabilities"]) == ["low", "medium", "high"]
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)


def test_a_bad_file_does_not_stop_the_others(model_dir, library, tmp_path):
    bad = [song(library, track_id) for track_id in sorted(library.rejected)]
    paths = [*bad, tmp_path / "none.mp3", tmp_path, song(library, library.truncated[0])]
    result = run_module("serving.predict", f"--export_dir={model_dir / 'export'}", *paths)
    assert result.returncode == 1
    assert result.stderr == ""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(paths)
    for track_id, line in zip(sorted(library.rejected), lines, strict=False):
        assert line["error"].startswith(library.rejected[track_id])
    assert lines[-3]["error"] == "No such file or directory"
    assert lines[-2]["error"] == "Is a directory"
    assert "label" in lines[-1]


def test_no_model_and_no_file(model_dir, tmp_path):
    result = run_module("serving.predict", f"--export_dir={tmp_path}", "song.mp3")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {tmp_path}: no exported model; --export_dir is what trainer.train made\n"
    )
    result = run_module("serving.predict", f"--export_dir={model_dir / 'export'}")
    assert result.returncode == 1 and "no file is named" in result.stderr


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"class_names": 3}'])
def test_a_damaged_description_is_named(tmp_path, content):
    path = tmp_path / "assets.extra" / "model_info.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserFacingError, match=re.escape(f"{path}: not a model_info.json")):
        export_folder.load_info(str(tmp_path))
