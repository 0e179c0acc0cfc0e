"""What a record may carry beside the picture, and what is refused."""

import json

import pytest

from common import dataset_info, inputs, records
from common.dataset_config import SPLITS, DatasetConfig
from common.errors import UserFacingError
from common.inputs import Inputs, InputStatistics, NumberStatistics, SpectrogramStatistics
from configs import dataset_artist

AFTERWARDS = [
    "listens",
    "favorites",
    "interest",
    "comments",
    "album_listens",
    "album_favorites",
    "album_comments",
    "artist_listens",
    "artist_favorites",
    "artist_comments",
    "track_listens",
    "track_interest",
    "song_hotttnesss",
    "artist_familiarity_rank",
    "social_features_artist_discovery",
    "song_currency",
    "subset",
    "set_split",
    "label",
]


@pytest.mark.parametrize("kind", ["categories", "numbers", "texts"])
@pytest.mark.parametrize("name", AFTERWARDS)
def test_what_is_known_only_afterwards_is_refused_by_name(kind, name):
    with pytest.raises(UserFacingError, match=f"config.inputs.{kind}: {name} is known only after"):
        Inputs.from_dict({kind: ["bit_rate", name]})


@pytest.mark.parametrize("name", ["genre", "tempo", "artist_location", "album_tracks", "interests"])
def test_what_is_known_beforehand_is_taken(name):
    assert Inputs(categories=(name,)).categories == (name,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"categories": ["genre", "genre"]}, "categories: genre stands there twice"),
        ({"categories": "genre"}, "categories: 'genre' is not a list"),
        ({"numbers": ["Bit rate"]}, "numbers: 'Bit rate' is not a name"),
        ({"numbers": ["x" * 65]}, "is not a name"),
        ({"numbers": ["artist_tracks"]}, "is what artist_history gives"),
        ({"numbers": ["artist_album_tracks"]}, "is what album_history gives"),
        ({"texts": ["track_id"]}, "names a track"),
        ({"chroma": 1}, "chroma: 1 is not True or False"),
        ({"lyrics": ()}, "lyrics: unknown"),
        ([], "not a set of inputs"),
    ],
)
def test_what_is_no_input_is_refused(values, message):
    with pytest.raises(UserFacingError, match=message) as error:
        Inputs.from_dict(values)
    assert "\n" not in str(error.value)


def test_values_come_back():
    given = Inputs(categories=("genre", "place"), numbers=("date_created",), tempo=True)
    assert Inputs.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    assert given.category_features == {"genre": "genre", "place": "category/place"}
    assert given.number_features == {"date_created": "date_created"}
    assert list(Inputs(artist_history=True, album_history=True).number_features) == [
        "artist_tracks",
        "artist_mean_log_listens",
        "artist_album_tracks",
        "artist_album_mean_log_listens",
    ]


def dataset_config(**values) -> DatasetConfig:
    return DatasetConfig.from_dict(dataset_artist.get_config().to_dict() | {"inputs": values})


def test_a_config_without_further_inputs_reads_as_it_did_before_there_were_any():
    config = dataset_config()
    assert "inputs" not in config.to_dict()
    assert DatasetConfig.from_dict(config.to_dict()) == config
    more = dataset_config(numbers=("duration",))
    assert "album_history" not in more.to_dict()["inputs"]  # which came later than the others
    of_album = dataset_config(album_history=True)
    assert DatasetConfig.from_dict(of_album.to_dict()) == of_album
    assert DatasetConfig.from_dict(more.to_dict()) == more
    assert dataset_info.fingerprint(more, {}) != dataset_info.fingerprint(config, {})


def test_the_description_carries_inputs_and_statistics():
    config = dataset_config(
        categories=("genre", "place"), numbers=("duration",), texts=("title",), artist_history=True
    )
    features = dataset_info.features(config)
    assert features["category/place"] == {"dtype": "bytes", "shape": [], "optional": True}
    assert features["number/duration"]["dtype"] == "float32"
    assert features["artist_tracks"]["dtype"] == "int64"
    assert features["artist_mean_log_listens"]["dtype"] == "float32"
    assert features["genre"] == {"dtype": "bytes", "shape": []}
    statistics = InputStatistics(
        spectrogram=SpectrogramStatistics(mean=(1.5, 2.0), deviation=(0.5, 0.25)),
        numbers={
            "duration": NumberStatistics(count=2, mean=1.0, deviation=0.5, quantiles=(0.0,) * 33)
        },
        categories={"genre": ("Rock", "Pop"), "place": ()},
        texts={"title": ("love",)},
    )
    info = dataset_info.DatasetInfo(
        format_version=dataset_info.FORMAT_VERSION,
        fingerprint="",
        config=config,
        features=features,
        class_names=config.class_names,
        thresholds=config.thresholds,
        splits={
            name: dataset_info.Split(num_examples=0, class_counts={}, num_artists=0, shards=())
            for name in SPLITS
        },
        rejected={},
        missing_audio=0,
        split_check={},
        catalog_sha256="",
        versions={},
        statistics=statistics,
    )
    assert dataset_info.DatasetInfo.from_json(info.to_json()) == info
    older = json.loads(info.to_json())
    del older["statistics"]
    assert dataset_info.DatasetInfo.from_json(json.dumps(older)).statistics is None


def test_a_record_holds_floats():
    values = {"number/duration": 168.5, "label": 1, "text/title": "Fôod".encode()}
    assert records.decode_example(records.encode_example(values)) == values


def test_tokens_are_words_in_small_letters():
    assert inputs.tokens("['AWOL', 'Hip-Hop'] Ça_va 2") == ["awol", "hip", "hop", "ça", "va", "2"]
    assert inputs.tokens("[]") == []
