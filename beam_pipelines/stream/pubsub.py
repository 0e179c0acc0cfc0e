"""Announcements in a subscription of Pub/Sub: no offsets; what is acknowledged is forgotten.

A message is acknowledged when the manifest that accounts for it is there; until then its lease is
extended. The generation holds the ids of its messages, so that one that is delivered again after it
is known, and only acknowledged.
"""

import contextlib
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1

from beam_pipelines.stream import patience
from beam_pipelines.stream.announcements import MAX_BYTES
from beam_pipelines.stream.sources import Line
from common.errors import UserFacingError, one_line

_URI = re.compile(r"pubsub://(projects/[\w.:-]{1,100}/subscriptions/[\w.~+%-]{1,255})", re.ASCII)

# Of a run, which is the most that is held; what is left is for the next one.
_MOST, _MOST_BYTES = 100_000, 256 << 20
_AT_ONCE = 1_000
# Seconds: one request; a lease, and how often it is extended.
_REQUEST, _LEASE, _EXTEND = 5.0, 60, 15.0
# A subscription may give nothing though it has something.
_EMPTY_AT_END = 2

_AWAY = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.TooManyRequests,
    exceptions.Aborted,
)
_CREDENTIALS = "credentials are those of gcloud, or of GOOGLE_APPLICATION_CREDENTIALS"


class _Held(NamedTuple):
    """A message that is not acknowledged: what names its delivery, and what it says."""

    ack_id: str
    data: bytes


class Subscription:
    """The messages of a subscription.

    Attributes:
        uri: pubsub://projects/P/subscriptions/S.
        spans: always empty.
        counts: always empty.
        messages: ids of what `lines` has read.
        is_urgent: a run is to account for what it read: it is the last, or this is all that may be
            held.
        may_have_more: something new has come, so there may be more.
    """

    def __init__(self, uri: str, *, once: bool, patient_for: float = patience.SECONDS):
        """Connects to nothing yet.

        Args:
            uri: of the subscription.
            once: each run accounts for all that it has read, and does not wait for ever.
            patient_for: how long to wait then for one that does not answer, in seconds.

        Raises:
            UserFacingError: it is no such URI, or there are no credentials.
        """
        found = _URI.fullmatch(uri)
        if found is None:
            raise UserFacingError(
                f"--source=pubsub://…: not pubsub://projects/P/subscriptions/S; {_CREDENTIALS}"
            )
        self.uri, self._name = uri, found[1]
        self.spans: dict[str, list[int]] = {}
        self.counts: dict[str, int] = {}
        self.messages: list[str] = []
        self.is_urgent = self.may_have_more = False
        self._once = once
        self._patience = patience.Patience(uri, patient_for if once else None)
        self._held: dict[str, _Held] = {}
        self._lock, self._closed = threading.Lock(), threading.Event()
        try:
            self._client = pubsub_v1.SubscriberClient()
        except GoogleAuthError as error:
            raise UserFacingError(f"{uri}: {one_line(error, at_most=200)}") from None
        self._extending = threading.Thread(target=self._extend, daemon=True)
        self._extending.start()

    def lines(self, position: Mapping[str, int], messages: Collection[str] = ()) -> Iterator[Line]:
        """Yields all that is held, after what is delivered now.

        Args:
            position: of no meaning.
            messages: ids of those that manifests account for, which are acknowledged.

        Raises:
            UserFacingError: there is no such subscription, or it has not answered for too long.
        """
        self.may_have_more = self.is_urgent = False
        empty, size = 0, sum(len(each.data) for each in self._held.values())
        while empty < _EMPTY_AT_END and not self.is_urgent:
            new: list[Any] = []
            known: list[Any] = []
            for each in self._pull():
                (known if each.message.message_id in messages else new).append(each)
            self._acknowledge([each.ack_id for each in known])
            self._take(new)
            empty = 0 if new or known else empty + 1
            size += sum(len(each.message.data) for each in new)
            self.is_urgent = len(self._held) >= _MOST or size >= _MOST_BYTES
            self.may_have_more |= bool(new)
        self.is_urgent |= self._once and bool(self._held)
        self.messages = sorted(self._held)
        for name in self.messages:
            yield Line(f"message {name}", self._held[name].data)

    def accounted_for(self) -> None:
        """Acknowledges what `lines` has read; what that fails for is delivered again, and known."""
        with self._lock:
            held, self._held = self._held, {}
        self._acknowledge([each.ack_id for each in held.values()])

    def close(self) -> None:
        """Gives back what is held, for the next run."""
        self._closed.set()
        self._extending.join()
        self._set_deadline([each.ack_id for each in self._held.values()], seconds=0)
        self._client.close()

    def _pull(self) -> list[Any]:
        """Returns what is delivered, empty where for a moment nothing is."""
        at_once = False
        while True:
            try:
                found = self._client.pull(
                    subscription=self._name,
                    max_messages=_AT_ONCE,
                    return_immediately=at_once,
                    timeout=_REQUEST,
                    retry=None,
                )
            except _AWAY as error:
                if isinstance(error, exceptions.DeadlineExceeded) and not at_once:
                    at_once = True  # either it has nothing, which it then says, or it is away
                    continue
                self._patience.wait(_said(error))
            except exceptions.NotFound:
                raise UserFacingError(f"{self.uri}: no such subscription") from None
            except (exceptions.GoogleAPIError, GoogleAuthError) as error:
                raise UserFacingError(f"{self.uri}: {_said(error)}; {_CREDENTIALS}") from None
            else:
                self._patience.answered()
                return list(found.received_messages)

    def _take(self, received: Sequence[Any]) -> None:
        self._set_deadline([each.ack_id for each in received], seconds=_LEASE)
        with self._lock:
            for each in received:  # one that is here already may have lost its lease
                data = each.message.data[: MAX_BYTES + 1]
                self._held[each.message.message_id] = _Held(each.ack_id, data)

    def _extend(self) -> None:
        while not self._closed.wait(_EXTEND):
            with self._lock:
                held = [each.ack_id for each in self._held.values()]
            self._set_deadline(held, seconds=_LEASE)

    def _set_deadline(self, ack_ids: Sequence[str], *, seconds: int) -> None:
        for some in _chunks(ack_ids):
            with contextlib.suppress(exceptions.GoogleAPIError, GoogleAuthError):
                self._client.modify_ack_deadline(
                    subscription=self._name,
                    ack_ids=some,
                    ack_deadline_seconds=seconds,
                    timeout=_REQUEST,
                )

    def _acknowledge(self, ack_ids: Sequence[str]) -> None:
        for some in _chunks(ack_ids):
            with contextlib.suppress(exceptions.GoogleAPIError, GoogleAuthError):
                self._client.acknowledge(subscription=self._name, ack_ids=some, timeout=_REQUEST)


def _chunks(ack_ids: Sequence[str]) -> Iterator[list[str]]:
    for begin in range(0, len(ack_ids), _AT_ONCE):
        yield list(ack_ids[begin : begin + _AT_ONCE])


def _said(error: Exception) -> str:
    return one_line(Exception(getattr(error, "message", None) or str(error)), at_most=200)
