"""How a command ends, whatever happens to it: as a process, on streams of every kind."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.support import processes
from tests.support.paths import ROOT

FULL = pathlib.Path("/dev/full")


@pytest.fixture
def command_of(tmp_path):
    """Makes a command of a body of `main`; what starts it."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from common import interruption\ninterruption.end_at_once_while_importing()\n"
    )

    def make(body: str, *, at_import: str = "") -> list[str]:
        lines = textwrap.indent(textwrap.dedent(body), "    ")
        (package / "work.py").write_text(
            "import os, signal, subprocess, sys, threading, time\n"
            f"from common import command\n{at_import}\n"
            f"def main(argv):\n{lines}\n\nif __name__ == '__main__':\n    command.run(main)\n"
        )
        return [sys.executable, "-m", "package.work"]

    return make


def start(command, tmp_path, **streams) -> subprocess.Popen:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "TMPDIR": str(tmp_path)}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, **streams)


def ended(command, tmp_path, **streams) -> tuple[int, str, str]:
    with start(command, tmp_path, **streams) as process:
        out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def test_a_mistake_of_ours_is_a_line_and_a_log(command_of, tmp_path):
    code, _, errors = ended(command_of("return {}['pitch']"), tmp_path)
    assert code == 1
    found = re.fullmatch(
        r"error: KeyError: 'pitch'; a mistake of this program "
        r"\(log: (\S+package\.work-\S+\.log); --debug shows it\)\n",
        errors,
    )
    assert found, errors
    log = pathlib.Path(found[1]).read_text()
    assert "Traceback" in log and "return {}['pitch']" in log

    code, _, errors = ended([*command_of("return {}['pitch']"), "--debug"], tmp_path)
    assert code == 1 and "Traceback" in errors
    assert errors.splitlines()[-1].startswith("error: KeyError")


def test_what_was_kept_back_is_in_the_log(command_of, tmp_path):
    body = """
        with command.kept_back_stderr():
            os.system("echo what a decoder says >&2")
            raise KeyError("pitch")
    """
    _, _, errors = ended(command_of(body), tmp_path)
    assert len(errors.splitlines()) == 1
    (log,) = tmp_path.glob("*.log")
    assert "what a decoder says" in log.read_text()
    _, _, errors = ended([*command_of(body), "--debug"], tmp_path)
    assert "what a decoder says" in errors


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            "OSError(28, 'No space left on device', '/data/x')",
            r"/data/x: No space left on device; free some space .*; the same command goes on",
        ),
        ("MemoryError()", "the memory is used up; .*; the same command goes on"),
        ("BlockingIOError(11, 'x')", r".*ulimit -u\).*"),
        ("OSError(24, 'x', '/a')", r"/a: Too many open files; .*ulimit -n\).*"),
    ],
)
def test_what_the_machine_refuses_is_a_line(command_of, tmp_path, error, line):
    code, _, errors = ended(command_of(f"raise {error}"), tmp_path)
    assert code == 1
    assert re.fullmatch(rf"error: {line} \(log: \S+; --debug shows it\)\n", errors), errors


def test_a_folder_for_logs_that_is_not_there(command_of, tmp_path):
    """Nothing more than the line can be given, and is."""
    command = command_of("import tempfile; tempfile.tempdir = '/nowhere'; raise MemoryError")
    code, _, errors = ended(command, tmp_path)
    assert code == 1
    assert re.fullmatch("error: the memory is used up; .*--debug shows all of it.*\n", errors)


def test_a_thread_that_dies_is_told(command_of, tmp_path):
    body = "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    code, _, errors = ended(command_of(body), tmp_path)
    assert code == 0
    assert errors.startswith("warning: ZeroDivisionError: division by zero; ")
    assert len(errors.splitlines()) == 1


def test_what_is_kept_back_needs_no_disk(command_of, tmp_path):
    """A worker that can't print its traceback on a full disk did not report it either."""
    body = """
        with command.kept_back_stderr():
            code = os.system("head -c 3000000 /dev/zero >&2 && echo the last line >&2")
        print(code)
        raise KeyError("pitch")
    """
    limited = ["bash", "-c", 'ulimit -f 2000; exec "$@"', "bash", *command_of(body)]
    code, out, errors = ended(limited, tmp_path)
    assert (code, out) == (1, "0\n")
    assert len(errors.splitlines()) == 1
    (log,) = tmp_path.glob("*.log")
    assert "the last line" in log.read_text()


