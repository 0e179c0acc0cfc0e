"""Leases on an object of a storage emulator, which is busy now and then."""

import subprocess
import sys
import time

import pytest

from common import files, lock
from common.errors import UserFacingError
from tests.support.bucket_server import BucketServer
from tests.support.paths import ROOT

FOLDER = "gs://bucket/out"


@pytest.fixture(scope="module")
def server():
    with BucketServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        files._client.cache_clear()
        yield server
        files._client.cache_clear()


@pytest.fixture(autouse=True)
def quick(server, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lock, "EXPIRE_SECONDS", 3.0)
    server.reset()


def test_versions_of_an_object(server):
    path = "gs://bucket/file.lock"
    assert files.read_version(path) is None
    first = files.replace_version(path, b"first", 0)
    assert files.read_version(path) == (b"first", first)
    assert files.replace_version(path, b"second", 0) is None
    second = files.replace_version(path, b"second", first)
    assert second not in (None, first)
    assert files.replace_version(path, b"third", first) is None
    files.delete_version(path, first)
    assert files.read_version(path) == (b"second", second)
    files.delete_version(path, second)
    assert files.read_version(path) is None
    with pytest.raises(FileNotFoundError):
        files.replace_version("gs://none/file.lock", b"", 0)


@pytest.mark.parametrize("busy_every", [None, 3])
def test_the_later_run_is_refused(server, busy_every):
    server.reset(busy_every=busy_every)
    with lock.hold(FOLDER):
        time.sleep(0.5)
        refused = pytest.raises(UserFacingError, match=f"{FOLDER}: another run is at work there")
        with refused, lock.hold(FOLDER):
            pass
    server.reset()
    assert files.names_in(FOLDER) == []


def test_a_run_that_was_killed_refuses_nobody(server):
    program = (
        "import time\n"
        "from common import lock\n"
        f"with lock.hold({FOLDER!r}):\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "at work\n"
        process.kill()
    assert files.names_in(FOLDER) == [lock.FILE_NAME]
    with lock.hold(FOLDER):
        pass
    assert files.names_in(FOLDER) == []


def test_a_bucket_that_is_not_there_or_not_ours(server):
    refused = pytest.raises(UserFacingError, match="gs://none/out: can't be written")
    with refused, lock.hold("gs://none/out"):
        pass
    server.reset(read_only=True)
    with pytest.raises(UserFacingError, match=f"{FOLDER}: can't be written"), lock.hold(FOLDER):
        pass
