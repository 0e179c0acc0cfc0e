"""The stream as one unbounded Beam pipeline: a source of orders, and the workers that fill them.

The source has one reader, which hands on what the driver in its process orders. The manifests
say where a stream goes on; a checkpoint, only whether an engine may have lost orders.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io import unbounded_source
from apache_beam.metrics import Metrics
from apache_beam.utils.timestamp import Timestamp

from beam_pipelines import output_folder, pipeline
from beam_pipelines.shard_writer import ShardWriter
from beam_pipelines.stream import driver
from beam_pipelines.stream.driver import Order, Place, Stream
from common.dataset_config import DatasetConfig

# An engine keeps a bundle open for as long as its source gives something, and hands on what is in
# it at its end; an empty source is asked again after the pause.
_SECONDS_A_BUNDLE, _PAUSE_SECONDS = 1.0, 0.5
# Flink 1.19 takes no notice of the pause, and 40 empty bundles a second take half a core.
_SECONDS_TO_WAIT = 0.25


@dataclasses.dataclass(frozen=True)
class HandedOn(unbounded_source.CheckpointMark):
    """How far a reader is: the engine has all orders up to there.

    It finalizes nothing: the driver gives back offsets and acknowledgements, after the manifest.
    """

    place: Place


class _HandedOnCoder(coders.Coder):
    def encode(self, value: HandedOn) -> bytes:
        return f"{value.place.driver} {value.place.handed_out}".encode()

    def decode(self, encoded: bytes) -> HandedOn:
        name, handed_out = encoded.decode().split()
        return HandedOn(Place(name, int(handed_out)))

    def is_deterministic(self) -> bool:
        return True


class Orders(unbounded_source.UnboundedSource):
    """The orders of a stream, `Order.packed` each."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable["Orders"]:
        """Is not split: who reads the announcements holds the lock of the dataset."""
        return [self]

    def create_reader(
        self, options: Any, checkpoint_mark: unbounded_source.CheckpointMark | None
    ) -> "_Reader":
        assert checkpoint_mark is None or isinstance(checkpoint_mark, HandedOn)
        return _Reader(self._stream, checkpoint_mark)

    def get_checkpoint_mark_coder(self) -> coders.Coder:
        return _HandedOnCoder()


class _Reader(unbounded_source.UnboundedReader):
    """Hands on the orders of the driver in this process.

    An engine may keep it, as Prism does, or make another for each bundle, as Flink does.
    """

    def __init__(self, stream: Stream, mark: HandedOn | None):
        self._stream, self._driver = stream, driver.of(stream)
        self._place = None if mark is None else mark.place
        self._current: dict[str, Any] = {}
        self._time = Timestamp.now()

    def start(self) -> bool:
        return self._next(wait_seconds=_SECONDS_TO_WAIT)

    def advance(self) -> bool:
        return self._next(wait_seconds=0.0)  # what is in the bundle waits with it

    def _next(self, *, wait_seconds: float) -> bool:
        self._time = max(self._time, Timestamp.now())
        self._driver = driver.of(self._stream)  # another, if nobody has asked for long
        order, self._place = self._driver.next_order(self._place, wait_seconds=wait_seconds)
        if order is None:
            return False
        self._current = order.packed()
        return True

    def get_current(self) -> dict[str, Any]:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        return self._time

    def get_watermark(self) -> Timestamp:
        return self._time

    def close(self) -> None:
        self._driver.leave()

    def get_checkpoint_mark(self) -> HandedOn:
        assert self._place is not None  # it has started
        return HandedOn(self._place)


class WriteOrder(pipeline.WithSongs):
    """An order → the shard on disk, and beside it a note of what is in it.

    One that is out of date is dropped: an engine may come back to it from a checkpoint, or a worker
    be at it still, when the generation is finished or another driver makes it.
    """

    def process(self, packed: dict[str, Any]) -> None:
        order = Order.unpacked(packed)

        def require_wanted() -> None:
            if output_folder.run_at_work(order.folder) != order.run_id:
                raise _OutOfDate

        writer = ShardWriter(
            self._config,
            order.folder,
            self._songs.records_of,
            attempt=order.attempt,
            before_naming=require_wanted,
        )
        try:
            require_wanted()
            writer.written(order.name, order.tracks, self._config.thresholds)
            # Where two workers had it, the note of the second may come after the end.
            if output_folder.run_at_work(order.folder) != order.run_id:
                output_folder.forget_done(order.folder, order.name)
        except Exception:
            if output_folder.run_at_work(order.folder) == order.run_id:
                raise
            Metrics.counter("orders", "out of date").inc()


class _OutOfDate(Exception):
    """Nobody wants the shard of an order any more."""


def add(to: beam.Pipeline, stream: Stream, config: DatasetConfig, *, orders_a_bundle: int) -> None:
    """Adds the stream to a pipeline.

    Args:
        to: the pipeline.
        stream: what is streamed.
        config: of its generations.
        orders_a_bundle: the most that the source gives at once.
    """
    _ = (
        to
        | "orders"
        >> unbounded_source.ReadFromUnboundedSource(
            Orders(stream),
            poll_interval=_PAUSE_SECONDS,
            max_records_per_bundle=orders_a_bundle,
            max_read_time_seconds=_SECONDS_A_BUNDLE,
        )
        # So that they are spread over the workers.
        | "spread" >> beam.Reshuffle()
        | "write shard" >> beam.ParDo(WriteOrder(config, stream.audio_dir))
        # Nothing comes here. But while Prism 2.77 waits for a bundle that has no output it keeps a
        # core busy, and takes that from the decoder.
        | "nothing" >> beam.Reshuffle()
        | "end" >> beam.Map(lambda nothing: nothing)
    )
