"""What drives a stream on an engine: reads its source, and has an engine write the shards.

A thread of the process that reads the source does what `stream_dataset` does without an engine,
run after run, but for the job of a generation: its shards become work orders, which the engine
spreads over its workers. Each worker notes in the folder of the generation what it has written;
when all shards are noted, the thread finishes the generation. So the manifests are still the only
memory, and what the engine remembers of orders may be lost, or come back.
"""

import contextlib
import dataclasses
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from beam_pipelines import dataset_job, output_folder
from beam_pipelines.shard_writer import digest_of
from beam_pipelines.stream import known, metrics, plan, run, sources
from beam_pipelines.written_shard import WrittenShard
from common import files, lock
from common.catalogue import Track
from common.errors import UserFacingError

# A driver that nobody asks for orders ends, since its reader is elsewhere by now. An engine that
# has enough to do does not ask either, so while shards are being written it waits for longer,
# unless its reader was closed.
IDLE_SECONDS, _IDLE_AT_WORK_SECONDS = 120.0, 3_600.0
# How long the next one waits for the dataset, whose lock that one may still have.
_WAIT_SECONDS = 150.0
# How often it looks for notes of shards that are done.
_LOOK_SECONDS, _LOOK_IN_BUCKET_SECONDS = 0.1, 1.0
_SECONDS_TO_STOP = 5.0
# A generation is made anew if its shards are not what their notes say.
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """What is streamed.

    Attributes:
        uri: of the source.
        skip_expired: whether to go on where announcements are gone before they were read.
        output_dir: folder of the dataset, which is begun.
        audio_dir: what the paths of announcements are relative to.
        rules: how they are gathered.
        poll: the longest time between two looks at the source, in seconds.
        metrics_file: where to write metrics after each run, None for nowhere.
    """

    uri: str
    skip_expired: bool
    output_dir: str
    audio_dir: str
    rules: plan.Rules
    poll: float
    metrics_file: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """A shard that a worker is to write.

    Attributes:
        folder: of the generation.
        run_id: of the job that wants it: a worker drops it when the folder's is another.
        attempt: as of `output_folder.Work`.
        name: of the shard.
        tracks: that go into it, in order.
    """

    folder: str
    run_id: str
    attempt: int
    name: str
    tracks: tuple[Track, ...]

    def packed(self) -> dict[str, Any]:
        """Returns plain values, which Beam encodes by itself."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"tracks": [track.packed() for track in self.tracks]}

    @classmethod
    def unpacked(cls, values: Mapping[str, Any]) -> "Order":
        """Returns the order of `packed`."""
        tracks = tuple(map(Track.unpacked, values["tracks"]))
        return cls(**{**values, "tracks": tracks})


class Place(NamedTuple):
    """How far a reader is.

    Attributes:
        driver: a name that no other driver has.
        handed_out: how many orders it has handed out.
    """

    driver: str
    handed_out: int


class _Stopped(Exception):
    """The driver is to end."""


class Driver:
    """Makes generations in a thread of its own, by orders that a reader hands to the engine."""

    def __init__(self, stream: Stream):
        self._stream = stream
        # Told when there are new orders, or an error.
        self._lock = threading.Condition()
        self._new: deque[Order] = deque()
        self._open: dict[str, Order] = {}
        self._error: BaseException | None = None
        self._is_told = False
        self._stop = threading.Event()
        self._last_asked, self._is_left = time.monotonic(), False
        self._place = Place(uuid.uuid4().hex, 0)
        self._thread = threading.Thread(target=self._run, name="stream driver", daemon=True)
        self._thread.start()

    # ---- of the reader

    @property
    def is_over(self) -> bool:
        """Returns whether it has ended and its reader knows why."""
        return not self._thread.is_alive() and (self._error is None or self._is_told)

    def next_order(
        self, place: Place | None, *, wait_seconds: float = 0.0
    ) -> tuple[Order | None, Place]:
        """Returns an order, None where there is none, and where that brings the reader.

        Args:
            place: where the reader is, None where it begins. If that is not where the last one was,
                what was handed out may be lost, and all that is not done is handed out anew.
            wait_seconds: how long to wait for one.

        Raises:
            BaseException: what the driver ended with.
        """
        with self._lock:
            self._last_asked, self._is_left = time.monotonic(), False
            if place != self._place:
                self._new = deque(self._open.values())
            self._lock.wait_for(lambda: self._new or self._error, wait_seconds)
            if self._error is not None:
                self._is_told = True
                raise self._error
            order = None
            if self._new:
                order = self._new.popleft()
                self._place = self._place._replace(handed_out=self._place.handed_out + 1)
            return order, self._place

    def leave(self) -> None:
        """Hears that a reader is closed; another may come."""
        self._is_left = True

    def stop(self) -> None:
        """Has it let go of the source and of the dataset, and waits for that for a moment."""
        self._stop.set()
        self._thread.join(_SECONDS_TO_STOP)

    # ---- of its thread

    def _run(self) -> None:
        try:
            self._make_generations()
        except _Stopped:
            pass
        except BaseException as error:  # whatever it is, the reader's process is told
            with self._lock:
                self._error = error
                self._lock.notify_all()

    def _make_generations(self) -> None:
        stream, watch = self._stream, metrics.Watch()
        with (
            contextlib.closing(
                sources.of(stream.uri, once=False, skip_expired=stream.skip_expired)
            ) as source,
            lock.hold(stream.output_dir, wait_seconds=_WAIT_SECONDS),
        ):
            # Nobody else changes the dataset, so it is read once.
            there = known.load(stream.output_dir, uri=source.uri)
            while True:
                began = time.time()
                for _ in run.run(
                    source,
                    stream.output_dir,
                    self._make,
                    audio_dir=stream.audio_dir,
                    rules=stream.rules,
                    now=int(began),
                    watch=watch,
                    there=there,
                ):
                    pass
                if stream.metrics_file is not None:
                    watch.ended(began=began, now=time.time())
                    metrics.write(stream.metrics_file, watch, now=time.time())
                self._pause(seconds_to_next_look(time.time(), stream))

    def _make(self, job: dataset_job.Job) -> None:
        """Has the job of a generation done."""
        for _ in range(_ATTEMPTS):
            written = self._written(job, dataset_job.tracks_by_shard(job))
            if all(_is_whole(job.output_dir, shard) for shard in written):
                dataset_job.finish(job, job.config.thresholds, dataset_job.totals_of(written))
                return
            # A worker that was taken for dead has written on.
            work = output_folder.Work(output_folder.Mode.NEW)
            job = dataclasses.replace(job, work=work, run_id=uuid.uuid4().hex)
        raise UserFacingError(
            f"{job.output_dir}: something else writes its shards; run the command again when it "
            "has ended"
        )

    def _written(
        self, job: dataset_job.Job, tracks_of: Mapping[str, Sequence[Track]]
    ) -> list[WrittenShard]:
        """Returns what is in each shard, when all are written."""
        folder, config, attempt = job.output_dir, job.config, job.work.attempt
        made_of = {
            name: digest_of(config, tracks, config.thresholds, attempt=attempt)
            for name, tracks in tracks_of.items()
        }
        orders = {
            name: Order(
                folder=folder,
                run_id=job.run_id,
                attempt=attempt,
                name=name,
                tracks=tuple(tracks),
            )
            for name, tracks in tracks_of.items()
        }
        done: dict[str, WrittenShard] = {}
        offered: set[str] = set()
        while True:
            for name in set(output_folder.done_in(folder)) - done.keys():
                shard = output_folder.read_done(folder, name, made_of.get(name, ""))
                if shard is not None:
                    done[name] = shard
                    self._last_asked = time.monotonic()
                else:  # of other rows, or by a worker that was taken for dead
                    output_folder.forget_done(folder, name)
                    offered.discard(name)
            with self._lock:
                self._open = {name: order for name, order in orders.items() if name not in done}
                self._new.extend(order for name, order in self._open.items() if name not in offered)
                self._lock.notify_all()
            offered |= self._open.keys()
            if not self._open:
                return [done[name] for name in tracks_of]
            self._pause(_LOOK_IN_BUCKET_SECONDS if files.is_remote(folder) else _LOOK_SECONDS)

    def _pause(self, seconds: float) -> None:
        """Waits; raises _Stopped if the driver is to end."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if self._stop.wait(min(max(0.0, left), IDLE_SECONDS / 4)):
                raise _Stopped
            is_at_work = self._open and not self._is_left
            idle = _IDLE_AT_WORK_SECONDS if is_at_work else IDLE_SECONDS
            if time.monotonic() - self._last_asked > idle:
                raise _Stopped
            if left <= 0:
                return


def seconds_to_next_look(now: float, stream: Stream) -> float:
    """Returns how long to wait: until the next window has ended, but not longer than `poll`.

    Args:
        now: in seconds since 1970.
        stream: whose windows begin with 1970.
    """
    return min(stream.poll, stream.rules.window - now % stream.rules.window)


def _is_whole(folder: str, shard: WrittenShard) -> bool:
    path = files.join(folder, shard.summary.file)
    try:
        return files.sha256(path) == shard.summary.sha256
    except FileNotFoundError:
        return False


# ---- one for each dataset and source in a process

_drivers: dict[tuple[str, str], Driver] = {}
_drivers_lock = threading.Lock()


def of(stream: Stream) -> Driver:
    """Returns the driver of a stream in this process, which it starts where there is none."""
    key = (stream.uri, stream.output_dir)
    with _drivers_lock:
        driver = _drivers.get(key)
        if driver is None or driver.is_over:
            driver = _drivers[key] = Driver(stream)
        return driver


def stop_all() -> None:
    """Ends the drivers of this process."""
    with _drivers_lock:
        drivers = list(_drivers.values())
        _drivers.clear()
    for driver in drivers:
        driver.stop()
