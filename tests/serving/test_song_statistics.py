"""What a server shows of its songs beside the training: right, alarmed by drift, and of no song."""

import itertools

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest, parser

from common import picture_statistics
from common.training_reference import STATISTICS, TrainingReference
from serving.model import song_statistics
from serving.model.song_statistics import MIN_SONGS, STEP, WINDOW, SongStatistics
from serving.web.song_metrics import SongMetrics


def songs(count, *, seed, louder=0, concentration=(2, 2, 2)):
    """Pictures uint8 [songs, 8, 12] and probabilities [songs, 3]."""
    rng = np.random.default_rng(seed)
    level = rng.normal(120 + louder, 25, (count, 1, 1))
    pictures = np.clip(level + rng.normal(0, 30, (count, 8, 12)), 0, 255).astype(np.uint8)
    return pictures, rng.dirichlet(concentration, count).astype(np.float32)


def training() -> TrainingReference:
    pictures, probabilities = songs(600, seed=0)
    return TrainingReference.of(picture_statistics.of_pictures(pictures), probabilities)


def counted(pictures, probabilities) -> SongStatistics:
    found = SongStatistics(training())
    for picture, answer in zip(pictures, probabilities, strict=True):
        found.add(picture, answer)
    return found


def drifts(found) -> dict[str, song_statistics.Drift]:
    return {each.statistic: each for each in found.shown.drifts}


def alarms(found) -> set[str]:
    return {name for name, each in drifts(found).items() if each.value > each.limit}


def test_counts_against_numpy():
    pictures, probabilities = songs(100, seed=1)
    found = counted(pictures, probabilities)
    of_training = training()
    for name, values in (
        ("level", pictures.mean(axis=(1, 2))),
        ("contrast", pictures.std(axis=(1, 2))),
        ("expected_class", probabilities @ np.arange(3)),
    ):
        edges = [-np.inf, *of_training.histograms[name].edges, np.inf]
        expected = [
            ((values > low) & (values <= high)).sum() for low, high in itertools.pairwise(edges)
        ]
        np.testing.assert_array_equal(found.shown.counts[name], expected)
    predicted = np.bincount(probabilities.argmax(axis=1), minlength=3)
    np.testing.assert_array_equal(found.shown.labels, predicted)


def test_the_same_music_alarms_nothing_and_other_music_does():
    for seed in range(2, 12):
        assert alarms(counted(*songs(MIN_SONGS, seed=seed))) == set()
    assert "level" in alarms(counted(*songs(MIN_SONGS, seed=1, louder=60)))
    surer = counted(*songs(MIN_SONGS, seed=1, concentration=(1, 1, 20)))
    assert alarms(surer) == {"expected_class", "label"}


def test_only_the_last_songs_make_drift():
    pictures, probabilities = songs(2 * WINDOW, seed=1)
    pictures[:WINDOW] = 255  # and none of them among the last
    found = counted(pictures, probabilities)
    assert found.shown.window == WINDOW
    assert alarms(found) == set()
    assert found.shown.labels.sum() == 2 * WINDOW
    alone = drifts(counted(pictures[WINDOW:], probabilities[WINDOW:]))
    assert drifts(found) == alone


def test_nothing_is_said_of_few_songs():
    assert counted(*songs(MIN_SONGS - 1, seed=1, louder=60)).shown.drifts == ()


def test_nothing_is_shown_of_a_single_song():
    """What is shown stays as it is until STEP songs have come, and then has them all."""
    found, shown = SongStatistics(training()), []
    for picture, answer in zip(*songs(3 * STEP, seed=1), strict=True):
        found.add(picture, answer)
        shown.append(int(found.shown.labels.sum()))
        assert {counts.sum() for counts in found.shown.counts.values()} == {shown[-1]}
    assert shown == [n // STEP * STEP for n in range(1, 3 * STEP + 1)]


class _Version:
    number = 3

    class info:
        class_names = ("low", "medium", 'h"igh')


def metrics(found) -> dict[tuple, float]:
    version = _Version()
    version.songs = found
    registry = CollectorRegistry()
    SongMetrics(lambda: version, registry)
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_as_prometheus_reads_it():
    found = counted(*songs(MIN_SONGS, seed=1, louder=60))
    values = metrics(found)
    version = ("version", "3")
    for name in STATISTICS:
        histogram, statistic = training().histograms[name], ("statistic", name)
        bounds = [str(edge) for edge in histogram.edges] + ["+Inf"]
        of_songs = [
            values["fma_song_statistic_bucket", ("le", le), statistic, version] for le in bounds
        ]
        np.testing.assert_array_equal(of_songs, found.shown.counts[name].cumsum())
        assert of_songs[-1] == values["fma_song_statistic_count", statistic, version] == MIN_SONGS
        of_training = [
            values["fma_training_share", ("le", le), statistic, version] for le in bounds
        ]
        np.testing.assert_allclose(of_training, np.cumsum(histogram.counts) / 600)
    drift, limit = (
        values[name, ("measure", "psi"), ("statistic", "level"), version]
        for name in ("fma_drift", "fma_drift_limit")
    )
    assert drift > limit >= 0.25
    assert values["fma_drift_window_songs", version] == MIN_SONGS
    labels = [
        values["fma_song_labels_total", ("label", name), version]
        for name in _Version.info.class_names
    ]
    assert labels == list(found.shown.labels)
    assert not any(name.endswith("_sum") for name, *_ in values)


def test_a_version_that_does_not_say_what_its_training_was_like():
    assert metrics(None) == {}


@pytest.mark.parametrize("name", ["fma_drift", "fma_song_statistic_bucket"])
def test_before_any_song(name):
    values = metrics(SongStatistics(training()))
    assert {value for (key, *_), value in values.items() if key == name} <= {0.0}
