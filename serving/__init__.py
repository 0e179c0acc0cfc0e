"""Asks exported models; knows neither Beam nor the trainer."""

from common import interruption, tensorflow_environment

interruption.end_at_once_while_importing()
tensorflow_environment.apply()
