"""What a user or a system does to a command at a bad moment: one line, and the same goes on.

In make soak 200 signals and 200 faults; in make test-integration, within three minutes, a few.
"""

import contextlib
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest

from common import dataset_reader
from examples import miniature_library
from tests.support import processes
from tests.support.attack import attack
from tests.support.commands import files_of, run_module
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

SIGNALS = int(os.environ.get("SOAK_SIGNALS", "2"))
FAULTS = int(os.environ.get("SOAK_FAULTS", "1"))
# Otherwise the trainer, which takes longest, meets a part of what the job meets.
IN_FULL = FAULTS >= 10
LIMITS = ["ulimit -n 40", "ulimit -v 3000000", "ulimit -f 8"]
DISKS = ["size=48k", "size=1m,nr_inodes=6"]
SEED = int(os.environ.get("SOAK_SEED", "14"))


@pytest.fixture(scope="module")
def small_library(tmp_path_factory):
    return miniature_library.make_library(tmp_path_factory.mktemp("small"), num_clips=6, seed=2)


def job(library, out) -> tuple[str, list[str]]:
    return "beam_pipelines.build_dataset", [
        "--config=configs/dataset_artist.py",
        f"--tracks_csv={library.tracks_csv}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={out}",
        "--max_reject_fraction=0.9",
        "--config.split_sizes=(0.5,0.25,0.25)",
        "--direct_num_workers=2",
    ]


@pytest.fixture(scope="module")
def undisturbed(small_library, tmp_path_factory):
    """The job's folder after a run that nobody disturbs, and how many seconds that took."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    outcome = attack(*job(small_library, out))
    outcome.check()
    assert outcome.code == 0
    return out, outcome.seconds


@pytest.fixture(scope="module")
def small_dataset(undisturbed):
    return undisturbed[0]


@pytest.fixture(scope="module")
def trained(small_dataset_dir, tmp_path_factory):
    """A model's folder after its training."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    result = run_module("trainer.train", *training(small_dataset_dir, folder))
    assert result.returncode == 0, result.stderr
    return folder


def training(dataset, folder) -> list[str]:
    return [
        "--config=configs/two_conv_mono.py",
        "--config.epochs=2",
        "--config.batch_size=4",
        f"--dataset_dir={dataset}",
        f"--model_dir={folder}",
    ]


def commands(library, pictures, folder) -> dict[str, tuple[str, list[str]]]:
    """What is attacked, by name; what trains does so on the dataset `pictures`."""
    train = training(pictures, folder / "model")
    return {
        "job": job(library, folder / "out"),
        "trainer": ("trainer.train", train),
        "launch": ("trainer.launch", ["--workers=2", "--", *train]),
        "sweep": (
            "trainer.sweep",
            [*training(pictures, "x")[:-1], f"--output_dir={folder}/sweep", "--trials=2"],
        ),
        # Of a folder whose training has ended.
        "export": ("trainer.train", [*train, f"--export_dir={folder}/versions"]),
        "server": ("serving.app", [f"--export_dir={folder}/model/export", "--port=0"]),
    }


# How long each takes about: where the job takes as long as it says here.
SECONDS = {"job": 7, "trainer": 17, "launch": 21, "sweep": 13, "export": 15, "server": 15}


def is_whole(folder: pathlib.Path) -> None:
    """What is described is there as it is described."""
    if (folder / "out" / "dataset_info.json").exists():
        info = dataset_reader.load_dataset_info(str(folder / "out"))
        assert not dataset_reader.damage(info, str(folder / "out"))
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for version in [*folder.glob("**/export/[0-9]*"), *folder.glob("versions/[0-9]*")]:
        assert (version / "saved_model.pb").exists()
        assert (version / "assets.extra" / "model_info.json").exists()


