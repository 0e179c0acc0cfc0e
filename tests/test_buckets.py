"""The same job on gs://, against a storage emulator."""

import logging
import pathlib
import socket

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.conftest import assert_refused, files_of, run_module

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bucket():
    server = pytest.importorskip("gcp_storage_emulator.server")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    emulator = server.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    emulator.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
        client = storage.Client(project="project", credentials=AnonymousCredentials())
        yield client.bucket("bucket")
    emulator.stop()


@pytest.fixture(scope="module", autouse=True)
def anonymous(tmp_path_factory):
    """Beam looks for credentials for 20 s in each process; the emulator wants none."""
    folder = tmp_path_factory.mktemp("anonymous")
    (folder / "sitecustomize.py").write_text(
        "import google.auth\n"
        "from google.auth.credentials import AnonymousCredentials\n"
        "google.auth.default = lambda *_, **__: (AnonymousCredentials(), 'project')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield


def upload(bucket, folder: pathlib.Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.blob(f"{prefix}/{path.relative_to(folder)}").upload_from_filename(str(path))


def build_in_bucket(name, *arguments):
    return run_module(
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        "--tracks_csv=gs://bucket/metadata/tracks.csv",
        "--audio_dir=gs://bucket/audio",
        f"--output_dir=gs://bucket/{name}",
        "--max_reject_fraction=0.2",
        *arguments,
    )


def objects(bucket, name) -> dict[str, bytes]:
    return {
        blob.name.partition("/")[2]: blob.download_as_bytes()
        for blob in bucket.client.list_blobs(bucket, prefix=f"{name}/")
    }


def test_a_dataset_in_a_bucket_is_the_local_one(bucket, library, dataset_dir):
    upload(bucket, library.audio_dir, "audio")
    upload(bucket, library.tracks_csv.parent, "metadata")
    split = "--config.split_sizes=(0.5,0.25,0.25)"
    result = build_in_bucket("dataset", split)
    assert result.returncode == 0, result.stderr
    assert objects(bucket, "dataset") == files_of(dataset_dir)

    again = build_in_bucket("dataset", split)
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stdout
    other = build_in_bucket("dataset", split, "--config.min_seconds=20")
    assert_refused(other, "config.min_seconds is 3.0 there and 20.0 here")
    assert objects(bucket, "dataset") == files_of(dataset_dir)


def test_what_is_not_there_is_named(bucket):
    result = build_in_bucket("other", "--tracks_csv=gs://bucket/none.csv")
    assert_refused(result, "gs://bucket/none.csv: no such file")
    result = build_in_bucket("other", "--audio_dir=gs://bucket/none")
    assert_refused(result, "gs://bucket/none")
    assert objects(bucket, "other") == {}
