"""Makes .venv, the environment of the demo or of the tests, and says what it does meanwhile.

python3 -m tools.make_environment demo   # what `make demo` needs
python3 -m tools.make_environment dev    # the tests, the linters and the documentation as well

Installs with uv, which uses all cores, and with pip where uv can't be had. The versions are those
of constraints.txt either way. Runs before anything is installed, so it needs Python alone.
"""

from __future__ import annotations  # so that an older Python comes as far as being told

import os
import pathlib
import shutil
import subprocess
import sys
import time

from tools import heartbeat

FOLDER = pathlib.Path(".venv")  # relative, so that what is printed can be typed
CONSTRAINTS = "constraints.txt"

# What to install; packages, download and disk as measured on Linux x86-64 with Python 3.11.
EXTRAS = {
    "demo": (".[pipeline,trainer,serving]", "184 packages, 0.9 GB to download, 3.0 GB on disk"),
    "dev": (".[dev]", "273 packages, 1.1 GB to download, 3.8 GB on disk"),
}
# Each environment has a stamp for make; that of the tests holds the demo's.
STAMPS = {"demo": ["demo-installed"], "dev": ["installed", "demo-installed"]}

# What pip has been told of where packages come from, and uv's word for it.
_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}


def settings_of_pip(lines: list[str]) -> dict[str, str]:
    """Returns uv's environment for what `pip config list` printed.

    Leaves out what the environment sets for uv already, and local folders that do not exist,
    which pip passes over and uv refuses.
    """
    found: dict[str, str] = {}
    for line in lines:
        name, equals, quoted = line.partition("=")
        variable = _SETTINGS.get(name.strip().rpartition(".")[2])
        values = quoted.strip().strip("'\"").replace("\\n", " ").split()
        if variable == "UV_FIND_LINKS":
            values = [v for v in values if "://" in v or pathlib.Path(v).is_dir()]
        if equals and variable and values and variable not in os.environ:
            found[variable] = " ".join(values)
    if "UV_INDEX" in found:  # pip takes the best version of all indexes, uv that of the first
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


def uv_of(python: str) -> str | None:
    """Returns the path of uv, installing it beside `python` if need be; None where that fails."""
    if path := shutil.which("uv"):
        return path
    beside = pathlib.Path(python).with_name("uv")
    pip = [python, "-m", "pip", "install", "--constraint", CONSTRAINTS, "uv"]
    if not beside.exists() and heartbeat.run(pip):
        return None
    return str(beside) if beside.exists() else None


def main(kind: str) -> int:
    """Makes the environment of this kind; returns the exit code."""
    version = sys.version_info[:2]
    if not (3, 10) <= version <= (3, 13):
        numbers = ".".join(map(str, version))
        print(f"Python {numbers}: 3.10 to 3.13 are supported; make PYTHON=python3.12 …")
        return 1
    what, size = EXTRAS[kind]
    python = str(FOLDER / "bin" / "python")
    started = time.monotonic()
    print(f"=== environment: {what} into {FOLDER}/ ({size})", flush=True)
    if not pathlib.Path(python).exists() and (
        code := heartbeat.run([sys.executable, "-m", "venv", str(FOLDER)])
    ):
        return code

    requirements = ["--constraint", CONSTRAINTS, "--editable", what]
    uv = uv_of(python)
    code = 1
    if uv:
        listed = subprocess.run(
            [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
        )
        settings = settings_of_pip(listed.stdout.splitlines())
        code = heartbeat.run(
            [uv, "pip", "install", "--python", python, *requirements], environment=settings
        )
    if code:
        print("uv is not to be had, or failed: pip goes on, on one core", flush=True)
        code = heartbeat.run([python, "-m", "pip", "install", *requirements])
    if code:
        return code
    for name in STAMPS[kind]:
        (FOLDER / name).touch()
    print(f"environment ready after {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in EXTRAS:
        sys.exit(f"usage: python3 -m tools.make_environment {'|'.join(EXTRAS)}")
    sys.exit(main(sys.argv[1]))
