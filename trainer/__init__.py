"""Trains, evaluates and exports the networks; reads datasets, knows nothing of Beam."""

import os

from beam_pipelines.command import kept_back_stderr

# What goes wrong in TensorFlow reaches the user as an exception; what it logs is about its build.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with kept_back_stderr():
    import tensorflow

    # Looked for here, since it is the first look that finds, and says, that there are no GPUs.
    tensorflow.config.list_physical_devices()
