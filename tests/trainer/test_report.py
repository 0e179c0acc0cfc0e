"""The report as a browser reads it: parsed back, with hostile and with scant data."""

import base64
import dataclasses
import html.parser
import io
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf

from common import dataset_info
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo, Shard, Split
from common.spectrogram import COLORMAP
from configs import dataset_artist, six_conv_rgb
from trainer.evaluation import metrics, plots, report
from trainer.evaluation.epochs import EpochMetrics
from trainer.evaluation.predictions import Predictions
from trainer.network_config import PosterConfig
from trainer.train_config import TrainConfig

NAMES = ("low", "medium", "high")
CONFIG = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
HOSTILE = "</td><script>alert(1)</script>\"'><img src=https://example.com onerror=alert(1)>&amp;"
HISTORY = [
    EpochMetrics(
        epoch=epoch,
        loss=1.1 / epoch,
        accuracy=0.4 + 0.1 * epoch,
        validation_loss=1.2 / epoch,
        validation_accuracy=0.3 + 0.1 * epoch,
        learning_rate=1e-3,
    )
    for epoch in (1, 2, 3)
]


class Page(html.parser.HTMLParser):
    """What a browser sees: the text, and each element with its attributes."""

    def __init__(self, source: str):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def make_info(**counts: int) -> DatasetInfo:
    values = dataset_artist.get_config().to_dict()
    config = DatasetConfig.from_dict(values)
    return DatasetInfo(
        format_version=1,
        fingerprint="0123abcd" * 8,
        config=config,
        features=dataset_info.features(config),
        class_names=NAMES,
        thresholds=(1_000, 3_500),
        splits={
            name: Split(
                num_examples=count,
                class_counts={"low": count, "medium": 0, "high": 0},
                num_artists=count,
                shards=(),
            )
            for name, count in counts.items()
        },
        rejected={"silent": 3},
        missing_audio=2,
        split_check={"by": "artist", "groups_in_two_splits": 0, "artists_in_two_splits": 0},
        catalog_sha256="fedc9876" * 8,
        versions={"numpy": "2.0"},
    )


def make_predictions(size: int, *, genre: str = "Rock", **columns) -> Predictions:
    rng = np.random.default_rng(size)
    drawn = {
        "probabilities": rng.dirichlet([1, 1, 1], size).astype(np.float32),
        "label": rng.integers(3, size=size),
        "listens": rng.integers(0, 9_999, size),
        "artist_id": np.arange(size) // 2,
        "track_id": np.arange(100, 100 + size),
        "genre": np.array([genre.encode()] * size, dtype=object),
    }
    return Predictions(**drawn | columns)


def make_page(
    predictions,
    *,
    info=None,
    config=CONFIG,
    history=HISTORY,
    pictures=(),
    split="test",
    of_metadata=None,
    importance=None,
) -> str:
    evaluation = None
    if predictions is not None:
        training = {b"Rock": np.array([0, 2, 0]), b"Folk": np.array([0, 0, 1])}
        evaluation = metrics.evaluate(
            predictions, training, NAMES, of_metadata=of_metadata, importance=importance
        )
    return report.page(
        config=config,
        info=info or make_info(train=9, validation=9, test=9),
        num_parameters=3_345_795,
        history=history,
        split=split,
        predictions=predictions,
        evaluation=evaluation,
        pictures=pictures,
    )


def test_nothing_from_the_data_becomes_markup():
    info = make_info(train=9, validation=9, test=9)
    info = dataclasses.replace(info, versions={HOSTILE: HOSTILE})
    page = Page(make_page(make_predictions(40, genre=HOSTILE), info=info))
    assert page.text.count(HOSTILE[:50]) == report.NUM_MISTAKES + 3  # and the genre has a row
    assert not page.all("script")
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    (policy,) = [meta for meta in page.all("meta") if "http-equiv" in meta]
    assert policy["content"].startswith("default-src 'none'")


def test_what_a_reader_who_does_not_see_gets():
    page = Page(make_page(make_predictions(40), pictures=[np.zeros((102, 159), np.uint8)] * 12))
    assert len(page.all("img")) == 4 + 12
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_the_figures_are_those_of_the_evaluation():
    predictions = make_predictions(200)
    words = Page(make_page(predictions)).words
    correct = predictions.probabilities.argmax(axis=1) == predictions.label
    assert f"{100 * correct.mean():.1f} % of 200 test clips right" in words
    assert "of 100 artists, none of them heard in training" in words
    assert f"majority class {100 * (predictions.label == 1).mean():.1f} %" in words
    assert "parameters 3,345,795" in words
    assert "learning_rate 0.0005" in words
    assert "0123abcd" * 8 in words


def test_the_table_of_the_terminal_has_the_scores_of_each_baseline():
    predictions = make_predictions(200)
    boosted = np.random.default_rng(1).dirichlet([1, 1, 1], 200)
    training = {b"Rock": np.array([0, 2, 0]), b"Folk": np.array([0, 0, 1])}
    evaluation = metrics.evaluate(predictions, training, NAMES, of_metadata=boosted)
    lines = report.table(evaluation, split="test", num_artists=100).splitlines()
    for name, key in (("metadata alone", "metadata"), ("majority class", "majority")):
        (line,) = (line for line in lines if line.strip().startswith(name))
        scores = evaluation.baseline_scores[key]
        assert f"{100 * scores.accuracy:.1f} %" in line and f"{scores.log_loss:.3f}" in line
    page = Page(make_page(predictions, of_metadata=boosted))
    scores = evaluation.baseline_scores["metadata"]
    assert f"metadata alone {100 * scores.accuracy:.1f} %" in page.words
    assert "gradient boosting on genre, date_created" in page.words


