"""dataset_info.json and model_info.json of strangers: taken whole, or refused in a line."""

import copy
import json
import math
from typing import Any

import pytest

from common import dataset_reader, records
from common.dataset_config import DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.generations import Manifest
from common.model_info import ModelInfo
from configs import dataset_artist
from tests.fuzz.targets import MODEL, a_manifest, an_info

DEEP = "[" * 200_000
# {what: (place in the object, value)}
WRONG_DATASET: dict[str, tuple[tuple[Any, ...], Any]] = {
    "no object": ((), []),
    "a split that is not there": (("splits",), {}),
    "no list of shards": (("splits", "train", "shards"), 3),
    "a shard elsewhere": (("splits", "train", "shards", 0, "file"), "../secret"),
    "a shard anywhere": (("splits", "train", "shards", 0, "file"), "/etc/passwd"),
    "the folder above": (("splits", "train", "shards", 0, "file"), ".."),
    "a shard in a bucket": (("splits", "train", "shards", 0, "file"), "gs://other/shard"),
    "a name cut off by a NUL": (("splits", "train", "shards", 0, "file"), "a\0b"),
    "a shard without a name": (("splits", "train", "shards", 0, "file"), ""),
    "a name that is a number": (("splits", "train", "shards", 0, "file"), 3),
    "a size below 0": (("splits", "train", "shards", 0, "bytes"), -1),
    "a text for a size": (("splits", "train", "shards", 0, "bytes"), "9"),
    "a truth for a count": (("splits", "train", "num_examples"), True),
    "a fraction of a record": (("splits", "train", "shards", 0, "num_examples"), 0.5),
    "a list for counts": (("splits", "train", "class_counts"), ["low"]),
    "no number": (("thresholds",), [float("nan"), 1]),
    "a text for a class": (("class_names",), "low"),
    "numbers for classes": (("class_names",), [1, 2, 3]),
    "a number for a fingerprint": (("fingerprint",), 3),
    "a list for features": (("features",), []),
    "a text for the width": (("config", "spectrogram", "num_mels"), "102"),
    "a shape of texts": (("features", "spectrogram", "shape"), ["a"]),
    "a text for what was rejected": (("rejected",), "none"),
    "a list for the statistics": (("statistics",), []),
    "a text for a quantile": (("statistics", "numbers", "duration", "quantiles"), "a"),
    "numbers for categories": (("statistics", "categories", "genre"), [1]),
}
WRONG_MODEL: dict[str, tuple[tuple[Any, ...], Any]] = {
    "no object": ((), []),
    "numbers for a vocabulary": (("vocabularies", "genre"), [1]),
    "a text for a vocabulary": (("vocabularies", "genre"), "Rock"),
    "a list of vocabularies": (("vocabularies",), ["genre"]),
    "a text for generations": (("dataset_generations",), "0"),
    "a truth for a generation": (("dataset_generations",), [True]),
    "inputs that are no object": (("inputs",), "genre"),
    "a list for the signal": (("signal",), []),
    "a text for a rate": (("signal", "sample_rate"), "22050"),
    "no bands": (("signal", "num_mels"), 0),
    "a list for the reference": (("reference",), []),
    "counts for a histogram": (("reference", "level"), [1, 2]),
    "a text for an edge": (("reference", "level", "edges"), ["1", 2]),
    "edges that fall": (("reference", "motion", "edges"), [2, 1]),
    "a bin without a count": (("reference", "contrast", "counts"), [1, 2]),
    "less than no clip": (("reference", "brightness", "counts"), [1, -1, 3]),
    "no clips": (("reference", "expected_class", "counts"), [0, 0, 0]),
    "a class without a count": (("reference", "labels"), [1, 2]),
}


def changed(values: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    values = copy.deepcopy(values)
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    assert place[-1] in inner or isinstance(inner, list)
    inner[place[-1]] = value
    return values


def test_as_it_is_written():
    assert DatasetInfo.from_json(json.dumps(an_info())).num_examples == 3
    assert Manifest.from_json(json.dumps(a_manifest())).num_examples == 3
    assert ModelInfo.from_json(json.dumps(MODEL)).class_names == ("low", "medium", "high")


@pytest.mark.parametrize("what", WRONG_DATASET)
def test_a_dataset_that_is_none(what):
    text = json.dumps(changed(an_info(), *WRONG_DATASET[what]))
    with pytest.raises(UserFacingError, match="some info: "):
        DatasetInfo.from_json(text, name="some info")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", (1, 2, 3)),
        ("class_names", ("", "medium", "high")),  # which no model may have
        ("split_sizes", (0.8, "a", 0.1)),
        ("split_sizes", (0.8, 0.2)),
        ("thresholds", ("a", "b")),
        ("clips_per_track", -1),
        ("min_seconds", math.inf),
        ("silence_dbfs", math.nan),
    ],
)
def test_a_config_that_no_description_may_have_is_refused_at_once(key, value):
    values = dataset_artist.get_config().to_dict()
    with pytest.raises(UserFacingError, match=f"^config.{key}: "):
        DatasetConfig.from_dict(values | {key: value})


@pytest.mark.parametrize("what", WRONG_MODEL)
def test_a_model_that_is_none(what):
    text = json.dumps(changed(MODEL, *WRONG_MODEL[what]))
    with pytest.raises(UserFacingError, match="some info: "):
        ModelInfo.from_json(text, name="some info")


@pytest.mark.parametrize("cls", [DatasetInfo, Manifest, ModelInfo])
@pytest.mark.parametrize("text", ["", "\xff", "[]", "null", DEEP, '{"a":' * 100_000, "9" * 10_000])
def test_a_text_that_is_no_description(cls, text):
    with pytest.raises(UserFacingError, match="some info: not a "):
        cls.from_json(text.encode("latin-1"), name="some info")


def test_a_record_that_is_no_example_is_named(tmp_path):
    info = DatasetInfo.from_json(json.dumps(an_info()))
    for split in info.splits.values():
        data = records.frame(records.encode_example({"a": 1})) + records.frame(b"\xff")
        (tmp_path / split.shards[0].file).write_bytes(data)
    with pytest.raises(UserFacingError, match=r"train\.tfrecord-.*, record 1: not a tf\.Example"):
        list(dataset_reader.read_examples(info, str(tmp_path)))
