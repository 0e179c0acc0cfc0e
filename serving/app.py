r"""The web page and its JSON API.

python -m serving.app --export_dir=export --port=8080

The newest version in --export_dir answers, in this process or, with --tf_serving=host:port, on
TensorFlow Serving; a newer one is taken up as soon as it is there.
"""

import contextlib
import dataclasses
import ipaddress
import os
import re
import resource
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from common import command, export_folder
from common.errors import UserFacingError, require
from serving import model_flags
from serving.model_flags import EXPORT_DIR, TF_SERVING, TF_SERVING_VERSION
from serving.web.limits import Limits

if TYPE_CHECKING:
    import uvicorn

flags.adopt_module_key_flags(model_flags)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "The address to listen on; 0.0.0.0 lets other machines in."
)
_PORT = flags.DEFINE_integer("port", 8080, "The port to listen on.", lower_bound=0)
_ALLOWED_HOSTS = flags.DEFINE_list(
    "allowed_hosts", ["localhost", "127.0.0.1", "::1"], "The names and addresses by which clients "
    "may call this server (their Host header), beside --host; * for any."
)  # fmt: skip
_POLL = flags.DEFINE_float(
    "poll_seconds", 5.0, "How often to look for a newer version.", lower_bound=0.1
)
_HELP = {
    "max_upload_mb": "The largest file.",
    "max_seconds": "The longest song.",
    "max_samples": "The most samples of a song, those of all channels.",
    "decode_seconds": "How long decoding a song may take.",
    "upload_seconds": "How long an upload may take.",
    "answer_seconds": "How long an answer may take, reading it included.",
    "queue_length": "How many songs may wait.",
    "queue_seconds": "How long one may wait.",
    "buffered_mb": "The most memory for uploads.",
    "connections": "How many connections may be open; half of them from one address.",
}


def _define_limit(field: "dataclasses.Field[Any]") -> "flags.FlagHolder[Any]":
    define: Any = flags.DEFINE_integer if field.type is int else flags.DEFINE_float
    holder: flags.FlagHolder[Any] = define(field.name, field.default, _HELP[field.name])
    return holder


_LIMITS = {field.name: _define_limit(field) for field in dataclasses.fields(Limits)}
# Files that are open beside connections.
_OTHER_FILES = 256


def allow_connections(count: int) -> None:
    """Raises the limit of open files; UserFacingError where the system has a lower one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        require(
            hard == resource.RLIM_INFINITY or hard >= needed,
            f"--connections={count}: the system allows {hard} open files; up to "
            f"{hard - _OTHER_FILES} connections",
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def check_hosts(hosts: Sequence[str]) -> None:
    """Raises UserFacingError for what no Host header is compared with, such as `name:port`."""
    for host in hosts:
        bare = host.strip()
        try:
            ipaddress.ip_address(bare.strip("[]"))
        except ValueError:
            require(
                re.fullmatch(r"[^\s\[\]:@/]+", bare) is not None,
                f"--allowed_hosts: {host!r} is neither a name nor an address; leave out scheme "
                "and port",
            )


def num_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(argv: list[str]) -> int:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --export_dir=export")
    require(
        bool(TF_SERVING.value) or not TF_SERVING_VERSION.value,
        "--tf_serving_version: of which server? --tf_serving names it",
    )
    require(bool(_HOST.value), "--host: no address; 0.0.0.0 listens on all of them")
    check_hosts(_ALLOWED_HOSTS.value)
    limits = Limits(**{name: holder.value for name, holder in _LIMITS.items()})
    allow_connections(limits.connections)
    export_folder.newest_version(EXPORT_DIR.value)  # before TensorFlow takes its time
    sock = bound(_HOST.value, _PORT.value)

    import uvicorn

    from serving.model import model_host
    from serving.web import connections
    from serving.web.application import application
    from serving.web.service import PredictionService

    decoders = num_cores()
    host = model_host.ModelHost(
        EXPORT_DIR.value,
        tf_serving=TF_SERVING.value,
        tf_serving_version=TF_SERVING_VERSION.value,
        count=decoders,
        limits=limits,
    )
    service = PredictionService(host, limits, decoders=decoders)
    app = application(
        service, poll_seconds=_POLL.value, allowed_hosts=[*_ALLOWED_HOSTS.value, _HOST.value]
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=connections.protocol(limits),
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # or whoever says X-Forwarded-For is as many clients as it likes
            timeout_graceful_shutdown=30,
        )
    )
    address, port = sock.getsockname()[:2]
    address = f"[{address}]" if ":" in address else address
    sock.listen(limits.connections)
    print(
        f"serving version {host.version} of {EXPORT_DIR.value} at http://{address}:{port}/ "
        "(Ctrl-C stops)",
        flush=True,
    )
    with ending_on_hangup(server):
        server.run(sockets=[sock])
    return 0


@contextlib.contextmanager
def ending_on_hangup(server: "uvicorn.Server") -> Iterator[None]:
    """Has a server end in good order on SIGHUP too; by itself it does on SIGINT and SIGTERM."""
    before, has_come = signal.getsignal(signal.SIGHUP), threading.Event()

    def end(*_: object) -> None:
        server.should_exit = True
        has_come.set()

    if before != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
    if has_come.is_set():
        signal.raise_signal(signal.SIGHUP)


def bound(host: str, port: int) -> socket.socket:
    """Binds a socket, which listens later; UserFacingError where it can't be bound."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise UserFacingError(
            f"--host={host} --port={port}: can't listen there ({problem}); take another --port"
        ) from None
    return sock


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
