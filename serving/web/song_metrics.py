"""The songs of the version that answers, beside its training, for Prometheus."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from common.training_reference import Histogram
from serving.model.served_version import ServedVersion
from serving.model.song_statistics import SongStatistics


class SongMetrics(Collector):
    """Collects what a version shows of its songs; nothing of one without a training reference.

    Args:
        current: returns the version that answers now.
        registry: collects from here from now on.
    """

    def __init__(self, current: Callable[[], ServedVersion], registry: CollectorRegistry):
        self._current = current
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        version = self._current()
        if version.songs is not None:
            classes = version.info.class_names
            yield from _of_songs(str(version.number), classes, version.songs)

    def describe(self) -> Iterator[Metric]:
        # Or the registry would collect to know the names.
        return iter(())


def _of_songs(version: str, classes: tuple[str, ...], songs: SongStatistics) -> Iterator[Metric]:
    shown, reference = songs.shown, songs.reference
    histogram = Metric(
        "fma_song_statistic",
        "Songs by what their pictures and answers are like, in the tenths of the training.",
        "histogram",
    )
    trained = GaugeMetricFamily(
        "fma_training_share",
        "Share of the training's clips up to the edge of a bin of fma_song_statistic.",
        labels=["version", "statistic", "le"],
    )
    for name, of_training in reference.histograms.items():
        bounds = _bounds(of_training)
        labels = {"version": version, "statistic": name}
        cumulative = shown.counts[name].cumsum()
        for bound, count in zip(bounds, cumulative, strict=True):
            histogram.add_sample("fma_song_statistic_bucket", labels | {"le": bound}, float(count))
        # Without a sum, which would tell the values of few songs.
        histogram.add_sample("fma_song_statistic_count", labels, float(cumulative[-1]))
        for bound, share in zip(bounds, _shares(of_training.counts).cumsum(), strict=True):
            trained.add_metric([version, name, bound], float(share))
    yield histogram
    yield trained

    answers = CounterMetricFamily(
        "fma_song_labels", "Songs by the label of their sound alone.", labels=["version", "label"]
    )
    expected = GaugeMetricFamily(
        "fma_training_label_share",
        "Share of clips that the training's model gives a label.",
        labels=["version", "label"],
    )
    shares = _shares(reference.labels)
    for label, count, share in zip(classes, shown.labels, shares, strict=True):
        answers.add_metric([version, label], float(count))
        expected.add_metric([version, label], float(share))
    yield answers
    yield expected

    window = GaugeMetricFamily(
        "fma_drift_window_songs", "Songs that fma_drift is told from.", labels=["version"]
    )
    window.add_metric([version], shown.window)
    yield window
    names = ["version", "statistic", "measure"]
    drift = GaugeMetricFamily(
        "fma_drift", "How far the last songs are from the training's clips.", labels=names
    )
    limit = GaugeMetricFamily(
        "fma_drift_limit", "What fma_drift exceeds only where songs differ.", labels=names
    )
    for each in shown.drifts:
        drift.add_metric([version, each.statistic, each.measure], each.value)
        limit.add_metric([version, each.statistic, each.measure], each.limit)
    yield drift
    yield limit


def _bounds(histogram: Histogram) -> list[str]:
    """Returns the upper bounds of the bins, as Prometheus writes them."""
    return [*(repr(float(edge)) for edge in histogram.edges), "+Inf"]


def _shares(counts: tuple[int, ...]) -> NDArray[np.float64]:
    return np.array(counts) / sum(counts)
