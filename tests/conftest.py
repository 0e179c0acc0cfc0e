"""What the tests share: a small library, its dataset, a network trained on it a little."""

import csv
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from serving.exported_model import ExportedModel
from tests.demo import library as library_maker
from tests.paths import FMA_SAMPLE, ROOT

# Two replicas on a machine without GPUs; a strategy of one device takes the first.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def run_module(*arguments, env=None, timeout=300):
    """Runs `python -m …` as a person would; its CompletedProcess with text."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def build(tracks_csv, audio_dir, output_dir, *arguments, env=None):
    """Runs the dataset job."""
    return run_module(
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        f"--tracks_csv={tracks_csv}",
        f"--audio_dir={audio_dir}",
        f"--output_dir={output_dir}",
        "--max_reject_fraction=0.2",  # four of two dozen clips are bad
        *arguments,
        env=env,
    )


def counted(stdout: str, name: str) -> int:
    """The value of a counter in what a run printed, 0 where it is not."""
    for line in stdout.splitlines():
        if line.startswith(name):
            return int(line.split()[-1].replace(",", ""))
    return 0


def assert_refused(result, *fragments):
    """Exit code 1 and one line on stderr that names the fragments."""
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    for fragment in fragments:
        assert str(fragment) in line


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_csv(path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_csv(path, rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="session")
def fma_sample():
    if not FMA_SAMPLE.is_dir():
        pytest.skip(f"the real clips are not there ({FMA_SAMPLE.name} beside the project)")
    return FMA_SAMPLE


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A miniature FMA of two dozen good clips and every fault."""
    return library_maker.make_library(tmp_path_factory.mktemp("library"), num_clips=24, seed=1)


@pytest.fixture(scope="session")
def dataset_dir(library, tmp_path_factory):
    """The dataset of the library, made by two workers, with something in every split."""
    output_dir = tmp_path_factory.mktemp("dataset")
    result = build(
        library.tracks_csv,
        library.audio_dir,
        output_dir,
        "--config.split_sizes=(0.5,0.25,0.25)",
        "--direct_num_workers=2",
    )
    assert result.returncode == 0, result.stderr
    return output_dir


@pytest.fixture(scope="session")
def model_dir(dataset_dir, tmp_path_factory):
    """The six-layer network after two epochs on the dataset, evaluated and exported."""
    folder = tmp_path_factory.mktemp("training") / "model"
    result = run_module(
        "trainer.train",
        "--config=configs/six_conv_rgb.py",
        "--config.epochs=2",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={folder}",
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def exported(model_dir):
    """The version of that network that is served."""
    return ExportedModel.newest(str(model_dir / "export"))