def scripts() -> list[tuple[str, float, list[int]]]:
    """Of a seed: which command is sent which signals, the first after what part of its time."""
    rng = random.Random(SEED)
    found = []
    for number in range(SIGNALS):
        kinds = [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT] * 2]
        signals = rng.choices(kinds, weights=[2, 1, 1, 1])[0]
        moment = rng.uniform(0.02, 1.1 if IN_FULL else 0.6)  # of few none should come too late
        found.append((list(SECONDS)[number % len(SECONDS)], moment, signals))
    return found


@pytest.mark.parametrize(("name", "moment", "signals"), scripts())
def test_signals_at_random_moments(
    small_library,
    small_dataset_dir,
    undisturbed,
    tmp_path,
    request,
    record_property,
    name,
    moment,
    signals,
):
    small_dataset, job_seconds = undisturbed
    if name in ("export", "server"):
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "model")
    module, arguments = commands(small_library, small_dataset_dir, tmp_path)[name]
    first = moment * SECONDS[name] * job_seconds / SECONDS["job"]
    delays = [first, *(moment for _ in signals[1:])]
    outcome = attack(module, arguments, signals=list(zip(delays, signals, strict=True)))
    record_property("outcome", f"{outcome.code} {outcome.seconds:.1f} s")
    outcome.check()
    is_whole(tmp_path)
    if name == "job":
        again = attack(module, arguments, fresh=False)
        again.check()
        assert again.code == 0
        assert files_of(tmp_path / "out") == files_of(small_dataset)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The library that has calls of the system fail."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = ROOT / "tests" / "support" / "faults.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library


def faults() -> list[tuple[str, str, int, int, int]]:
    """Of a seed: (command, call, errno, calls that go well before, how many then fail)."""
    rng = random.Random(SEED)
    found = []
    for number in range(FAULTS):
        name = ("job", "trainer")[number % 2]
        call = rng.choice(["write", "open", "fsync", "rename", "read"])
        codes = [errno.EIO, errno.EINTR] if call == "read" else [errno.ENOSPC, errno.EIO, 0]
        found.append((name, call, rng.choice(codes), rng.randrange(40), rng.choice([1, 10**9])))
    return found


@pytest.mark.parametrize(("name", "call", "code", "after", "times"), faults())
def test_calls_of_the_system_that_fail(
    small_library,
    small_dataset,
    small_dataset_dir,
    shim,
    tmp_path,
    record_property,
    name,
    call,
    code,
    after,
    times,
):
    module, arguments = commands(small_library, small_dataset_dir, tmp_path)[name]
    if code == errno.EINTR:
        times = min(times, 5)  # who is always interrupted tries for ever
    env = {
        "LD_PRELOAD": str(shim),
        "FAULT_BELOW": str(tmp_path),
        "FAULT_CALL": call,
        "FAULT_ERRNO": str(int(code)),
        "FAULT_AFTER": str(after),
        "FAULT_TIMES": str(times),
        "FAULT_SLEEP": "0" if code else "20000",
    }
    outcome = attack(module, arguments, env=env)
    record_property("outcome", f"{outcome.code} {outcome.seconds:.1f} s")
    outcome.check()
    assert code not in (0, errno.EINTR) or outcome.code == 0, outcome
    is_whole(tmp_path)
    if outcome.code != 0:
        again = attack(module, arguments, fresh=False)
        again.check()
        assert again.code == 0, again
    assert not list(tmp_path.glob("model/export/.candidate-*"))
    if name == "job":
        assert files_of(tmp_path / "out") == files_of(small_dataset)


