"""Turns a catalogue and its audio into a dataset; the only part that knows Beam."""

import warnings

from common import interruption

interruption.end_at_once_while_importing()

# Google's libraries say so at import on Python 3.10, where nobody can do anything about it.
warnings.filterwarnings("ignore", message="You are using a", category=FutureWarning)
