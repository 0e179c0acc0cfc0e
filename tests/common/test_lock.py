"""Who may work in a folder: runs that end, die, hang and wake, on a disk and in a bucket."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from common import lock
from common.errors import UserFacingError
from tests.support.paths import ROOT

RUN = """
import sys
from absl import flags
from common import command, lock
def main(argv):
    with lock.hold(argv[1], force="--force" in argv):
        print("at work", flush=True)
        sys.stdin.readline()
    print("done")
command.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
"""


def start(folder, *arguments) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process


@pytest.fixture
def at_work(tmp_path):
    """Starts a run in a folder; it is there when this returns."""
    with contextlib.ExitStack() as stack:

        def make(*arguments):
            process = stack.enter_context(start(tmp_path / "out", *arguments))
            stack.callback(process.kill)
            stack.callback(process.send_signal, signal.SIGCONT)
            assert process.stdout.readline() == "at work\n"
            return process

        yield make


def refusal(folder) -> str:
    with pytest.raises(UserFacingError) as raised, lock.hold(str(folder)):
        pass
    return str(raised.value)


def test_the_later_run_is_refused_and_told_by_whom(at_work, tmp_path):
    first = at_work()
    later = start(tmp_path / "out")
    _, errors = later.communicate(timeout=30)
    assert later.returncode == 1
    assert re.fullmatch(
        rf"error: \S+/out: another run is at work there, process {first.pid} on \S+ since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}; .*--force_unlock.*\n",
        errors,
    )
    assert first.communicate("\n", timeout=30)[0] == "done\n"
    with lock.hold(str(tmp_path / "out")):
        pass


def test_nothing_of_it_stays(tmp_path):
    with lock.hold(str(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == [lock.FILE_NAME]
    assert not any(tmp_path.iterdir())
    with pytest.raises(KeyError), lock.hold(str(tmp_path / "new")):
        raise KeyError
    assert not (tmp_path / "new").exists()
    with lock.hold(str(tmp_path / "new")):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new" / "file").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_dies_refuses_nobody(at_work, tmp_path, number):
    first = at_work()
    first.send_signal(number)
    first.wait(timeout=30)
    with lock.hold(str(tmp_path / "out")):
        pass


def test_a_child_that_outlives_its_run_refuses_nobody(tmp_path):
    with lock.hold(str(tmp_path)):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    with lock.hold(str(tmp_path)):
        child.kill()
    child.wait()


def test_one_that_hangs_is_at_work_until_it_is_said_not_to_be(at_work, tmp_path):
    """And when it wakes it ends, and leaves the folder to the other."""
    hanging = at_work()
    hanging.send_signal(signal.SIGSTOP)
    assert f"process {hanging.pid} on " in refusal(tmp_path / "out")
    other = at_work("--force")
    hanging.send_signal(signal.SIGCONT)
    errors = hanging.stderr.read()
    assert hanging.wait(timeout=30) == 1
    assert re.fullmatch(r"error: \S+/out: another run has taken it over; this one ends\n", errors)
    assert f"process {other.pid} on " in refusal(tmp_path / "out")
    assert other.communicate("\n", timeout=30)[0] == "done\n"


def test_a_folder_that_is_removed_under_a_run(at_work, tmp_path):
    process = at_work()
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    errors = process.stderr.read()
    assert process.wait(timeout=30) == 1
    assert re.fullmatch(r"error: \S+/out: the folder was removed or replaced .*\n", errors)


def test_a_folder_that_is_lost_at_the_last_moment(tmp_path):
    refused = pytest.raises(UserFacingError, match="another run has taken it over")
    with refused, lock.hold(str(tmp_path), on_loss=lambda _: None):
        (tmp_path / lock.FILE_NAME).unlink()
        (tmp_path / lock.FILE_NAME).touch()
    assert (tmp_path / lock.FILE_NAME).exists()


def test_many_at_once_are_never_two(tmp_path):
    """Each deletes the file that the next one may have open already."""
    inside, most, done = [], [], []

    def work():
        while len(done) < 200:
            with contextlib.suppress(UserFacingError), lock.hold(str(tmp_path)):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_what_is_no_lock_of_ours(tmp_path):
    """A file of that name is only as good as the lock on it."""
    for content in (b"", b"\xff", b"[]", b'{"host": 1}', b"x" * 1_000_000):
        (tmp_path / lock.FILE_NAME).write_bytes(content)
        with lock.hold(str(tmp_path)):
            pass


# ---- leases


class Bucket:
    """An object as buckets have it, with the number of its writing as its version."""

    def __init__(self):
        self.content = None
        self.is_reachable = True
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def read(self):
        with self._lock:
            return self.content

    def replace(self, data, version):
        if not self.is_reachable:
            raise OSError("the bucket does not answer")
        with self._lock:
            if version != (self.content[1] if self.content else 0):
                return None
            self.content = (data, next(self._numbers))
            return self.content[1]

    def delete(self, version):
        with self._lock:
            if self.content and self.content[1] == version:
                self.content = None


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lock, "EXPIRE_SECONDS", 1.0)
    return Bucket()


def of_another_machine() -> lock.Holder:
    return dataclasses.replace(lock.Holder.this_process(), host="elsewhere", process="boot/ns/1")


def test_a_lease_that_is_renewed_refuses_the_later(bucket):
    with lock.hold("gs://b/out", lease=bucket):
        time.sleep(0.3)
        refused = pytest.raises(UserFacingError, match="gs://b/out: another run is at work there")
        with refused, lock.hold("gs://b/out", lease=bucket):
            pass
    assert bucket.content is None


def test_a_lease_that_is_not_renewed_is_taken_over(bucket, capsys):
    assert bucket.replace(of_another_machine().to_json(), 0)
    started = time.monotonic()
    with lock.hold("gs://b/out", lease=bucket):
        assert time.monotonic() - started >= lock.EXPIRE_SECONDS
    assert "looking for up to 1 s whether it still is" in capsys.readouterr().err


def test_a_lease_of_a_process_of_this_machine_that_died(bucket):
    """Its successor, after a kill, need not wait."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = lock.Holder.this_process()
    bucket.replace(dataclasses.replace(here, pid=gone.pid).to_json(), 0)
    if not pathlib.Path("/proc/self/ns/pid").exists():
        pytest.skip("the system does not tell which processes live")
    lock.EXPIRE_SECONDS = 60.0
    started = time.monotonic()
    with lock.hold("gs://b/out", lease=bucket):
        assert time.monotonic() - started < 30


