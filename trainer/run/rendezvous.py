"""Where the workers of a training wait for one another before TensorFlow lets them.

Its own wait says nothing and holds Python still, so that no signal is heard in it.
"""

import os
import socket
import time
from collections.abc import Collection

from common.errors import UserFacingError

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_CONNECT = 1.0


def meet(own: str, others: Collection[str]) -> None:
    """Returns once this worker has reached all others.

    It listens where TensorFlow's server will. One that has met all goes on to that server, which
    those who come later reach at the same address.

    Args:
        own: the `host:port` of this worker.
        others: those of the others.

    Raises:
        UserFacingError: another process listens there.
    """
    port = int(own.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        listener = socket.create_server(
            ("", port), family=family, backlog=len(others) + 1, dualstack_ipv6=dual
        )
    except OSError as error:
        problem = os.strerror(error.errno)
        raise UserFacingError(f"TF_CONFIG: {own} can't be listened on ({problem})") from None
    with listener:
        missing = list(others)
        while missing := [address for address in missing if not answers(address)]:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def answers(address: str) -> bool:
    """Whether somebody listens at a `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT) as there:
            # A connection from a port that nobody listens on may come to be with itself.
            return there.getsockname() != there.getpeername()
    except OSError:
        return False
