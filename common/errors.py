"""What is wrong in the words of the user, on every path from a flag to a file."""


class UserFacingError(ValueError):
    """Something the user gave is wrong; the message is one line naming it and what to do."""


def require(holds: bool, message: str) -> None:
    """Raises UserFacingError with `message` unless the condition holds."""
    if not holds:
        raise UserFacingError(message)
