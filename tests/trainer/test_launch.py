"""Local workers: their output, their end, and what TF_CONFIG must say."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from common.errors import UserFacingError
from tests.support import fork_client, processes
from tests.support.commands import assert_refused, run_module, start_module
from tests.support.paths import ROOT
from trainer import launch
from trainer.run import cluster, rendezvous


def tf_config(cluster, job="worker", index=0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


def test_workers_of_tf_config():
    assert cluster.workers_of("") == 0
    assert cluster.workers_of("{}") == 0
    assert cluster.workers_of(tf_config({"worker": ["a:1", "b:1"]})) == 2
    assert cluster.workers_of(tf_config({"chief": ["a:1"], "worker": ["b:1"]}, "chief")) == 2


def test_the_chief_of_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": ["a:1", "b:1"]}, index=1))
    assert cluster.chief_address() == "a:1"
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": ["b:1"], "chief": ["a:1"]}))
    assert cluster.chief_address() == "a:1"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": 3}}',
        tf_config({"worker": ["a:1"]}, index=1),
        tf_config({"worker": ["a:1"]}, job="chief"),
        tf_config({"worker": ["a:1"], "ps": ["b:1"]}),
        tf_config({"worker": ["a:1"]}, index=-1),
        tf_config({"worker": "a:1"}),
        tf_config({"worker": ["a", "b:1"]}),
        tf_config({"worker": ["a:1", "b:70000"]}),
    ],
)
def test_an_impossible_tf_config(text):
    with pytest.raises(UserFacingError, match="TF_CONFIG"):
        cluster.workers_of(text)


def test_multi_worker_without_workers(dataset_dir, tmp_path):
    result = run_module(
        "trainer.train",
        "--config=configs/two_conv_mono.py",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={tmp_path / 'model'}",
        "--strategy=multi_worker",
    )
    assert_refused(result, "TF_CONFIG", "trainer.launch")


def test_what_a_worker_refuses_ends_the_group(dataset_dir, tmp_path):
    """Without a restart, since it would be refused again."""
    result = run_module(
        "trainer.launch",
        "--workers=2",
        "--",
        "--config=configs/two_conv_mono.py",
        "--config.batch_size=3",
        f"--dataset_dir={dataset_dir}",
        f"--model_dir={tmp_path / 'model'}",
    )
    assert result.returncode == 1
    assert "config.batch_size: 3 can't be shared by 2 replicas" in result.stdout
    assert all(line.startswith("[worker ") for line in result.stdout.splitlines())
    assert "start again" not in result.stdout
    assert not (tmp_path / "model").exists()


def end_of_group(code: str, *, signalled=False) -> tuple[int, int]:
    """What a group of two comes to whose workers run `code`, which knows its `index`."""
    start = (
        "import json, os, sys, time; index = json.loads(os.environ['TF_CONFIG'])['task']['index']"
    )
    group = launch.Group([sys.executable, "-c", f"{start}\n{code}"], 2)
    if signalled:
        group.pass_on()  # again as soon as the workers exist
    return group.run()


def test_the_worst_end_of_a_group_counts():
    """A worker that dies, after which the others stop, whichever of them is seen first."""
    die = "os.kill(os.getpid(), 9)"
    assert end_of_group(f"sys.exit(75) if index == 0 else ({die})") == (1, -9)
    assert end_of_group(f"sys.exit(75) if index == 1 else ({die})") == (0, -9)
    assert end_of_group("sys.exit(75)") == (0, 75)
    assert end_of_group("sys.exit(0)") == (0, 0)
    assert launch.worst([(0, 75), (1, 1), (2, -9)]) == (2, -9)
    assert launch.worst([(0, 75), (1, 1)]) == (1, 1)


def test_workers_share_the_cores(monkeypatch):
    told = "sys.exit(100 + int(os.environ['TF_NUM_INTRAOP_THREADS']))"
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    assert end_of_group(told)[1] == 103
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    assert end_of_group(told)[1] == 105


def test_sigterm_before_the_workers_listen():
    assert end_of_group("time.sleep(60)", signalled=True) == (0, 75)
    assert end_of_group("os.kill(os.getpid(), 15)") == (0, -15)  # somebody else's


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGTERM, signal.SIGINT]])
def test_ctrl_c_ends_a_group_that_was_asked_to_stop(signals):
    worker = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    worker += "print('ready', flush=True); time.sleep(600)"
    body = (
        "import sys; from trainer import launch; from trainer.run.child import on_signals_to_stop; "
        f"group = launch.Group([sys.executable, '-c', {worker!r}], 2); "
        "on_signals_to_stop(group.pass_on); group.run()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", body],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert {process.stdout.readline(), process.stdout.readline()} == {
            "[worker 0] ready\n",
            "[worker 1] ready\n",
        }
        workers = processes.descendants(process.pid)
        assert len(workers) == 2
        for number in signals:
            process.send_signal(number)
            time.sleep(0.5)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == "\ninterrupted; the same command goes on\n"
    processes.wait_until_ended(workers)


# ---- waiting for one another


def test_workers_meet_in_any_order():
    addresses = [f"localhost:{port}" for port in launch.free_ports(3)]
    met = []

    def worker(index, seconds):
        time.sleep(seconds)
        own = addresses[index]
        rendezvous.meet(own, [address for address in addresses if address != own])
        with socket.create_server(("", int(own.rpartition(":")[2])), backlog=3):
            met.append((index, time.monotonic()))
            time.sleep(1.5)  # as TensorFlow's server stays there

    started = time.monotonic()
    threads = [threading.Thread(target=worker, args=(index, index * 0.5)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {index for index, _ in met} == {0, 1, 2}
    assert all(when - started >= 1.0 for _, when in met)  # not before the last is there


def test_an_address_that_another_process_has():
    with socket.create_server(("", 0)) as taken:
        own = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UserFacingError, match=f"TF_CONFIG: {own} can't be listened on"):
            rendezvous.meet(own, [])


def test_the_end_of_a_process_that_listens():
    with socket.create_server(("", 0)) as there:
        address = f"localhost:{there.getsockname()[1]}"
        waiting = threading.Thread(target=rendezvous.wait_for_end, args=(address,))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_sigterm_while_a_worker_waits_for_others(dataset_dir, tmp_path):
    own, missing = (f"localhost:{port}" for port in launch.free_ports(2))
    flags = [f"--dataset_dir={dataset_dir}", f"--model_dir={tmp_path / 'model'}"]
    process = start_module(
        "trainer.train",
        "--config=configs/six_conv_rgb.py",
        *flags,
        env={"TF_CONFIG": tf_config({"worker": [own, missing]})},
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "waiting for 2 workers\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "stopped as asked, before a step was done" in output
    assert errors == ""
    assert not (tmp_path / "model").exists()


def test_no_flags_for_the_workers():
    assert_refused(run_module("trainer.launch", "--workers=2"), "no flags for the workers")


@pytest.mark.integration
def test_two_workers_train_as_one_does(small_dataset_dir, tmp_path):
    """The same global batches give the same steps, each example comes to one of the workers."""
    found = {}
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        group = launch.Group(
            [
                fork_client.python(),
                "-m",
                "tests.support.steps_of_a_worker",
                str(small_dataset_dir),
                str(folder),
            ],
            size,
        )
        assert group.run() == (0, 0)
        found[size] = [np.load(path) for path in sorted(folder.iterdir())]
        assert len(found[size]) == size
    (alone,), (first, second) = found[1], found[2]
    assert len(alone["losses"]) >= 20
    for worker in (first, second):
        np.testing.assert_allclose(worker["losses"][:20], alone["losses"][:20], rtol=1e-3)
        np.testing.assert_allclose(worker["probabilities"], alone["probabilities"], atol=1e-5)
    np.testing.assert_array_equal(first["weights"], second["weights"])

    def examples(*workers):
        return sorted(tuple(example) for worker in workers for example in worker["seen"])

    assert len(set(examples(alone))) == len(examples(alone))
    assert examples(first, second) == examples(alone)
    assert abs(len(first["seen"]) - len(second["seen"])) <= 2
