"""Popularity that is fair to a track's age."""

import collections

import numpy as np
import pytest
import scipy.stats

from common import labels, popularity
from common.dataset_config import DatasetConfig
from common.errors import UserFacingError
from configs import dataset_artist, dataset_fusion

DAY = 24 * 3600


def test_listens_of_an_average_year():
    assert popularity.listens_per_year(3_000, age_seconds=3 * 365 * DAY + 66_000) == 1_000
    assert popularity.listens_per_year(3_000, age_seconds=365 * DAY) == 3_002
    young = popularity.listens_per_year(100, age_seconds=30 * DAY)
    assert popularity.listens_per_year(100, age_seconds=0) == young == 1_218


def test_ranks_are_those_of_scipy():
    listens = np.random.default_rng(0).integers(0, 50, 300)
    ranks = popularity.Ranks(list(collections.Counter(listens.tolist()).items()))
    wanted = (scipy.stats.rankdata(listens) - 0.5) / len(listens)
    np.testing.assert_allclose([ranks.of(int(n)) for n in listens], wanted, atol=6e-5)


@pytest.mark.parametrize(
    ("date", "quarter"),
    [(0, 1970 * 4), (90 * DAY - 1, 1970 * 4), (90 * DAY, 1970 * 4 + 1), (-DAY, 1969 * 4 + 3)],
)
def test_quarters_of_a_year(date, quarter):
    assert popularity.quarter_of(date) == quarter


def config(**values) -> DatasetConfig:
    return DatasetConfig.from_dict(dataset_artist.get_config().to_dict() | values)


def test_thresholds_are_of_what_they_cut():
    assert config(popularity="listens_per_year").needs_dates
    assert not config().needs_dates
    assert "popularity" not in config().to_dict()
    ranks = config(popularity="rank_among_contemporaries", thresholds=(0.2, 0.6))
    assert DatasetConfig.from_dict(ranks.to_dict()) == ranks
    with pytest.raises(UserFacingError, match="not all between 0 and 1, as ranks are"):
        config(popularity="rank_among_contemporaries")
    with pytest.raises(UserFacingError, match="are not whole numbers"):
        config(popularity="listens_per_year", thresholds=(0.2, 0.6))
    with pytest.raises(UserFacingError, match="'plays' is none of listens, listens_per_year"):
        config(popularity="plays")


def test_classes_in_words():
    names = ("low", "medium", "high")
    assert labels.class_ranges(names, (1_000, 3_500))[1] == "medium: 1,000 to 3,499 listens"
    a_year = labels.class_ranges(names, (100, 350), popularity="listens_per_year")
    assert a_year[0] == "low: under 100 listens a year"
    # At quantiles of numbers of listens a year, which are floats.
    counts = [(float(number), 1) for number in range(1_000, 1_010)]
    found = labels.thresholds_at(counts, quantiles=(0.2, 0.6))
    assert labels.class_ranges(names, found, popularity="listens_per_year") == [
        "low: under 1,002 listens a year",
        "medium: 1,002 to 1,005 listens a year",
        "high: 1,006 listens a year or more",
    ]
    ranks = labels.class_ranges(names, (0.2, 0.6), popularity="rank_among_contemporaries")
    assert ranks[1] == "medium: 0.2 to under 0.6 of its contemporaries"


def test_the_fusion_config_is_possible():
    inputs = DatasetConfig.from_dict(dataset_fusion.get_config().to_dict()).inputs
    assert "genre" in inputs.categories
    assert "acousticness" in inputs.numbers
    assert inputs.artist_history and inputs.chroma and inputs.tempo
