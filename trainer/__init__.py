"""Trains, evaluates and exports the networks; reads datasets, knows nothing of Beam."""

import ctypes
import os

from common import interruption

interruption.end_at_once_while_importing()

# What goes wrong in TensorFlow reaches the user as an exception; what it logs is about its build.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _keep_freed_memory() -> None:
    """Has glibc keep what is freed for the next batch, which needs as much again.

    Fetching it anew from the system, page by page, takes a sixth of the input's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_trim_threshold, 1 << 30)
        mallopt(m_mmap_threshold, 32 << 20)


_keep_freed_memory()
