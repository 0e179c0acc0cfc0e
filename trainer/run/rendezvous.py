"""The rendezvous: the workers of a training run wait for one another before TensorFlow starts.

TensorFlow's own wait prints nothing and blocks Python, so that no signal is handled in it.
"""

import os
import socket
import time
from collections.abc import Collection

from common.errors import UserFacingError
from trainer.run import cluster

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_CONNECT = 1.0
_SECONDS_TO_END = 30.0


def meet_workers(strategy: str) -> None:
    """Waits for the other workers of TF_CONFIG, if --strategy is to train with any.

    Raises:
        UserFacingError: another process listens at this worker's address; or TF_CONFIG can't be
            read.
    """
    if cluster.is_multi_worker(strategy) and cluster.num_all_workers() > 1:
        own, others = cluster.own_and_other_addresses()
        print(f"waiting for {len(others) + 1} workers", flush=True)
        meet(own, others)


def meet(own: str, others: Collection[str]) -> None:
    """Returns once this worker has reached all others.

    It listens where TensorFlow's server will. A worker that has reached all starts that server,
    which those that come later reach at the same address.

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
        problem = os.strerror(error.errno or 0)
        raise UserFacingError(f"TF_CONFIG: {own} can't be listened on ({problem})") from None
    with listener:
        missing = list(others)
        while missing := [address for address in missing if not is_listening(address)]:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def wait_for_end(address: str) -> None:
    """Returns when nobody listens at a `host:port` any more, or has for long enough to be another.

    A worker that is started again would take one that is about to end for the one that comes next.
    """
    until = time.monotonic() + _SECONDS_TO_END
    while is_listening(address) and time.monotonic() < until:
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def is_listening(address: str) -> bool:
    """Returns whether somebody listens at a `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT) as there:
            # A connection to a port that nobody listens on may end up with itself.
            return bool(there.getsockname() != there.getpeername())
    except OSError:
        return False
