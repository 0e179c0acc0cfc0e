"""The gate: what it lets pass and what it refuses, on made answers and on exports."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from common import dataset_reader, export_folder
from common.dataset_info import Split
from common.errors import UserFacingError
from common.model_info import ModelInfo
from tests.benchmarks.made_dataset import make_dataset
from tests.support import generations as support
from tests.support.commands import assert_refused, run_module
from tests.trainer.test_report import HOSTILE, Page
from trainer.evaluation import comparison, gate_report, metrics
from trainer.evaluation.comparison import Margins
from trainer.evaluation.predictions import Predictions
from trainer.run import compared_exports

MARGINS = Margins()
GENRES = np.array([b"Folk", b"Pop", b"Rock"])


@dataclasses.dataclass
class World:
    """Clips of artists, each popular by chance, and what a perfect model would know of them."""

    logits: np.ndarray
    label: np.ndarray
    artist: np.ndarray
    genre: np.ndarray

    def predictions(self, logits) -> Predictions:
        size = len(self.label)
        return Predictions(
            probabilities=softmax(logits).astype(np.float32),
            label=self.label,
            listens=np.arange(size),
            artist_id=self.artist,
            track_id=np.arange(size),
            genre=self.genre,
        )

    def answers(self, *, seed: int, skill: float = 1.0, noise: float = 0.5) -> np.ndarray:
        """The logits of a model: what it knows, and what its seed makes of artist and clip."""
        rng = np.random.default_rng([seed, 1])
        of_artist = rng.normal(0, noise, (self.artist.max() + 1, 3))[self.artist]
        return skill * self.logits + of_artist + rng.normal(0, noise, self.logits.shape)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def world(seed: int, *, artists: int = 200, clips: int = 3) -> World:
    rng = np.random.default_rng([seed, 0])
    artist = np.repeat(np.arange(artists), clips)
    logits = rng.normal(0, 1.2, (artists, 3))[artist] + rng.normal(0, 0.8, (len(artist), 3))
    chances = softmax(logits).cumsum(axis=1)[:, :2]
    label = (rng.uniform(size=(len(artist), 1)) > chances).sum(axis=1)
    return World(logits=logits, label=label, artist=artist, genre=GENRES[artist % len(GENRES)])


def judge(here: World, champion, challenger, **how):
    return comparison.judge(
        here.predictions(champion),
        here.predictions(challenger),
        **{"split": "test", "margins": MARGINS} | how,
    )


OVERRIDE = gate_report.Override(reason=HOSTILE, by="Ada", at="2026-11-27T18:00:00Z")


# ---- how often it errs


def test_of_equal_models_few_pass_and_none_that_is_worse_by_more_than_the_margin():
    """100 pairs whose skill differs as that of two seeds does; the truth is told by many clips."""
    many = world(0, artists=6_000)
    worse = by_more = passed = 0
    for pair in range(100):
        skills = np.random.default_rng(pair).normal(1, 0.05, 2)
        here = world(1 + pair)
        models = [{"seed": 2 * pair + n, "skill": skills[n]} for n in (0, 1)]
        if judge(here, *(here.answers(**model) for model in models)).passes:
            passed += 1
            truth = [many.predictions(many.answers(**model)) for model in models]
            losses = [metrics.cross_entropy(each) for each in truth]
            f1 = [metrics.scores_of(each).macro_f1 for each in truth]
            worse += losses[1] > losses[0] or f1[1] < f1[0]
            by_more += losses[1] - losses[0] > MARGINS.log_loss or f1[0] - f1[1] > MARGINS.macro_f1
    assert passed <= 5
    assert worse <= 5
    assert by_more == 0


def test_none_of_100_that_are_worse_by_more_than_the_margin_pass():
    many = world(0, artists=6_000)
    losses = [
        metrics.cross_entropy(many.predictions(many.answers(seed=1, noise=noise)))
        for noise in (0.5, 0.62)
    ]
    assert MARGINS.log_loss < losses[1] - losses[0] < 3 * MARGINS.log_loss  # and not by far
    for pair in range(100):
        here = world(pair)
        champion = here.answers(seed=2 * pair)
        assert not judge(here, champion, here.answers(seed=2 * pair + 1, noise=0.62)).passes


def test_a_better_model_passes():
    here = world(3, artists=400)
    verdict = judge(here, here.answers(seed=1, noise=1.0), here.answers(seed=2, noise=0.3))
    assert verdict.passes and verdict.reasons == ()
    assert verdict.better == ("log loss on test", "macro F1 on test")


def test_the_same_model_is_not_better():
    here = world(4)
    answers = here.answers(seed=1)
    verdict = judge(here, answers, answers.copy())
    assert verdict.reasons == ("not shown to be better by log loss or macro F1",)
    for each in verdict.comparisons:
        assert each.log_loss.interval == each.macro_f1.interval == (0, 0)


# ---- what is broken


def reasons(*arguments, **how) -> str:
    verdict = judge(*arguments, **how)
    assert not verdict.passes
    return "\n".join(verdict.reasons)


def test_a_model_of_shuffled_labels_is_refused():
    here = world(5)
    shuffled = np.random.default_rng(0).permutation(here.answers(seed=2))
    found = reasons(here, here.answers(seed=1), shuffled)
    assert "log loss on test: worse by" in found and "macro F1 on test: worse by" in found


def test_a_model_that_is_better_and_forgets_a_genre_is_refused():
    """A fortieth of the clips, so that on the whole it is better all the same."""
    here = world(6, artists=600, clips=4)
    here.genre = np.where(here.artist < 15, b"Klezmer", here.genre.astype("S7"))
    forgetful = here.answers(seed=2, noise=0.2)
    is_klezmer = here.genre == b"Klezmer"
    forgetful[is_klezmer] = np.roll(forgetful[is_klezmer], 1, axis=1)
    verdict = judge(here, here.answers(seed=1, noise=0.9), forgetful)
    assert "log loss on test" in verdict.better
    assert not verdict.passes
    assert all("genre Klezmer: worse by" in reason for reason in verdict.reasons)


def test_a_model_with_a_broken_front_end_is_refused():
    """It looks for brightness, and is given the pictures inverted."""
    here = world(7)
    rng = np.random.default_rng(1)
    level = np.array([60, 120, 180])[here.label] + rng.normal(0, 30, len(here.label))
    noise = rng.normal(0, 40, (len(level), 8, 8))
    pictures = np.clip(level[:, None, None] + noise, 0, 255).astype(np.uint8)

    def model(pictures):
        mean = pictures.mean(axis=(1, 2))[:, None]
        return -(((mean - [60, 120, 180]) / 50) ** 2)

    champion = model(pictures)
    assert sklearn_metrics.accuracy_score(here.label, champion.argmax(axis=1)) > 0.7
    found = reasons(here, champion, model(255 - pictures))
    assert "log loss on test: worse by" in found and "macro F1 on test: worse by" in found


def test_a_model_that_is_worse_on_the_newest_generation_alone_is_refused():
    here = world(8, artists=600)
    newest = slice(len(here.label) - 90, None)
    challenger = here.answers(seed=2, noise=0.2)
    challenger[newest] = np.roll(challenger[newest], 1, axis=1)
    champion = here.answers(seed=1, noise=1.0)
    found = reasons(here, champion, challenger, newest=(7, newest))
    assert "log loss on generation 7: worse by" in found and "on test" not in found


def test_a_small_generation_is_shown_and_not_judged():
    here = world(8, artists=400)
    newest = slice(len(here.label) - 9, None)
    challenger = here.answers(seed=2, noise=0.2)
    verdict = judge(here, here.answers(seed=1, noise=1.0), challenger, newest=(7, newest))
    assert verdict.passes
    (small,) = [each for each in verdict.comparisons if each.part == "generation"]
    assert small.num_examples == 9 and small.confidence is None


def test_few_artists_tell_nothing():
    here = world(9, artists=29, clips=40)
    found = reasons(here, here.answers(seed=1, noise=3.0), here.answers(seed=2, noise=0.1))
    assert "test: 29 artists are too few" in found


def test_what_may_be_worse_is_named_as_that():
    here = world(10, artists=30)
    found = reasons(here, here.answers(seed=1), here.answers(seed=2))
    assert "macro F1 on test: may be worse by" in found


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_none(margin):
    with pytest.raises(UserFacingError, match="--margin_log_loss"):
        Margins(log_loss=margin)


# ---- the bootstrap against a second implementation


def test_scores_and_intervals_against_a_loop_with_scikit_learn():
    here = world(11, artists=40)
    here.artist = np.where(here.artist % 5 == 0, -1, here.artist)  # tracks of their own
    both = [
        here.predictions(here.logits),
        here.predictions(np.random.default_rng(2).normal(size=here.logits.shape)),
    ]
    verdict = comparison.judge(*both, split="test", margins=MARGINS)
    found = verdict.comparisons[0]
    assert found.num_artists == 32 + 8 * 3
    groups = np.where(here.artist < 0, 1_000 + np.arange(len(here.artist)), here.artist)
    rows_of = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(3)
    differences = []
    for _ in range(1_000):
        rows = np.concatenate([rows_of[n] for n in rng.integers(len(rows_of), size=len(rows_of))])
        losses, f1 = zip(*(scores(each.rows(rows)) for each in both), strict=True)
        differences.append((losses[1] - losses[0], f1[1] - f1[0]))
    tail = 50 * (1 - found.confidence)
    low, high = np.percentile(differences, [tail, 100 - tail], axis=0)
    for place, measure in enumerate((found.log_loss, found.macro_f1)):
        expected = [by_scikit_learn(each)[place] for each in both]
        assert [measure.champion, measure.challenger] == pytest.approx(expected, abs=1e-6)
        width = high[place] - low[place]
        assert measure.interval == pytest.approx((low[place], high[place]), abs=0.12 * width)


def by_scikit_learn(predictions):
    labels, answers = predictions.label, predictions.predicted
    return (
        sklearn_metrics.log_loss(labels, predictions.probabilities, labels=[0, 1, 2]),
        sklearn_metrics.f1_score(labels, answers, average="macro", zero_division=0),
    )


def scores(predictions):
    labels, answers = predictions.label, predictions.predicted
    of_truth = predictions.probabilities[np.arange(len(labels)), labels]
    f1 = []
    for label in range(3):
        right = np.sum((labels == label) & (answers == label))
        either = np.sum(labels == label) + np.sum(answers == label)
        f1 += [2 * right / either] if either else []
    return -np.log(of_truth.astype(float)).mean(), np.mean(f1)


def test_the_order_of_the_clips_decides_nothing():
    here = world(12)
    both = [here.predictions(here.answers(seed=seed)) for seed in (1, 2)]
    order = np.random.default_rng(0).permutation(len(here.label))
    first = comparison.judge(*both, split="test", margins=MARGINS)
    assert first == comparison.judge(
        *(each.rows(order) for each in both), split="test", margins=MARGINS
    )


# ---- what a person reads


def report_of(verdict, **changes):
    values = {
        "champion": {"path": "export/3"},
        "challenger": {"path": "export/4"},
        "dataset": {"path": "dataset"},
        "split": "test",
        "margins": MARGINS,
        "verdict": verdict,
    }
    return gate_report.GateReport(**values | changes)


def test_the_page_and_the_table_say_why():
    here = world(13)
    here.genre = np.where(here.artist < 20, HOSTILE.encode(), here.genre.astype(f"S{len(HOSTILE)}"))
    verdict = judge(here, here.answers(seed=1), np.random.default_rng(0).normal(size=(600, 3)))
    report = report_of(verdict, override=OVERRIDE, notes=(HOSTILE,))
    page = Page(gate_report.page(report))
    assert not page.all("script") and not page.all("img")
    text = gate_report.table(report)
    for reason in verdict.reasons:
        assert f"refused: {reason}" in text
        assert " ".join(reason.split()) in page.words
    assert "refused, and overridden:" in page.words
    assert "worse" in text and re.search(r"test .*log loss .*\+0\.\d{3} to \+", text)
    values = json.loads(json.dumps(gate_report.to_dict(report), allow_nan=False))
    assert values["override"] == dataclasses.asdict(OVERRIDE)
    assert f"{OVERRIDE.by}, {OVERRIDE.at}" in page.words and OVERRIDE.at in text
    assert values["would_be_released"] and not values["passes"]
    assert not gate_report.to_dict(report_of(verdict))["would_be_released"]


# ---- the newest generation


def test_the_rows_of_the_newest_generation_that_has_records(tmp_path):
    folder = tmp_path / "dataset"
    info = support.with_digests(make_dataset(folder, num_shards=1, examples_a_shard=20), folder)
    (folder / "dataset_info.json").write_text(info.to_json())
    assert compared_exports.rows_of_newest(info, "test") is None
    for generation in (1, 2):
        part = tmp_path / f"part{generation}"
        make_dataset(part, num_shards=1, examples_a_shard=16 + generation, seed=generation)
        support.add(folder, part, generation=generation)
    info = dataset_reader.load_dataset_info(str(folder))
    assert compared_exports.rows_of_newest(info, "test") == (2, slice(32, 48))
    assert compared_exports.rows_of_newest(info, "train") == (2, slice(20 + 17, 20 + 17 + 18))
    empty = [dataclasses.replace(s, num_examples=0) if "000002" in s.file else s
             for s in info.splits["test"].shards]  # fmt: skip
    splits = info.splits | {"test": dataclasses.replace(info.splits["test"], shards=tuple(empty))}
    older = dataclasses.replace(info, splits=splits)
    assert compared_exports.rows_of_newest(older, "test") == (1, slice(16, 32))


# ---- what can't be compared


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate") / "dataset"
    make_dataset(folder, num_shards=1, examples_a_shard=16)
    return folder


def make_export(folder, dataset, **changes) -> str:
    """A version that says of itself what a model of the dataset would, and can't be asked."""
    info = dataset_reader.load_dataset_info(str(dataset))
    model = ModelInfo(
        class_names=info.class_names,
        thresholds=info.thresholds,
        signal=info.config.spectrogram,
        min_seconds=5.0,
        silence_dbfs=-60.0,
        dataset_fingerprint=info.fingerprint,
        evaluation=None,
    )
    text = json.dumps(dataclasses.asdict(dataclasses.replace(model, **changes)))
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    (folder / export_folder.INFO_FILE).write_text(text)
    return str(folder)


