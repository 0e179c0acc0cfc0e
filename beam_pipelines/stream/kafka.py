"""Announcements in a topic of Kafka: its parts are the partitions, positions are offsets.

The manifests alone say what has been read. The offsets that are committed for the consumer group
follow them, for those who watch its lag; nothing here reads them.
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from beam_pipelines.stream import patience
from beam_pipelines.stream.sources import Line
from common.errors import UserFacingError, one_line

# Names the file of librdkafka's properties, with credentials and certificates.
PROPERTIES = "KAFKA_PROPERTIES"

_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}"
_URI = re.compile(rf"kafka://({_HOST}(?:,{_HOST})*)/([\w.-]{{1,249}})", re.ASCII)

# How long one request and one look take, in seconds.
_REQUEST, _LOOK = 5.0, 0.5
# Nothing comes, though there is something: no client says that brokers are away.
_SILENCE = 15.0
_AT_ONCE = 500

_REFUSED = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
_AWAY = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
}

_T = TypeVar("_T")


class Topic:
    """The messages of a topic, those of a transaction once it is committed.

    Attributes:
        uri: kafka://broker:9092/topic; manifests keep positions by it.
        spans: {partition: [from, to)} of what `lines` has read.
        counts: `expired`, how many offsets were gone before they were read.
        messages: always empty.
        is_urgent: something is expired.
        may_have_more: never; what comes meanwhile is for the next run.
    """

    def __init__(
        self,
        uri: str,
        *,
        once: bool,
        skip_expired: bool = False,
        patient_for: float = patience.SECONDS,
    ):
        """Connects to nothing yet.

        Args:
            uri: of the brokers and the topic.
            once: does not wait for brokers for ever.
            skip_expired: goes on after offsets that are gone, and counts them.
            patient_for: how long to wait for brokers then, in seconds.

        Raises:
            UserFacingError: it is no such URI, or the file of properties is wrong.
        """
        found = _URI.fullmatch(uri)
        if found is None:  # what else stands in it may be a password
            raise UserFacingError(
                "--source=kafka://…: not kafka://broker:9092/topic, brokers separated by commas; "
                f"credentials go into the file that {PROPERTIES} names"
            )
        self.uri, self._topic = uri, found[2]
        self.spans: dict[str, list[int]] = {}
        self.counts: dict[str, int] = {}
        self.messages: list[str] = []
        self.is_urgent = self.may_have_more = False
        self._patience = patience.Patience(uri, patient_for if once else None)
        self._skip_expired = skip_expired
        self._problem: KafkaError | None = None
        self._consumer = _consumer(found[1], self._heard)

    def lines(self, position: Mapping[str, int], messages: Collection[str] = ()) -> Iterator[Line]:
        """Yields what was announced after a position {partition: offset}.

        That is up to the end of each partition as this begins.

        Raises:
            UserFacingError: the topic, or what is to be read of it, is not there; a broker refuses
                us, or none has answered for too long.
        """
        self.spans, self.counts, self.is_urgent = {}, {}, False
        spans = self._spans_after(position)
        left = {partition: end for partition, (_, begin, end) in spans.items() if begin < end}
        self._consumer.assign(
            [TopicPartition(self._topic, each, spans[each][1]) for each in sorted(left)]
        )
        last_heard = time.monotonic()
        while left:
            received = self._consumer.consume(_AT_ONCE, timeout=_LOOK)
            for message in received:
                partition, offset = _place(message)
                if (error := message.error()) is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        self._wait(error)
                        continue
                elif offset < left.get(partition, 0):
                    where = f"partition {partition}, offset {offset:,}"
                    yield Line(where, message.value() or b"")
                    offset += 1
                # The last offsets may be the marks of transactions, and no messages.
                if offset >= left.get(partition, offset + 1):
                    del left[partition]
            if received:
                self._patience.answered()
                self._problem, last_heard = None, time.monotonic()
            elif self._problem or time.monotonic() - last_heard > _SILENCE:
                self._wait(self._problem or KafkaError(KafkaError._TIMED_OUT))
        self._consumer.unassign()
        self.spans = {
            str(partition): [before, end]
            for partition, (before, _, end) in sorted(spans.items())
            if before < end
        }

    def accounted_for(self) -> None:
        """Commits the group's offsets, for those who watch its lag; it may fail."""
        ends = [TopicPartition(self._topic, int(p), end) for p, (_, end) in self.spans.items()]
        with contextlib.suppress(KafkaException):
            self._consumer.commit(offsets=ends, asynchronous=False)

    def close(self) -> None:
        """Leaves the brokers."""
        self._consumer.close()

    def _spans_after(self, position: Mapping[str, int]) -> dict[int, tuple[int, int, int]]:
        """Returns {partition: (position, where to begin, where to end)}."""
        partitions = self._asked(self._partitions)
        for part in position:
            if int(part) not in partitions:
                raise UserFacingError(
                    f"{self.uri}: has no partition {part}, which was read before; {_REMADE}"
                )
        return {each: self._span_of(each, position.get(str(each))) for each in partitions}

    def _partitions(self) -> list[int]:
        topic = self._consumer.list_topics(self._topic, timeout=_REQUEST).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return sorted(topic.partitions)

    def _span_of(self, partition: int, position: int | None) -> tuple[int, int, int]:
        place = TopicPartition(self._topic, partition)
        low, high = self._asked(
            lambda: self._consumer.get_watermark_offsets(place, timeout=_REQUEST, cached=False)
        )
        if position is None:
            return low, low, high
        if position > high:
            raise UserFacingError(
                f"{self.uri}: partition {partition} ends at offset {high:,}, and was read to "
                f"{position:,} before; {_REMADE}"
            )
        if position < low:
            if not self._skip_expired:
                raise UserFacingError(_expired(self.uri, partition, position, low))
            self.is_urgent = True
            self.counts["expired"] = self.counts.get("expired", 0) + low - position
        return position, max(position, low), high

    def _asked(self, request: Callable[[], _T]) -> _T:
        """Returns what the brokers answer; asks again while they are away."""
        while True:
            try:
                answer = request()
            except KafkaException as error:
                self._consumer.poll(0)  # hears why
                self._wait(error.args[0])
            else:
                self._patience.answered()
                self._problem = None
                return answer

    def _heard(self, error: KafkaError) -> None:
        """Takes down what the client tells of its connections."""
        if self._problem is None or self._problem.code() not in _REFUSED:
            self._problem = error

    def _wait(self, error: KafkaError) -> None:
        """Pauses after an error that may pass; raises any other."""
        cause = self._problem or error
        if cause.code() in _REFUSED:
            raise UserFacingError(f"{self.uri}: {_said(cause)}; see the file of {PROPERTIES}")
        if error.code() not in _AWAY:
            raise UserFacingError(f"{self.uri}: {_said(error)}")
        self._patience.wait(_said(cause))


