"""The names that an export goes through."""

from common import export_folder


def test_a_training_may_be_refused_again(tmp_path):
    name = export_folder.candidate_of(str(tmp_path / "model"))
    for what in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_text(what)
        aside = export_folder.refuse(str(tmp_path), name)
    assert [path.name for path in tmp_path.iterdir()] == [aside.rpartition("/")[2]]
    assert (tmp_path / aside / "saved_model.pb").read_text() == "second"
