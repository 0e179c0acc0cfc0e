"""The product on a miniature library: what a fresh clone shows, and its tests work with."""

from common import interruption

interruption.end_at_once_while_importing()