def test_a_lease_that_is_given_back_while_it_is_watched(bucket):
    version = bucket.replace(of_another_machine().to_json(), 0)
    threading.Timer(0.2, bucket.delete, [version]).start()
    with lock.hold("gs://b/out", lease=bucket):
        pass


def test_a_lease_by_force_ends_the_run_that_had_it(bucket):
    lost = []
    with (
        pytest.raises(UserFacingError, match="has taken it over"),
        lock.hold("gs://b/out", lease=bucket, on_loss=lost.append),
        lock.hold("gs://b/out", lease=bucket, force=True),
    ):
        end = time.monotonic() + 30
        while not lost and time.monotonic() < end:
            time.sleep(0.01)
        assert lost == ["gs://b/out: another run has taken it over; this one ends"]
        assert bucket.content is not None
    assert bucket.content is None


def test_a_bucket_that_does_not_answer_for_a_while(bucket):
    lost = []
    with lock.hold("gs://b/out", lease=bucket, on_loss=lost.append):
        bucket.is_reachable = False
        time.sleep(0.3)
        bucket.is_reachable = True
        time.sleep(0.3)
    assert not lost


def test_one_of_many_gets_a_lease_that_has_run_out(bucket):
    bucket.replace(of_another_machine().to_json(), 0)
    got, may_end = [], threading.Event()

    def work():
        with contextlib.suppress(UserFacingError), lock.hold("gs://b/out", lease=bucket):
            got.append(1)
            may_end.wait(30)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while sum(thread.is_alive() for thread in threads) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    may_end.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_waiting_for_the_other(bucket):
    opened = threading.Event()

    def other():
        with lock.hold("gs://b/out", lease=bucket):
            opened.set()
            time.sleep(0.5)

    thread = threading.Thread(target=other)
    thread.start()
    opened.wait(30)
    with lock.hold("gs://b/out", lease=bucket, wait_seconds=60):
        pass
    thread.join()
    assert os.getpid() == lock.Holder.this_process().pid