def open_both(champion, challenger, dataset, split="test"):
    return compared_exports.open_both(champion, challenger, dataset_dir=str(dataset), split=split)


def test_what_can_be_compared_and_what_is_said_of_it(dataset, tmp_path):
    champion = make_export(tmp_path / "export/1", dataset)
    challenger = make_export(
        tmp_path / "export/2", dataset, dataset_fingerprint="0" * 64, thresholds=(1, 2)
    )
    assert open_both(champion, champion, dataset).notes == ()
    notes = open_both(champion, challenger, dataset).notes
    assert len(notes) == 2 and all(note.startswith(challenger) for note in notes)
    assert "another dataset" in notes[0] and "other thresholds" in notes[1]


def test_a_model_of_the_dataset_before_it_grew_is_of_the_dataset(tmp_path):
    folder = tmp_path / "dataset"
    info = support.with_digests(make_dataset(folder, num_shards=1, examples_a_shard=16), folder)
    (folder / "dataset_info.json").write_text(info.to_json())
    export = make_export(tmp_path / "export/1", folder)
    make_dataset(tmp_path / "part", num_shards=1, examples_a_shard=16, seed=1)
    support.add(folder, tmp_path / "part", generation=1)
    assert open_both(export, export, folder).notes == ()


def test_what_can_not_be_compared(dataset, tmp_path):
    champion = make_export(tmp_path / "export/1", dataset)
    signal = dataset_reader.load_dataset_info(str(dataset)).config.spectrogram
    for name, changes, words in (
        ("2", {"class_names": ("low", "mid", "high")}, "its classes are low, mid, high"),
        ("3", {"class_names": ("high", "medium", "low")}, "its classes are high, medium, low"),
        ("4", {"signal": dataclasses.replace(signal, floor_db=60.0)}, "config.spectrogram"),
    ):
        other = make_export(tmp_path / "export" / name, dataset, **changes)
        for pair in ((champion, other), (other, champion)):
            with pytest.raises(UserFacingError, match=re.escape(words)) as raised:
                open_both(*pair, dataset)
            assert other in str(raised.value) and "\n" not in str(raised.value)


