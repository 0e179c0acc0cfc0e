"""The benchmarks' own tools, which nobody runs as often as what they measure changes."""

import json

import pytest

from tests.support.commands import run_module


@pytest.mark.integration
def test_what_is_shuffled_is_counted(library, tmp_path):
    result = run_module(
        "tests.benchmarks.counted_job",
        "--config=configs/dataset_artist.py",
        f"--tracks_csv={library.tracks_csv}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={tmp_path}",
        "--max_reject_fraction=0.2",
    )
    assert result.returncode == 0, result.stderr
    shuffled = json.loads(result.stdout.splitlines()[-1])
    # A row has an id, a path of 14 bytes, a date and more; no audio goes with it.
    num_rows = library.num_examples + len(library.rejected) + len(library.missing_audio)
    assert 50 < shuffled["rows"] / num_rows < 200
    assert 0 < shuffled["groups"] < shuffled["rows"]
