"""The server's limits, in one place: each field is a flag, with its help in `serving.app`."""

import dataclasses
import math

from common.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of a server, and what a request beyond one gets.

    Attributes:
        max_upload_mb: size of a file (413).
        max_seconds: length of a song (422).
        max_samples: samples of all channels of a song (422); silence in FLAC is a small file.
        decode_seconds: time to decode a song (422).
        upload_seconds: time from the first byte of a request to its last (408).
        answer_seconds: time from there to the last byte of the answer; then the connection ends.
        queue_length: songs that wait in all (503); a client may fill half of it (429).
        queue_seconds: time to wait (503).
        buffered_mb: uploads in memory in all (503).
        connections: open at once (503); an address may have half of them.
    """

    max_upload_mb: float = 30.0
    max_seconds: float = 900.0
    max_samples: int = 200_000_000
    decode_seconds: float = 8.0
    upload_seconds: float = 30.0
    answer_seconds: float = 60.0
    queue_length: int = 64
    queue_seconds: float = 10.0
    buffered_mb: float = 512.0
    connections: int = 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(0 < value < math.inf, f"--{field.name}: {value} is not a finite number above 0")

    @property
    def max_upload(self) -> int:
        """In bytes."""
        return int(self.max_upload_mb * 1e6)


class Refusal(Exception):
    """A request that is not answered with a prediction.

    Args:
        status: of HTTP.
        code: one word for programs.
        message: for a person.
        retry_after: seconds, for 429 and 503.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after
