"""A training whose dataset, model folder and export are all on gs://."""

import re
import signal

import numpy as np
import pytest
import tensorflow as tf
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import drifting
from tests.support.bucket_server import BucketServer
from tests.support.commands import assert_refused, run_module, start_module

pytestmark = pytest.mark.integration

ARGUMENTS = [
    "trainer.train",
    "--config=configs/two_conv_mono.py",
    "--config.network.convolutions=1",  # with small pictures, a checkpoint of 11 MB
    "--config.deterministic",
    "--config.epochs=3",
    "--config.batch_size=4",
    "--config.steps_per_call=1",
    "--config.checkpoint_seconds=1000",
]
IN_BUCKET = ["--dataset_dir=gs://bucket/dataset", "--model_dir=gs://bucket/runs/model"]


@pytest.fixture(scope="module")
def server():
    with BucketServer() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(server, small_dataset_dir):
    """A bucket that has the dataset."""
    client = Client(
        project="project",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": server.url},
    )
    bucket = client.bucket("bucket")
    for path in small_dataset_dir.iterdir():
        bucket.blob(f"dataset/{path.name}").upload_from_filename(path)
    return bucket


def download(bucket, prefix, folder) -> set[str]:
    """Copies what lies below a folder of the bucket; the names."""
    names = set()
    for blob in bucket.client.list_blobs(bucket, prefix=f"{prefix}/"):
        name = blob.name.removeprefix(f"{prefix}/")
        if name and not name.endswith("/"):
            names.add(name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(bucket.blob(blob.name).download_as_bytes())
    return names


def run_and_stop(server) -> tuple[int, str]:
    """Starts the training and ends it by SIGTERM after its first epoch: (exit code, output)."""
    process = start_module(*ARGUMENTS, *IN_BUCKET, env=server.env)
    lines = []
    while not lines or not (lines[-1].startswith("epoch 1/3") or lines[-1] == ""):
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    lines += process.stdout
    return process.wait(60), "".join(lines)


def exported_answers(model_dir) -> np.ndarray:
    """Probabilities for a few pictures of noise."""
    model = tf.saved_model.load(str(model_dir / "export" / "1"))
    pictures = np.random.default_rng(0).integers(0, 256, (4, *drifting.SIGNAL.shape), np.uint8)
    return model.signatures["spectrogram"](tf.constant(pictures))["probabilities"].numpy()


def test_stopped_and_resumed_in_a_bucket_it_is_the_local_one(
    server, bucket, small_dataset_dir, tmp_path
):
    local, copy = tmp_path / "local", tmp_path / "copy"
    result = run_module(*ARGUMENTS, f"--dataset_dir={small_dataset_dir}", f"--model_dir={local}")
    assert result.returncode == 0, result.stderr

    server.reset(busy_every=25)
    code, output = run_and_stop(server)
    assert code == 75, output
    assert "the checkpoint is written" in output
    result = run_module(*ARGUMENTS, *IN_BUCKET, env=server.env)
    assert result.returncode == 0, result.stderr
    assert re.search(r"resumed after epoch 1 and \d of 10 steps", result.stdout), result.stdout
    assert "exported: gs://bucket/runs/model/export/1" in result.stdout
    assert server.turned_away["upload"] and server.turned_away["read"]
    server.reset()

    names = download(bucket, "runs/model", copy)
    files = [path.relative_to(local) for path in local.rglob("*") if path.is_file()]
    assert names >= {
        str(path)
        for path in files
        if path.parts[0] != "checkpoints" and not path.name.startswith("events.")
    }
    # Numbered as they were written, of which the one that was stopped had more.
    assert sum(name.startswith("checkpoints/ckpt-") for name in names) == 2
    for name in ("metrics.jsonl", "evaluation.json", "learning_curves.png", "training.json"):
        assert (copy / name).read_bytes() == (local / name).read_bytes(), name
    np.testing.assert_array_equal(exported_answers(copy), exported_answers(local))
    events = EventAccumulator(str(copy / "tensorboard" / "validation")).Reload()
    assert [event.step for event in events.Tensors("accuracy")][-1] == 3
    assert not [name for name in download(bucket, "runs", copy) if "/." in name]

    result = run_module("trainer.evaluate", *IN_BUCKET, "--split=validation", env=server.env)
    assert result.returncode == 0, result.stderr
    assert bucket.blob("runs/model/evaluation_validation.json").exists()
    assert bucket.blob("runs/model/report_validation.html").exists()


def test_buckets_that_take_nothing(server, bucket):
    def train(model_dir, *flags):
        folders = ["--dataset_dir=gs://bucket/dataset", f"--model_dir={model_dir}"]
        return run_module(*ARGUMENTS, *folders, *flags, env=server.env)

    assert_refused(train("gs://none/model"), "gs://none: no such bucket")
    result = train("gs://bucket/other", "--export_dir=gs://none/export")
    assert_refused(result, "gs://none: no such bucket")
    server.reset(read_only=True)
    assert_refused(train("gs://bucket/other"), "gs://bucket/other: can't be written", "403")
    server.reset()
    assert not list(bucket.client.list_blobs(bucket, prefix="other/"))
