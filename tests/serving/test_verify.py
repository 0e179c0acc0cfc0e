"""Verification: a good export passes, and each thing that can be wrong with one is found."""

import csv
import hashlib
import json
import shutil

import pytest

from common import dataset_reader, export_folder
from tests.support.commands import assert_refused, run_module


def verify(export_dir, dataset_dir, *arguments):
    return run_module(
        "serving.verify",
        f"--export_dir={export_dir}",
        f"--dataset_dir={dataset_dir}",
        *arguments,
    )


def test_a_trained_version_has_passed(model_dir):
    """trainer.train ends with it, so what it found lies with the version."""
    report = json.loads(
        (model_dir / "export" / "1" / "assets.extra" / "verification.json").read_text()
    )
    assert report["passed"] and report["limit"] == 1e-3
    assert len(report["checks"]) >= 10
    assert max(line["difference"] for line in report["checks"]) < 1e-5
    assert min(line["compared"] for line in report["checks"]) >= 2


def test_songs_are_answered_as_their_records(model_dir, dataset_dir, library):
    result = verify(model_dir / "export", dataset_dir, f"--audio_dir={library.audio_dir}")
    assert result.returncode == 0, result.stderr
    lines = {line[:42].strip(): line[42:].split() for line in result.stdout.splitlines()}
    assert int(lines["songs: waveform and record"][0]) == library.num_examples
    assert int(lines["songs that the job rejected"][0]) == len(library.rejected)
    assert result.stdout.endswith(f"passed: {model_dir / 'export' / '1'}\n")


def test_songs_of_a_plain_catalogue_that_were_mixed_up(
    model_dir, dataset_dir, library, tmp_path, trained_on
):
    """The paths come from the catalogue; a song in another's place differs from its record.

    Where the job was given further tables, the catalogue is proven together with these.
    """
    names = trained_on
    for track_id in names:
        name = f"{track_id:06d}"
        shutil.copy(library.audio_dir / name[:3] / f"{name}.mp3", tmp_path / f"{name}.mp3")
    first, last = tmp_path / f"{names[0]:06d}.mp3", tmp_path / f"{names[-1]:06d}.mp3"
    catalog = tmp_path / "catalogue.csv"
    with catalog.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["track_id", "path", "listens"], *([n, f"{n:06d}.mp3", 0] for n in names)]
        )
    arguments = (f"--audio_dir={tmp_path}", f"--tracks_csv={catalog}", "--records=1")
    assert_refused(verify(model_dir / "export", dataset_dir, *arguments), catalog, "SHA-256")
    other = tmp_path / "dataset"
    shutil.copytree(dataset_dir, other)
    values = json.loads((other / "dataset_info.json").read_text())
    features = tmp_path / "features.csv"
    features.write_text("track_id,energy\n2,0.5\n")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (catalog, features)]
    values["catalog_sha256"] = hashlib.sha256("".join(digests).encode()).hexdigest()
    (other / "dataset_info.json").write_text(json.dumps(values))
    (other / "rejected.jsonl").unlink()
    shutil.copy(last, first)
    assert_refused(verify(model_dir / "export", other, *arguments), "--features_csv")
    arguments += (f"--features_csv={features}",)
    assert_refused(verify(model_dir / "export", other, *arguments), "did not pass", "songs")


@pytest.fixture(scope="module")
def trained_on(dataset_dir):
    """The tracks of the dataset, in the order of its records."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    examples = dataset_reader.read_examples(info, str(dataset_dir))
    return [example["track_id"] for _, example in examples]


@pytest.fixture
def candidates(small_candidates, tmp_path):
    """The two in a folder of the test's own; their names."""
    shutil.copytree(small_candidates, tmp_path, dirs_exist_ok=True)
    return sorted(path.name for path in small_candidates.iterdir())


def test_a_candidate_with_other_weights_is_set_aside(candidates, small_dataset_dir, tmp_path):
    """It is served by nobody until it passes; what is wrong with it stays with it."""
    assert export_folder.versions(str(tmp_path)) == []
    first, second = candidates
    shutil.rmtree(tmp_path / first / "variables")
    shutil.copytree(tmp_path / second / "variables", tmp_path / first / "variables")
    aside = tmp_path / first.replace("candidate", "refused")
    result = verify(tmp_path, small_dataset_dir, f"--candidate={first}")
    assert_refused(result, "as the network before its export", aside)
    report = report_beside(aside)
    assert not report["passed"] and "as the network before its export" in report["problem"]
    assert export_folder.versions(str(tmp_path)) == []


def report_beside(aside):
    return json.loads((aside / "assets.extra" / "verification.json").read_text())


def test_whatever_stops_the_verification_is_said_and_sets_the_candidate_aside(
    candidates, small_dataset_dir, tmp_path
):
    first, second = candidates
    (tmp_path / second / "variables" / "variables.index").write_bytes(b"")
    empty, bare = tmp_path / "empty", ".candidate-bare"
    shutil.copytree(small_dataset_dir, empty)
    values = json.loads((empty / "dataset_info.json").read_text())
    for split in values["splits"].values():
        split["num_examples"] = 0
    (empty / "dataset_info.json").write_text(json.dumps(values))
    (tmp_path / bare).mkdir()
    for candidate, dataset, problem in (
        (second, small_dataset_dir, "not a whole export"),
        (first, empty, "the dataset has no examples"),
        (bare, small_dataset_dir, "no model_info.json"),
    ):
        aside = tmp_path / candidate.replace("candidate", "refused")
        result = verify(tmp_path, dataset, f"--candidate={candidate}")
        assert_refused(result, problem, f"set aside: {aside}")
        report = report_beside(aside)
        assert not report["passed"] and problem in report["problem"]
        assert not (tmp_path / candidate).exists()

    # What nobody thought of, and another try of a candidate.
    (tmp_path / first.replace("candidate", "refused")).rename(tmp_path / first)
    (tmp_path / first / "assets.extra" / "reference_answers.json").write_text("{")
    result = verify(tmp_path, small_dataset_dir, f"--candidate={first}")
    assert_refused(result, "JSONDecodeError", "set aside")

    assert_refused(verify(tmp_path, small_dataset_dir, f"--candidate={second}"), f"no {second}")
    assert_refused(verify(tmp_path, small_dataset_dir, "--candidate=../x"), "no candidate's name")
    assert_refused(verify(tmp_path, small_dataset_dir), "no exported model")


def test_no_records_prove_nothing(tmp_path):
    for number in (0, -1):  # of which TensorFlow takes none, and all
        assert_refused(verify(tmp_path, tmp_path, f"--records={number}"), f"--records={number}")


def test_numbers_rise(tmp_path):
    for name in (".candidate-a", ".candidate-b", ".candidate-c", "9", "10", "11.bad", ".tmp-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "12").mkdir()  # being copied there by somebody else
    assert export_folder.versions(str(tmp_path)) == [9, 10]
    assert export_folder.newest_version(str(tmp_path)) == 10
    assert export_folder.release(str(tmp_path), ".candidate-a") == str(tmp_path / "13")
    assert export_folder.release(str(tmp_path), ".candidate-b") == str(tmp_path / "14")
    (tmp_path / "14").rename(tmp_path / ".withdrawn-14")  # how a version is taken back
    assert export_folder.newest_version(str(tmp_path)) == 13
    assert export_folder.release(str(tmp_path), ".candidate-c") == str(tmp_path / "15")


def test_versions_of_nothing(tmp_path):
    assert export_folder.versions(str(tmp_path / "none")) == []
