"""The notebook runs from top to bottom on what a demo leaves."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import ROOT

TOUR = ROOT / "examples" / "tour.ipynb"


def test_is_committed_without_outputs():
    """So that its diffs are of what somebody wrote."""
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells)


@pytest.mark.integration
def test_runs(library, dataset_dir, model_dir, tmp_path, monkeypatch):
    (tmp_path / "library").symlink_to(library.audio_dir.parent)
    (tmp_path / "dataset").symlink_to(dataset_dir)
    (tmp_path / "export").symlink_to(model_dir / "export")
    monkeypatch.setenv("DEMO_DIR", str(tmp_path))
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = [
        kind
        for cell in notebook.cells
        for o in cell.get("outputs", [])
        for kind in o.get("data", {})
    ]
    assert shown.count("image/png") == 3
    assert any("audio" in str(o) for cell in notebook.cells for o in cell.get("outputs", []))