def test_a_process_that_prints_on_does_not_hold_the_command(command_of, tmp_path):
    body = """
        with command.kept_back_stderr():
            child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
        print("on")
        child.kill()
    """
    code, out, errors = ended(command_of(body), tmp_path)
    assert (code, out, errors) == (0, "on\n", "")


def test_a_worker_that_dies_ends_the_command(command_of, tmp_path):
    """Beam says so in a thread, and waits for what the worker was to answer."""
    body = """
        def watch():
            raise RuntimeError("Worker subprocess exited with return code -9")
        with command.kept_back_stderr():
            threading.Thread(target=watch).start()
            time.sleep(600)
    """
    code, _, errors = ended(command_of(body), tmp_path)
    assert code == 1
    assert errors.startswith("error: a worker was killed, perhaps by the system, for want of mem")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        ("-n 40", "ulimit -n: the shell allows 40 open files, and at least 256 open files are"),
        ("-u 20", "ulimit -u: the shell allows 20 processes, and at least 128 processes are"),
        (
            "-v 600000",
            "ulimit -v: the shell allows 600,000 kB of memory, and at least 2,097,152 kB",
        ),
    ],
)
def test_limits_that_nothing_works_with(command_of, tmp_path, limit, line):
    limited = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *command_of("print('done')")]
    code, out, errors = ended(limited, tmp_path)
    assert (code, out) == (1, "")
    assert errors.startswith(f"error: {line}")
    assert len(errors.splitlines()) == 1


def test_a_soft_limit_is_raised(command_of, tmp_path):
    body = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    limited = ["bash", "-c", 'ulimit -S -n 40; exec "$@"', "bash", *command_of(body)]
    assert ended(limited, tmp_path) == (0, "256\n", "")


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_a_signal_unwinds_and_leaves_nothing_behind(command_of, tmp_path, number, seconds):
    body = """
        subprocess.Popen(["sh", "-c", "(trap '' INT TERM HUP; sleep 60 & sleep 60) & wait"],
                         start_new_session=True)
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("put away", flush=True)
    """
    process = start(command_of(body), tmp_path)
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    children = processes.descendants(process.pid)
    assert children
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert out == "put away\n"
    processes.wait_until_ended(children)
    if number == signal.SIGINT:
        assert (process.returncode, errors) == (130, "\ninterrupted; the same command goes on\n")
    else:
        assert (process.returncode, errors) == (-number, "")


def test_ctrl_c_while_modules_are_imported(command_of, tmp_path):
    command = command_of("pass", at_import="print('importing', flush=True); time.sleep(60)")
    process = start(command, tmp_path)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\ninterrupted; the same command goes on\n")


def test_ctrl_c_over_and_over_while_modules_are_imported(command_of, tmp_path):
    command = command_of("pass", at_import="print('importing', flush=True); time.sleep(60)")
    process = start(command, tmp_path)
    assert process.stdout.readline() == "importing\n"
    for _ in range(50):
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert set(errors.split("\n")) == {"", "interrupted; the same command goes on"}


