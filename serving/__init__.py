"""Asks exported models; knows neither Beam nor the trainer."""

import os

from common import interruption

interruption.end_at_once_while_importing()

# What goes wrong in TensorFlow reaches the user as an exception; what it logs is about its build.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
