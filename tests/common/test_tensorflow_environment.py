"""What TensorFlow is loaded with: oneDNN by processor, memory that stays between steps."""

import importlib
import os
import subprocess
import sys

import pytest

from common import tensorflow_environment
from tests.support.paths import ROOT

# A step that allocates and frees 4 × 48 MB, as a large convolution does.
STEPS = """
import importlib, resource, sys
importlib.import_module(sys.argv[1])

def step():
    for _ in range(4):
        bytearray(b"x") * (48 << 20)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


def run(*arguments: str, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "TF_ENABLE_ONEDNN_OPTS"}
    command = [sys.executable, "-c", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=env | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("line", "faster"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", True),
        ("flags\t\t: fpu sse2 avx avx2 fma avx512f avx512_vnni", True),
        ("flags\t\t: fpu sse2 avx", False),
        ("Features\t: fp asimd", False),
    ],
)
def test_onednn_is_on_where_the_processor_has_what_it_is_written_for(tmp_path, line, faster):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\nbugs\t\t:\n")
    flags = tensorflow_environment.cpu_flags(tmp_path / "cpuinfo")
    assert tensorflow_environment.is_faster_with_onednn(flags) is faster


def test_a_system_that_lists_no_flags_leaves_it_to_tensorflow(tmp_path):
    assert tensorflow_environment.cpu_flags(tmp_path / "none") == frozenset()
    assert not tensorflow_environment.is_faster_with_onednn(frozenset())


@pytest.mark.parametrize("package", ["trainer", "serving"])
def test_the_environment_overrides(package):
    code = f"import os, {package}; print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    assert run(code, TF_ENABLE_ONEDNN_OPTS="0") == "0"
    faster = tensorflow_environment.is_faster_with_onednn(tensorflow_environment.cpu_flags())
    assert run(code) == ("1" if faster else "None")


def test_scikit_learn_is_there_again_when_tensorflow_is_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    with tensorflow_environment.without_scikit_learn(), pytest.raises(ImportError):
        importlib.import_module("sklearn")
    there = importlib.import_module("sklearn")
    with tensorflow_environment.without_scikit_learn():
        assert importlib.import_module("sklearn") is there


@pytest.mark.integration
def test_a_model_is_loaded_without_scikit_learn(model_dir):
    code = (
        "import sys; from serving.model.exported_model import ExportedModel\n"
        f"ExportedModel.newest({str(model_dir / 'export')!r})\n"
        "print({'keras', 'sklearn'} & set(sys.modules))"
    )
    assert run(code) == "{'keras'}"


@pytest.mark.parametrize("package", ["trainer", "serving"])
def test_memory_is_kept_between_steps(package):
    """A step of 192 MB is 47,000 pages; glibc by itself fetches each of them anew."""
    assert int(run(STEPS, package)) < 100
    assert int(run(STEPS, "json")) > 10_000
