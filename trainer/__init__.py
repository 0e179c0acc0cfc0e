"""Trains, evaluates and exports the networks; reads datasets, knows nothing of Beam."""

from common import interruption, tensorflow_environment

interruption.end_at_once_while_importing()
tensorflow_environment.apply()