def test_versions_that_are_missing(dataset, tmp_path):
    champion = make_export(tmp_path / "export/1", dataset)
    for path, words in (
        ("export/9", "no such version; there are 1"),
        ("export", "a folder of versions; name one"),
        ("nowhere/1", "no exported model"),
    ):
        with pytest.raises(UserFacingError, match=f"--challenger=.*{words}"):
            open_both(champion, str(tmp_path / path), dataset)


def test_a_split_without_examples(dataset, tmp_path):
    folder = tmp_path / "dataset"
    shutil.copytree(dataset, folder)
    info = dataset_reader.load_dataset_info(str(folder))
    empty = Split(num_examples=0, class_counts={}, num_artists=0, shards=())
    info = dataclasses.replace(info, splits=info.splits | {"test": empty})
    (folder / "dataset_info.json").write_text(info.to_json())
    export = make_export(tmp_path / "export/1", dataset)
    with pytest.raises(UserFacingError, match="the split test has no examples"):
        open_both(export, export, folder)


def test_answers_that_are_no_probabilities(dataset, tmp_path):
    from trainer.run import exported_answers

    path = make_export(tmp_path / "export/1", dataset)
    export = open_both(path, path, dataset).champion
    good = np.array([[0.2, 0.3, 0.5], [1, 0, 0]], np.float32)
    exported_answers.check_answers(good, export=export)
    for bad in (good * np.nan, good * 2, good - 1, good[:, :2], good[0]):
        with pytest.raises(UserFacingError, match="export/1: "):
            exported_answers.check_answers(bad, export=export)


# ---- the command


def test_what_a_person_may_type_wrong(dataset, tmp_path):
    export = make_export(tmp_path / "export/1", dataset)

    def gate(*flags):
        both = (f"--champion={export}", f"--challenger={export}", f"--dataset_dir={dataset}")
        return run_module("trainer.gate", *both, f"--output_dir={tmp_path / 'out'}", *flags)

    assert_refused(gate("--override= "), "--override")
    assert_refused(gate("--by=Ada"), "--by", "--override")
    assert_refused(gate("--margin_macro_f1=-1"), "--margin_macro_f1=-1")
    assert_refused(gate(f"--challenger={tmp_path}/export/7"), "export/7", "there are 1")
    assert_refused(gate(), export, "can't be asked by the signature examples")
    assert not list(tmp_path.glob("out/*"))