def test_ctrl_c_that_a_library_turns_into_another_error(command_of, tmp_path):
    """As numpy does where its import is interrupted."""
    body = """
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            raise ImportError("numpy's C extensions failed")
    """
    process = start(command_of(body), tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\ninterrupted; the same command goes on\n")


def test_ctrl_c_twice_ends_at_once(command_of, tmp_path):
    body = """
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        with command.kept_back_stderr():
            try:
                print("ready", flush=True)
                time.sleep(60)
            finally:
                print("putting away", flush=True)
                time.sleep(60)
    """
    process = start(command_of(body), tmp_path)
    process.stdout.readline()
    children = processes.descendants(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "putting away\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\ninterrupted; the same command goes on\n")
    processes.wait_until_ended(children)


@pytest.mark.parametrize("times", [1, 2])
def test_a_main_thread_that_takes_no_notice(command_of, tmp_path, times):
    """A call of C does not return for a signal, and Python's handlers wait for it."""
    body = """
        import ctypes
        from common import interruption
        interruption.SECONDS_TO_END = 1.0 if len(argv) == 1 else 600.0
        mutex = ctypes.create_string_buffer(64)
        print("ready", flush=True)
        for _ in range(2):  # the second waits for the first, for ever
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
    """
    process = start([*command_of(body), *["patient"] * (times - 1)], tmp_path)
    assert process.stdout.readline() == "ready\n"
    for _ in range(times):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\ninterrupted; the same command goes on\n")


def test_a_way_out_that_hangs_is_cut_short(command_of, tmp_path):
    body = """
        from common import interruption
        interruption.SECONDS_TO_END = 0.5
        threading.Thread(target=lambda: time.sleep(600)).start()
        print("ready", flush=True)
        time.sleep(60)
    """
    process = start(command_of(body), tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\ninterrupted; the same command goes on\n")


def test_nohup_is_heeded(command_of, tmp_path):
    command = command_of("print('ready', flush=True); time.sleep(0.5); print('done')")
    process = start(["nohup", *command], tmp_path, stdin=subprocess.DEVNULL)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "done\n"
    assert process.returncode == 0


# ---- streams


def test_a_reader_that_goes_ends_it_quietly(command_of, tmp_path):
    body = """
        try:
            for number in range(100_000):
                print(number)
        finally:
            open(os.environ["TMPDIR"] + "/put_away", "w").close()
    """
    process = start(command_of(body), tmp_path)
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == -signal.SIGPIPE
    assert (tmp_path / "put_away").exists()


def test_a_reader_that_has_gone_before_the_last_line(command_of, tmp_path):
    """What is printed last waits in a buffer till the end."""
    process = start(command_of("sys.stdin.readline(); print('done')"), tmp_path, stdin=-1)
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == -signal.SIGPIPE


def test_a_reader_that_goes_from_a_thread_does_not_stop_the_work(command_of, tmp_path):
    body = """
        sys.stdin.readline()
        thread = threading.Thread(target=lambda: print("progress", flush=True))
        thread.start()
        thread.join()
        open(os.environ["TMPDIR"] + "/done", "w").close()
    """
    process = start(command_of(body), tmp_path, stdin=-1)
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    process.wait(timeout=30)
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("body", ["print('done')", "print('done', flush=True)"])
def test_stdout_on_a_full_disk(command_of, tmp_path, body):
    with FULL.open("w") as full:
        code, _, errors = ended(command_of(body), tmp_path, stdout=full)
    assert (code, errors) == (1, "error: stdout: No space left on device\n")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
def test_stderr_on_a_full_disk(command_of, tmp_path):
    with FULL.open("w") as full:
        code, out, _ = ended(command_of("print('so far'); 1 / 0"), tmp_path, stderr=full)
    assert (code, out) == (1, "so far\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed(command_of, tmp_path, closed):
    """And the next file that is opened is not taken for one of them."""
    command = command_of("""
        print("to stdout")
        print("to stderr", file=sys.stderr)
        with open(os.environ["TMPDIR"] + "/file", "w") as file:
            file.write("whole")
            os.write(1, b"from C")
    """)
    code, _, _ = ended(["sh", "-c", f'exec "$@" {closed}', "sh", *command], tmp_path)
    assert code == 0
    assert (tmp_path / "file").read_text() == "whole"


def test_what_a_terminal_can_not_show_is_escaped(command_of, tmp_path):
    command = ["env", "PYTHONIOENCODING=ascii", *command_of("print('Sigur Rós \\udcff')")]
    assert ended(command, tmp_path) == (0, "Sigur R\\xf3s \\udcff\n", "")


def test_a_flag_that_is_no_utf_8(command_of, tmp_path):
    command = [*map(os.fsencode, command_of("pass")), b"--config=caf\xe9"]
    code, _, errors = ended(command, tmp_path)
    assert (code, errors) == (1, "error: --config=caf\\xe9: no UTF-8; rename what it names\n")
