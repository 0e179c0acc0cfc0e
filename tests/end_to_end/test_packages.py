"""The three packages stand apart: in what they import, what they install, what images hold."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support import images
from tests.support.paths import ROOT

OURS = {"common", "beam_pipelines", "trainer", "serving", "configs", "examples", "tools", "tests"}
# What each extra of setup.py is for: a command of it, and a package that it must do without.
EXTRAS = {
    "worker": ("beam_pipelines.pipeline", "tensorflow"),
    "pipeline": ("beam_pipelines.build_dataset", "tensorflow"),
    "stream": ("beam_pipelines.stream.kafka", "tensorflow"),
    "trainer": ("trainer.run.session", "apache_beam"),
    "serving": ("serving.web.application", "apache_beam"),
}


@pytest.mark.parametrize(
    ("modules", "package", "never"),
    [
        ("trainer.train", "trainer", {"apache_beam"}),
        ("trainer.launch, trainer.run.session", "trainer", {"apache_beam"}),
        ("serving.app", "serving", {"apache_beam"}),
        ("serving.web.application", "serving", {"apache_beam"}),
        ("serving.verify", "serving", {"apache_beam"}),
        ("beam_pipelines.build_dataset", "beam_pipelines", {"tensorflow", "keras"}),
        ("beam_pipelines.inspect_dataset", "beam_pipelines", {"tensorflow", "keras"}),
    ],
)
def test_a_command_loads_no_other_package_but_common(modules, package, never):
    code = f"""
import gc, sys
import {modules}
print(*{{name.split('.')[0] for name in sys.modules}})
gc.freeze()  # ends sooner
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert loaded & OURS == {package, "common"}
    assert not loaded & never


@pytest.mark.parametrize(
    ("image", "folders"),
    [
        ("beam_pipelines", {"common", "beam_pipelines"}),
        ("trainer", {"common", "trainer", "configs", "serving"}),  # serving verifies the export
        ("serving", {"common", "serving"}),
    ],
)
def test_what_an_image_holds(image, folders):
    files = images.copied_files(ROOT / image / "Dockerfile")
    assert {name for name in files if "/" not in name} == {
        "README.md",
        "constraints.txt",
        "setup.py",
    }
    assert {name.split("/")[0] for name in files if "/" in name} == folders
    tracked = subprocess.run(
        ["git", "ls-files", *sorted(folders - {"configs"})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(tracked) <= set(files)


def python_of(folder: pathlib.Path, extra: str) -> str:
    """A fresh environment with an extra of the checkout alone."""
    uv = shutil.which("uv", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}/usr/bin")
    if uv is None:
        pytest.skip("uv is not there to make environments with")
    python = str(folder / "bin" / "python")
    commands = (
        [uv, "venv", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--python", python, "-c", "constraints.txt", f".[{extra}]"],
    )
    for command in commands:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    return python


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the environments lie, one after the other, so that what Python has compiled stays."""
    return tmp_path_factory.mktemp("place")


@pytest.mark.integration
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_installs_and_imports_alone(extra, place, tmp_path):
    module, without = EXTRAS[extra]
    shutil.rmtree(place / "environment", ignore_errors=True)
    python = python_of(place / "environment", extra)

    def run(code):
        return subprocess.run(
            [python, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPYCACHEPREFIX": str(place / "compiled")},
            capture_output=True,
            text=True,
            check=False,
        )

    result = run(f"import {module}; print({module}.__file__)")
    assert result.returncode == 0, result.stderr
    assert pathlib.Path(result.stdout.strip()).is_relative_to(place / "environment")
    assert "ModuleNotFoundError" in run(f"import {without}").stderr


@pytest.mark.integration
def test_a_wheel_holds_every_file_of_the_packages(tmp_path):
    """Templates, styles and the page too, and nothing of tests."""
    copy = tmp_path / "project"
    listing = subprocess.run(
        ["git", "ls-files", "common", "beam_pipelines", "trainer", "serving"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in [*listing, "setup.py", "README.md", "LICENSE"]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "lib")],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    built = {
        str(path.relative_to(tmp_path / "lib"))
        for path in (tmp_path / "lib").rglob("*")
        if path.is_file()
    }
    wanted = {name for name in listing if "Dockerfile" not in name}
    assert wanted <= built, sorted(wanted - built)
