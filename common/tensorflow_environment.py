"""What TensorFlow is loaded with: oneDNN, memory, what it logs; without scikit-learn.

`common` does not import TensorFlow; `trainer` and `serving` apply these before they do.
"""

import contextlib
import ctypes
import os
import pathlib
import sys
from collections.abc import Iterator

_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# What oneDNN's convolutions are written for.
_ONEDNN_NEEDS = {"avx2", "fma"}
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"

# Parameters of mallopt (malloc.h of glibc).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def apply() -> None:
    """Applies the settings to this process; the environment's own values go first."""
    # What goes wrong in TensorFlow reaches the user as an exception; its log is about its build.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if is_faster_with_onednn(cpu_flags()):
        os.environ.setdefault(_ONEDNN, "1")
    keep_freed_memory()


def cpu_flags(cpu_info: pathlib.Path = _CPU_INFO) -> frozenset[str]:
    """The feature flags of the processor, empty where the system does not list them."""
    try:
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def is_faster_with_onednn(flags: frozenset[str]) -> bool:
    """Whether a processor with these flags computes convolutions faster with oneDNN.

    TensorFlow turns it on by itself only where there is AVX-512 VNNI or better. With AVX2 alone a
    step of the six-layer network takes 0.50 CPU-seconds with it and 1.27 without.
    """
    return flags >= _ONEDNN_NEEDS


def keep_freed_memory() -> None:
    """Makes glibc keep what a step frees for the next one, which needs as much again.

    By default it returns every allocation above 32 MB to the system, and a training step fetches
    it anew, page by page: 10,000 to 130,000 page faults a step and a third of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TOP_PAD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


@contextlib.contextmanager
def without_scikit_learn() -> Iterator[None]:
    """Has Keras, which TensorFlow loads, find no scikit-learn while the block runs.

    It would import it for wrappers that nothing here uses, which takes 1.1 of the 4.8 CPU-seconds
    in which TensorFlow is loaded. Whoever needs scikit-learn imports it after the block.
    """
    name = "sklearn"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # so that its import raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]


def return_freed_memory() -> None:
    """Gives the system what was kept, once; the next step has to fetch its memory anew."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
