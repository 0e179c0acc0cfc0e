"""What those who watch a stream want to know of it, as Prometheus reads it from a file.

Most is taken from the manifests, so it goes on where another process ended: gauges, no counters.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from beam_pipelines.stream.known import Known
from beam_pipelines.stream.plan import Waiting
from common import files
from common.errors import UserFacingError, require
from common.generations import Manifest


@dataclasses.dataclass
class Watch:
    """What has become of the runs of this process.

    Attributes:
        manifests: of the generations that a reader takes after the last run.
        unaccounted: how many announcements it has read that no manifest accounts for.
        waiting: what waits after it.
        examples: how many records it wrote, None where it wrote no generation.
        oldest: when the first of its tracks was announced, in seconds since 1970.
        figures: {name: value} of the last run that wrote a generation.
    """

    manifests: Sequence[Manifest] = ()
    unaccounted: int = 0
    waiting: Sequence[Waiting] = ()
    examples: int | None = None
    oldest: float | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)

    def read(self, there: Known, count: int, waiting: Sequence[Waiting]) -> None:
        """Hears what a run has read, and what is to wait after it."""
        self.manifests, self.unaccounted, self.waiting = there.manifests, count, waiting
        self.examples = self.oldest = None

    def wrote(self, manifest: Manifest, rows: Iterable[Waiting]) -> None:
        """Hears of a generation of that run, the first of which accounts for all it read."""
        self.unaccounted = 0
        self.examples = (self.examples or 0) + manifest.num_records
        times = [row.announcement.seconds for row in rows]
        self.oldest = min([*times, *([] if self.oldest is None else [self.oldest])], default=None)

    def ended(self, *, began: float, now: float) -> None:
        """Hears that the run has ended, and its times in seconds since 1970."""
        if self.examples is not None:
            seconds = max(now - began, 1e-3)
            self.figures = {"run_seconds": seconds, "clips_per_second": self.examples / seconds}
            if self.oldest is not None:
                self.figures["latency_seconds"] = max(0.0, now - self.oldest)


def check(path: str) -> None:
    """Raises UserFacingError unless metrics can be written to a path."""
    require(
        bool(os.path.basename(path)) and not os.path.isdir(path),
        f"--metrics_file={path}: a folder; give the path of a file in it, such as stream.prom",
    )
    require(
        files.folder_exists(os.path.dirname(path) or "."),
        f"--metrics_file={path}: no such folder",
    )
    try:
        import prometheus_client  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserFacingError(f"{error}; pip install '.[stream]' has it") from None


def write(path: str, watch: Watch, *, now: float) -> None:
    """Writes the metrics into a file, local or gs://, in one piece."""
    text = in_prometheus_format(watch, now=now)
    files.write_atomically(os.path.dirname(path) or ".", os.path.basename(path), text)


def in_prometheus_format(watch: Watch, *, now: float) -> bytes:
    """Returns the metrics at a time in seconds since 1970."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest  # of an extra

    registry = CollectorRegistry()

    def gauge(name: str, words: str, value: float) -> None:
        Gauge(f"fma_stream_{name}", words, registry=registry).set(value)

    def gauges(name: str, words: str, label: str, values: Mapping[str, int]) -> None:
        family = Gauge(f"fma_stream_{name}", words, [label], registry=registry)
        for key, value in sorted(values.items()):
            family.labels(key).set(value)

    every = watch.manifests
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for manifest in every:
        counts.update(manifest.counts)
        rejected.update(manifest.rejected)
    waiting = [entry.announcement.seconds for entry in watch.waiting]
    gauge("generations", "Generations beside generation 0.", len(every))
    gauge("examples", "Their records.", sum(manifest.num_records for manifest in every))
    unlabelled = sum(manifest.num_records - manifest.num_examples for manifest in every)
    gauge("unlabelled", "Those that were written without a label.", unlabelled)
    gauges("announcements", "What their manifests count.", "counted_as", counts)
    gauges("rejected", "Tracks and announcements that could not be used.", "reason", rejected)
    gauge("late", "Tracks that came late.", sum(manifest.late for manifest in every))
    gauge("waiting", "Announcements that are no records yet.", len(waiting))
    gauge("lag_messages", "Announcements that no manifest accounts for.", watch.unaccounted)
    gauge("lag_seconds", "The age of the oldest that waits.", max(0, now - min([*waiting, now])))
    words = {
        "run_seconds": "How long the last run took that wrote a generation.",
        "clips_per_second": "Its records by its time.",
        "latency_seconds": "Its longest time from announcement to readable record.",
    }
    for name, value in watch.figures.items():
        gauge(name, words[name], value)
    gauge("run_timestamp_seconds", "When the last run ended.", now)
    return bytes(generate_latest(registry))
