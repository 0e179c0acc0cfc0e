"""What the tests share: a small library, its dataset, a network trained on it a little.

Each is made once for all processes of the tests, and is not to be changed: a test that writes into
one has a copy.
"""

import contextlib
import fcntl
import gc
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Callable

import pytest
import xdist

from examples import miniature_library as library_maker
from tests.support import drifting, fork_client, fork_server
from tests.support.commands import build, run_module
from tests.support.paths import FMA_SAMPLE


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        stack = contextlib.ExitStack()
        stack.enter_context(fork_server.started())
        config.add_cleanup(stack.close)


def pytest_xdist_setupnodes(specs):
    """Has the processes of the tests forked as well: importing what all of them do takes 15 s."""
    for spec in specs:
        spec.python = shlex.quote(fork_client.python())


def pytest_sessionstart(session):
    """Has two replicas on a machine without GPUs; a strategy of one device takes the first."""
    if xdist.is_xdist_controller(session):  # which runs no test, and need not import TensorFlow
        return
    gc.disable()
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def pytest_collection_finish():
    """Leaves all that is imported out of the searches for garbage, which would go through it."""
    gc.freeze()
    gc.enable()


# Files whose integration tests take longest, from the longest on.
SLOW = (
    "test_demo",
    "test_follow",
    "test_resume",
    "test_stream_from_kafka",
    "test_documentation",
    "test_buckets",
    "test_hostile",
    "test_stream_on_engines",
    "test_reproduce",
    "test_stream_to_answers",
    "test_engines",
    "test_packages",
    "test_networks_beyond",
    "test_jobs",
    "test_rerun",
    "test_training_in_buckets",
    "test_sweep",
    "test_warm_start",
)
# Files that take long without the model and the library, from the longest on.
ALONE = ("test_networks_beyond", "test_warm_start", "test_signatures", "test_gate", "test_session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Puts the files of the longest tests first, so that all processes end at about the same time.

    They are the slow ones, then those of a trained model, then of the library. While one process
    makes the library and trains the model, the others do files that do not wait for it.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def tests_with(fixture: str, path: pathlib.Path) -> int:
        return sum(fixture in item.fixturenames for item in files[path])

    order = sorted(files, key=lambda path: -tests_with("library", path))
    with_model = [path for path in order if tests_with("model_dir", path)]
    order = [path for path in order if path not in with_model]
    alone = sorted(
        (path for path in order if path.stem in ALONE), key=lambda path: ALONE.index(path.stem)
    )
    order = [path for path in order if path not in alone]
    order = [*with_model[:1], *alone, *order[:4], *with_model[1:], *order[4:]]
    integration = {item.path for item in items if item.get_closest_marker("integration")}
    slow = {name: place for place, name in enumerate(SLOW)}
    order.sort(
        key=lambda path: slow.get(path.stem, len(SLOW)) if path in integration else len(SLOW)
    )
    items[:] = [item for path in order for item in files[path]]


@pytest.fixture(scope="session")
def fma_sample():
    if not FMA_SAMPLE.is_dir():
        pytest.skip(f"the real clips are not there ({FMA_SAMPLE.name} beside the project)")
    return FMA_SAMPLE


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Makes a folder, which a function creates and fills, if no process of the tests has.

    Nor another session of them, where SHARED_FIXTURES names a folder for all. At the end it says
    which of these folders a test has changed.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root = pathlib.Path(os.environ.get("SHARED_FIXTURES", root))
    made = {}

    def make(name: str, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
        folder, note = root / f"shared-{name}", root / f"shared-{name}.json"
        with open(root / f"shared-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not note.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                fill(folder)
                note.write_text(json.dumps(state_of(folder)))
        made[folder] = json.loads(note.read_text())
        return folder

    yield make
    for folder, state in made.items():
        assert state_of(folder) == state, f"a test has changed {folder}"


def state_of(folder: pathlib.Path) -> dict[str, list[int]]:
    """Returns the size and time of every file below a folder."""
    files = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(path): [stat.st_size, stat.st_mtime_ns] for path, stat in files.items()}


@pytest.fixture(scope="session")
def library(shared):
    """A miniature FMA of two dozen good clips and every fault."""

    def fill(folder):
        library_maker.make_library(folder, num_clips=24, seed=1)

    return library_maker.make_library(shared("library", fill), num_clips=24, seed=1)


@pytest.fixture(scope="session")
def dataset_dir(library, shared):
    """The dataset of the library, made by two workers, with something in every split."""

    def fill(folder):
        result = build(
            library.tracks_csv,
            library.audio_dir,
            folder,
            "--config.split_sizes=(0.5,0.25,0.25)",
            "--direct_num_workers=2",
            fresh=True,  # so that those that must be the same differ in Python's hash
        )
        assert result.returncode == 0, result.stderr

    return shared("dataset", fill)


@pytest.fixture(scope="session")
def small_dataset_dir(shared):
    """A dataset of small pictures, for what does not depend on what is trained: seconds less each.

    No job has made it, and no clip of it is there.
    """
    return shared("small-dataset", lambda path: drifting.write(path, seed=0, sizes=(40, 8, 12)))


@pytest.fixture(scope="session")
def small_candidates(small_dataset_dir, shared):
    """A folder of two candidates for that dataset, of other weights each, which nobody trained."""

    def fill(folder):
        from common import dataset_reader
        from configs import two_conv_mono
        from trainer.model import export, network
        from trainer.train_config import TrainConfig

        info = dataset_reader.load_dataset_info(str(small_dataset_dir))
        config = TrainConfig.from_dict(two_conv_mono.get_config().to_dict())
        for seed, name in enumerate((".candidate-first", ".candidate-second")):
            weights = network.build(config.network, info, seed=seed).model.get_weights()
            export.write_candidate(
                weights,
                config,
                info,
                None,
                str(folder),
                dataset_dir=str(small_dataset_dir),
                name=name,
            )

    return shared("small-candidates", fill)


@pytest.fixture(scope="session")
def model_dir(dataset_dir, shared):
    """The six-layer network after two epochs on the dataset, evaluated and exported."""

    def fill(folder):
        result = run_module(
            "trainer.train",
            "--config=configs/six_conv_rgb.py",
            "--config.epochs=2",
            f"--dataset_dir={dataset_dir}",
            f"--model_dir={folder}",
        )
        assert result.returncode == 0, result.stderr

    return shared("model", fill)


@pytest.fixture(scope="session")
def exported(model_dir):
    """The version of that network that is served."""
    from serving.model.exported_model import ExportedModel

    return ExportedModel.newest(str(model_dir / "export"))
