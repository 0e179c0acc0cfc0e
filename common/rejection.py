"""Why a clip is rejected: every reason there is, and the error that carries one."""

from common.errors import UserFacingError

REASONS = ("empty_file", "undecodable", "too_short", "silent", "not_finite")
# What is `undecodable`, more exactly.
UNDECODABLE_CODES = ("too_long", "too_slow_to_decode")


class ClipError(UserFacingError):
    """A clip that can't be used; `str()` says why in words.

    Args:
        reason: one of REASONS, which a dataset counts.
        message: for a person.
        code: the reason, or one of UNDECODABLE_CODES, which a server answers with.
    """

    def __init__(self, reason: str, message: str, *, code: str | None = None):
        super().__init__(message)
        # A reason that nobody knows would be counted nowhere.
        assert reason in REASONS, reason
        assert code in (None, *REASONS, *UNDECODABLE_CODES), code
        self.reason, self.code = reason, code or reason