_REMADE = (
    "the topic must have been made anew: announce in one of another name, or let another "
    "--output_dir grow"
)


def _expired(uri: str, partition: int, position: int, low: int) -> str:
    return (
        f"{uri}: partition {partition}: offsets {position:,} to {low - 1:,} were deleted before "
        "they were read; announce what was in them again, and run the command with --skip_expired, "
        "which goes on after them and counts them"
    )


def _said(error: KafkaError) -> str:
    return one_line(Exception(error.str()), at_most=200)


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    return -1 if partition is None else partition, -1 if offset is None else offset


# ---- the client


def _consumer(brokers: str, heard: Callable[[KafkaError], None]) -> Consumer:
    path = os.environ.get(PROPERTIES)
    given = {} if path is None else _properties(path)
    quiet = logging.getLogger("librdkafka")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    ours: dict[str, Any] = {
        "bootstrap.servers": brokers,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": 16_384,
        "error_cb": heard,
        "logger": quiet,
    }
    try:
        return Consumer({"group.id": "stream_dataset"} | given | ours)
    except (KafkaException, ValueError, TypeError) as error:
        # What the client says may have the value in it.
        name = re.search(r'property[^"]*"([\w.]+)"', str(error))
        what = f"{name[1]}: no such property, or not such a value" if name else "can't be used"
        raise UserFacingError(f"{path or PROPERTIES}: {what}") from None


def _properties(path: str) -> dict[str, str]:
    """Reads a file of lines key=value, as librdkafka's own tools have; values are never shown."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserFacingError(f"{PROPERTIES}={path}: can't be read ({one_line(error)})") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[\w.]+", key.strip(), re.ASCII):
            raise UserFacingError(f"{path}: line {number} is not key=value")
        found[key.strip()] = value.strip()
    return found
