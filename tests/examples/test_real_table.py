"""The table of `make real`: its measures and intervals beside those of scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import stats

from examples import real_table

NUM_CLIPS = 300


@pytest.fixture(scope="module")
def asked():
    random = np.random.default_rng(0)
    listens = random.integers(100, 10_000, NUM_CLIPS)
    return real_table.Asked(
        label=np.digitize(listens, [1_000, 3_500]), listens=listens, artist=np.arange(NUM_CLIPS)
    )


def answers(asked, *, skill: float, seed: int):
    """Probabilities [clips, classes] that know the label more or less well."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1, (NUM_CLIPS, 3)) + skill * np.eye(3)[asked.label]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_measures_are_those_of_scikit_learn(asked):
    from sklearn import metrics

    probabilities = answers(asked, skill=1.0, seed=1)
    found = real_table.measure(probabilities, asked)
    answer = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(asked.label, answer))
    f1 = metrics.f1_score(asked.label, answer, average="macro")
    assert found["macro_f1"] == pytest.approx(f1)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(asked.label, probabilities))


def test_a_difference_has_the_interval_of_a_paired_bootstrap(asked):
    """Each clip is of another artist here, so that SciPy's bootstrap draws the same things."""
    good, better = answers(asked, skill=1.0, seed=1), answers(asked, skill=1.5, seed=2)
    found = real_table.compare({"good": good, "better": better}, asked, pairs=[("better", "good")])
    (difference,) = found["differences"]
    assert difference["name"] == "better − good"
    rows = {row["name"]: row for row in found["rows"]}
    right = [(each.argmax(axis=1) == asked.label).astype(float) for each in (better, good)]
    expected = stats.bootstrap(
        right,
        lambda one, other, axis: one.mean(axis=axis) - other.mean(axis=axis),
        paired=True,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert difference["accuracy"] == pytest.approx(
        rows["better"]["accuracy"] - rows["good"]["accuracy"]
    )
    assert difference["accuracy_ci95"] == pytest.approx(list(expected), abs=0.015)


def test_two_that_answer_alike_do_not_differ_however_wide_their_intervals_are(asked):
    same = answers(asked, skill=1.0, seed=1)
    found = real_table.compare({"one": same, "other": same}, asked, pairs=[("one", "other")])
    (difference,) = found["differences"]
    for key in real_table.MEASURES:
        low, high = found["rows"][0][f"{key}_ci95"]
        assert low < high
        assert (difference[key], *difference[f"{key}_ci95"]) == (0, 0, 0)


def test_the_interval_is_wider_where_artists_have_many_clips_alike(asked):
    """Ten clips of an artist, all right or all wrong, say no more than one."""
    right = np.random.default_rng(3).random(NUM_CLIPS // 10) < 0.6
    probabilities = np.where(
        np.repeat(right, 10)[:, np.newaxis], np.eye(3)[asked.label], np.eye(3)[asked.label - 1]
    )
    of_few = real_table.Asked(
        label=asked.label, listens=asked.listens, artist=np.arange(NUM_CLIPS) // 10
    )

    def width(asked) -> float:
        (row,) = real_table.compare({"one": probabilities}, asked)["rows"]
        return row["accuracy_ci95"][1] - row["accuracy_ci95"][0]

    assert width(of_few) > 2 * width(asked)


def test_the_differences_have_a_table_of_their_own(asked):
    predictions = {"one": answers(asked, skill=1.0, seed=1), "two": answers(asked, skill=2, seed=2)}
    about = {"title": "Tracks", "num_train": 2_000, "num_asked": 300, "num_artists": 300}
    alone = real_table.markdown([about | real_table.compare(predictions, asked)])
    assert alone.count("| accuracy |") == 1
    both = real_table.markdown(
        [about | real_table.compare(predictions, asked, pairs=[("one", "two")])]
    )
    assert both.startswith(alone.rstrip())
    (line,) = (line for line in both.splitlines() if line.startswith("| one − two"))
    assert line.startswith("| one − two | −0.") and "-" not in line
