"""What is no file of bytes, or does not answer, where a file is read or written."""

import contextlib
import errno
import os
import pathlib
import socket
import time

import pytest

from common import files

DEVICES = ["/dev/zero", "/dev/urandom", "/dev/tty", "/dev/stdin"]


def reads_none(path, **limits) -> OSError:
    with pytest.raises(OSError) as raised:
        files.read_bytes(str(path), at_most=1000, **limits)
    return raised.value


@pytest.mark.parametrize("path", DEVICES)
def test_devices_are_not_read(path):
    if not pathlib.Path(path).exists():
        pytest.skip("the system has no such device")
    assert reads_none(path).errno in (errno.EINVAL, errno.ENXIO, errno.ENOENT)


def test_pipes_sockets_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert reads_none(tmp_path / "pipe").strerror == "no regular file"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        reads_none(tmp_path / "socket")
    assert reads_none(tmp_path).errno == errno.EISDIR


def test_files_of_the_system_that_have_no_end():
    """/proc/kmsg says that it is regular and empty, and waits for the kernel's next message."""
    for path in ("/proc/kmsg", "/proc/self/mem"):
        if pathlib.Path(path).exists():
            with contextlib.suppress(PermissionError):
                assert files.read_bytes(path, at_most=1000) == b""


def test_a_file_that_grows_is_read_no_further_than_allowed(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 2000)
    status = os.stat(path)
    smaller = os.stat_result([*status[:6], 10, *status[7:]])
    monkeypatch.setattr(os, "fstat", lambda descriptor: smaller)
    assert reads_none(path).errno == errno.EFBIG


def test_a_disk_that_does_not_answer(tmp_path, monkeypatch):
    path = tmp_path / "clip"
    path.write_bytes(b"bytes")
    assert files.read_bytes(str(path), seconds=60) == b"bytes"
    monkeypatch.setattr(files, "_read_local", lambda path, at_most: time.sleep(3600) or b"")
    error = reads_none(path, seconds=0.1)
    assert isinstance(error, TimeoutError)
    assert (error.strerror, error.filename) == ("reading took longer than 0.1 s", str(path))


def test_errors_come_through_the_limit_of_time(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.read_bytes(str(tmp_path / "none"), seconds=60)


def test_a_name_that_is_taken_by_a_folder_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomically(str(tmp_path), "folder", b"bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