def test_what_each_input_is_worth():
    def of_input(increase: float, decrease: float) -> metrics.Importance:
        return metrics.Importance(
            num_examples=200,
            log_loss_increase=increase,
            log_loss_increase_ci95=(increase - 0.1, increase + 0.1),
            accuracy_decrease=decrease,
        )

    importance = {"category/licence": of_input(0.4, 0.25), "spectrogram": of_input(-0.02, -0.005)}
    page = Page(make_page(make_predictions(200), importance=importance))
    assert "category/licence +0.400 +0.300 to +0.500 -25.0 %" in page.words
    assert "spectrogram -0.020 -0.120 to +0.080 +0.5 %" in page.words
    bars = [div["style"] for div in page.all("div") if div.get("class") == "bar"]
    assert bars[-2:] == ["width:100.00%", "width:0.00%"]
    assert "What each input is worth" not in Page(make_page(make_predictions(200))).words


def test_who_was_heard_in_training():
    info = make_info(train=9, validation=9, test=9)
    assert "all of them heard" in Page(make_page(make_predictions(9), split="train")).words
    leaky = dataclasses.replace(info, split_check=info.split_check | {"artists_in_two_splits": 4})
    assert "some of them heard" in Page(make_page(make_predictions(9), info=leaky)).words


def test_the_verdict():
    label = make_predictions(200).label

    def words(predicted):
        sure = np.eye(3, dtype=np.float32)[predicted]
        return Page(make_page(make_predictions(200, probabilities=sure))).words

    assert "That is better than" in words(label)
    assert "That is worse than" in words((label + 1) % 3)
    assert "That is not told apart from" in words(np.ones(200, int))  # the majority class
    assert "may be too narrow" in Page(make_page(make_predictions(20))).words


@pytest.mark.parametrize(
    ("convolutions", "color", "poster"),
    [(2, "mono", "42.0 %"), (4, "mono", "51.0 %"), (4, "rgb", "53.0 %"), (6, "rgb", "61.0 %")],
)
def test_the_posters_figure(convolutions, color, poster):
    network = PosterConfig(convolutions=convolutions, color=color)
    config = dataclasses.replace(CONFIG, network=network)
    assert f"on the poster {poster}" in Page(make_page(make_predictions(9), config=config)).words


def test_a_network_that_is_not_on_the_poster():
    config = dataclasses.replace(CONFIG, network=PosterConfig(convolutions=3, color="rgb"))
    words = Page(make_page(make_predictions(9), config=config)).words
    assert "on the poster" not in words and "reports no figure" in words


def test_one_clip_of_nobody():
    mistake = (make_predictions(1).probabilities.argmax(axis=1) + 1) % 3
    predictions = make_predictions(1, genre="", artist_id=np.array([-1]), label=mistake)
    words = Page(make_page(predictions)).words
    assert "0.0 % of 1 test clip right" in words
    assert "of 1 artist," in words and "genre unknown" in words and "is unknown, since" in words


def test_no_mistakes():
    predictions = make_predictions(5, label=make_predictions(5).probabilities.argmax(axis=1))
    assert "There are none." in Page(make_page(predictions)).words


def test_empty_splits():
    history = [dataclasses.replace(HISTORY[0], validation_loss=None, validation_accuracy=None)]
    info = make_info(train=9, validation=0, test=0)
    page = Page(make_page(None, info=info, history=history))
    assert "The test split has no examples" in page.words
    assert "for want of validation" in page.words
    assert len(page.all("img")) == 2


def test_the_pictures_of_tracks_with_several_clips(tmp_path):
    info = make_info(train=9, validation=9, test=6)
    height, width = info.config.spectrogram.shape
    stored = [(5, 10), (5, 11), (3, 12), (3, 13), (3, 14), (9, 15)]  # track and level of a picture
    shard = tmp_path / "test.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for track_id, level in stored:
            picture = np.full((height, width), level, np.uint8).tobytes()
            values = dict.fromkeys(("label", "listens", "artist_id", "date_created"), 0)
            features = {
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                for name, value in (values | {"track_id": track_id}).items()
            }
            for name, value in (("spectrogram", picture), ("genre", b"")):
                features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            writer.write(
                tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            )
    shards = (Shard(file=shard.name, num_examples=6, bytes=shard.stat().st_size, sha256=""),)
    info.splits["test"] = dataclasses.replace(info.splits["test"], shards=shards)
    predictions = make_predictions(
        6,
        track_id=np.array([5, 5, 3, 3, 3, 9]),
        label=np.array([0, 0, 0, 0, 0, 0]),
        probabilities=np.array(
            [[0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.8, 0.2], [0.05, 0.95], [0.6, 0.4]]
        ),
    )
    pictures = report.pictures_of_mistakes(info, str(tmp_path), "test", predictions)
    assert [int(picture[0, 0]) for picture in pictures] == [14, 11]


def test_the_same_training_gives_the_same_bytes():
    predictions = make_predictions(40)
    assert make_page(predictions) == make_page(predictions)


def test_the_pictures_are_svgs_that_turn_with_the_screen():
    page = Page(make_page(make_predictions(40)))
    for image in page.all("img"):
        head, _, data = image["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        svg = base64.b64decode(data).decode()
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in svg and "currentColor" in svg
        assert "<dc:date>" not in svg


def test_a_thumbnail_shows_the_lowest_band_at_the_bottom():
    picture = np.arange(102 * 159, dtype=np.uint32).reshape(102, 159) * 255 // (102 * 159)
    image = matplotlib.image.imread(io.BytesIO(plots.thumbnail(picture.astype(np.uint8))))
    colors = matplotlib.colormaps[COLORMAP](picture[::-1].astype(np.uint8))
    np.testing.assert_allclose(image, colors, atol=1 / 255)
