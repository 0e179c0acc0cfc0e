"""Google's own fake of Pub/Sub, over gRPC, built from its Go module in build/engines."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from google.cloud import pubsub_v1

from tests.support.paths import ROOT

_FOLDER = ROOT / "build" / "engines" / "pubsub-fake"
_SOURCE = ROOT / "tests" / "support" / "pubsub_fake.go"
_MODULE = "cloud.google.com/go/pubsub/v2/pstest@v2.8.1"


def binary() -> str:
    """The program; skips the test where it can't be built, which takes minutes once."""
    built = _FOLDER / "pubsub-fake"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with open(_FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists() or built.stat().st_mtime < _SOURCE.stat().st_mtime:
            if not shutil.which("go"):
                pytest.skip("go is not on this machine")
            shutil.copy(_SOURCE, _FOLDER / "main.go")
            (_FOLDER / "go.mod").unlink(missing_ok=True)
            for command in (
                ("mod", "init", "pubsub-fake"),
                ("get", _MODULE),
                ("build", "-o", str(built), "."),
            ):
                result = subprocess.run(
                    ["go", *command],
                    cwd=_FOLDER,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=900,
                    check=False,
                )
                if result.returncode:
                    pytest.skip(f"the fake of Pub/Sub could not be built: {result.stdout[-400:]}")
    return str(built)


class Fake:
    """The server; what it holds is gone with it."""

    def __init__(self):
        self._process = subprocess.Popen(
            [binary()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._process.stdout.readline().strip()

    def subscribe(self, name: str) -> str:
        """Makes a topic and a subscription of this name; the uri of the latter."""
        self.publisher.create_topic(name=f"projects/p/topics/{name}")
        with pubsub_v1.SubscriberClient() as client:
            client.create_subscription(
                name=f"projects/p/subscriptions/{name}",
                topic=f"projects/p/topics/{name}",
                ack_deadline_seconds=10,
            )
        return f"pubsub://projects/p/subscriptions/{name}"

    def publish(self, name: str, *messages: bytes) -> None:
        for message in messages:
            self.publisher.publish(f"projects/p/topics/{name}", message).result(30)

    def deliverable(self, name: str) -> list[bytes]:
        """What another subscriber is given now: neither acknowledged nor held by somebody."""
        with pubsub_v1.SubscriberClient() as client:
            received = client.pull(
                subscription=f"projects/p/subscriptions/{name}", max_messages=1_000
            ).received_messages
            if received:  # and gives back
                client.modify_ack_deadline(
                    subscription=f"projects/p/subscriptions/{name}",
                    ack_ids=[each.ack_id for each in received],
                    ack_deadline_seconds=0,
                )
        return sorted(each.message.data for each in received)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Has it answer nobody inside the block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def running(self) -> Iterator["Fake"]:
        """Has Google's clients of this process ask it."""
        before = os.environ.get("PUBSUB_EMULATOR_HOST")
        os.environ["PUBSUB_EMULATOR_HOST"] = self.address
        try:
            self.publisher = pubsub_v1.PublisherClient()
            yield self
        finally:
            self._process.kill()
            self._process.wait()
            if before is None:
                del os.environ["PUBSUB_EMULATOR_HOST"]
            else:
                os.environ["PUBSUB_EMULATOR_HOST"] = before
