"""The installer: alive while it works, and told by pip's settings where packages come from."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tools import make_environment

# Silent until the file of its argument is there.
SILENT = """
import os, sys, time
print("begun", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print("\\u00e9nd", flush=True)
sys.exit(7)
"""
# Runs a command under the heartbeat, at a short one.
BEAT = """
import sys
from tools import heartbeat
heartbeat.SILENCE = 0.05
sys.exit(heartbeat.run(sys.argv[1:]))
"""


def beating(flag):
    command = [sys.executable, "-c", BEAT, sys.executable, "-c", SILENT, str(flag)]
    return command, os.environ | {"PYTHONIOENCODING": "utf-8"}


def test_seconds_are_shown_while_a_command_is_silent(tmp_path):
    command, env = beating(tmp_path / "flag")
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE) as process:
        lines = iter(process.stdout.readline, b"")
        try:
            begun = b"begun\n" in lines  # reads up to it
            beat = next(lines).decode()
        finally:
            (tmp_path / "flag").touch()
        rest = process.stdout.read().decode()
    assert begun and re.fullmatch(r"  … \d+ s\n", beat)
    assert re.fullmatch(r"(  … \d+ s\n)*énd\n", rest)
    assert process.returncode == 7


def test_on_a_terminal_the_command_has_one_and_its_line_is_cleared(tmp_path):
    (tmp_path / "flag").touch()
    command, env = beating(tmp_path / "flag")
    ours, its = os.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=its) as process:
        os.close(its)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:
            pass
    os.close(ours)
    assert process.returncode == 7
    assert "begun" in shown.decode() and shown.decode().endswith("énd\r\n")


def test_settings_of_pip_are_told_to_uv(tmp_path, monkeypatch):
    for name in make_environment._SETTINGS.values():
        monkeypatch.delenv(name, raising=False)
    lines = [
        "global.index-url='https://mirror.example/simple'",
        "install.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'",
        f":env:.find-links='{tmp_path} /no/such/folder'",
        "global.cert='/certificates.crt'",
        "global.disable-pip-version-check='1'",
    ]
    assert make_environment.settings_of_pip(lines) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://a.example/simple https://b.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(tmp_path),
        "SSL_CERT_FILE": "/certificates.crt",
    }
    monkeypatch.setenv("SSL_CERT_FILE", "/ours.crt")
    assert "SSL_CERT_FILE" not in make_environment.settings_of_pip(lines)


@pytest.mark.parametrize("script", ["make_environment", "heartbeat"])
def test_needs_nothing_installed(script):
    code = f"import tools.{script}"
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