@pytest.mark.parametrize("name", list(SECONDS)[: -1 if IN_FULL else 1])
def test_a_clock_that_is_set_back(
    small_library, small_dataset_dir, undisturbed, shim, tmp_path, request, record_property, name
):
    """By an hour, in the middle of the run."""
    small_dataset, job_seconds = undisturbed
    if name == "export":
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "model")
    module, arguments = commands(small_library, small_dataset_dir, tmp_path)[name]
    middle = time.time() + 0.5 * SECONDS[name] * job_seconds / SECONDS["job"]
    clock = {"FAULT_CLOCK_AT": str(int(middle)), "FAULT_CLOCK_BACK": "3600"}
    outcome = attack(module, arguments, env=clock | {"LD_PRELOAD": str(shim)})
    record_property("outcome", f"{outcome.code} {outcome.seconds:.1f} s")
    outcome.check()
    if name == "launch" and outcome.code == 75:
        # By this clock TensorFlow takes the workers for lost; the same command goes on.
        outcome = attack(module, arguments)
        outcome.check()
    assert outcome.code == 0, outcome
    is_whole(tmp_path)
    if name == "job":
        assert files_of(tmp_path / "out") == files_of(small_dataset)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        *(("job", limit) for limit in LIMITS),
        *(("trainer", limit) for limit in (LIMITS if IN_FULL else LIMITS[:2])),
    ],
)
def test_limits_of_a_shell(small_library, small_dataset_dir, tmp_path, name, limit):
    module, arguments = commands(small_library, small_dataset_dir, tmp_path)[name]
    outcome = attack(module, arguments, limit=limit)
    outcome.check()
    is_whole(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many bytes, or of so many files."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    with contextlib.ExitStack() as stack:

        def mount(options: str) -> pathlib.Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("nothing may be mounted here")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        yield mount


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("job", disk) for disk in DISKS),
        *(("trainer", disk) for disk in (DISKS if IN_FULL else DISKS[:1])),
    ],
)
def test_a_full_disk(small_library, small_dataset_dir, small_disk, name, options):
    disk = small_disk(options)
    module, arguments = commands(small_library, small_dataset_dir, disk)[name]
    outcome = attack(module, arguments)
    outcome.check()
    assert outcome.code == 1
    assert "No space left on device" in outcome.errors
    is_whole(disk)
    subprocess.run(["mount", "-o", "remount,size=1g,nr_inodes=10k", str(disk)], check=True)
    again = attack(module, arguments, fresh=False)
    again.check()
    assert again.code == 0, again


def test_a_folder_that_is_removed_under_the_job(small_library, tmp_path):
    module, arguments = job(small_library, tmp_path / "out")

    def removed() -> bool:
        if not (tmp_path / "out" / ".plan.json").exists():
            return False
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        return True

    outcome = attack(module, arguments, ready=removed)
    outcome.check()
    assert outcome.code == 1
    assert str(tmp_path / "out") in outcome.errors


def test_a_worker_that_the_system_kills(small_library, small_dataset, tmp_path):
    """As it does for want of memory."""
    module, arguments = job(small_library, tmp_path / "out")

    def kill_one() -> bool:
        if not (tmp_path / "out" / ".plan.json").exists():
            return False
        own = f"--output_dir={tmp_path}/out"
        (run,) = [pid for pid in processes.descendants(os.getpid()) if own in command_line(pid)]
        for pid in processes.descendants(run):
            if command_line(pid).endswith("python -m apache_beam.runners.worker.sdk_worker_main"):
                os.kill(pid, signal.SIGKILL)
        return True

    outcome = attack(module, arguments, ready=kill_one, seconds=120)
    outcome.check()
    assert outcome.code == 1 and "a worker was killed" in outcome.errors, outcome
    again = attack(module, arguments, fresh=False)
    again.check()
    assert again.code == 0
    assert files_of(tmp_path / "out") == files_of(small_dataset)


def command_line(pid: int) -> str:
    return processes.command_line(pid).strip()


def test_a_run_that_is_stopped_for_a_while(small_library, small_dataset, tmp_path):
    """SIGSTOP, as of a laptop that sleeps."""
    module, arguments = job(small_library, tmp_path / "out")
    seconds = float(os.environ.get("SOAK_STOPPED_SECONDS", "5"))
    signals = [(4.0, signal.SIGSTOP), (seconds, signal.SIGCONT)]
    outcome = attack(module, arguments, signals=signals, seconds=120)
    outcome.check()
    assert outcome.code == 0
    assert files_of(tmp_path / "out") == files_of(small_dataset)
