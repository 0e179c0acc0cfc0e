"""What the tests share: a small library, its dataset, a network trained on it a little."""

import pytest
import tensorflow as tf

from examples import miniature_library as library_maker
from serving.model.exported_model import ExportedModel
from tests.support.commands import build, run_module
from tests.support.paths import FMA_SAMPLE

# Two replicas on a machine without GPUs; a strategy of one device takes the first.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


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
