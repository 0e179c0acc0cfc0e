"""A network that takes more than sound: every input by name, and each may be left out."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from common import export_folder, metadata
from common.dataset_config import DatasetConfig
from common.inputs import Inputs
from common.records import decode_example
from common.spectrogram import SpectrogramParams
from configs import dataset_artist, fusion
from serving.model.exported_model import ExportedModel
from serving.model.verification import Record, Verifier
from tests.support.datasets_with_inputs import serialized, write_dataset
from trainer.model import export, network
from trainer.train_config import TrainConfig

INPUTS = Inputs(
    categories=("genre", "licence"),
    numbers=("date_created", "tempo"),
    texts=("title",),
    artist_history=True,
    album_history=True,
    chroma=True,
    tempo=True,
)
# Half of a clip: what is taken by name does not depend on how long they are.
SIGNAL = SpectrogramParams(num_samples=330_460)
CONFIG = dataclasses.replace(
    DatasetConfig.from_dict(dataset_artist.get_config().to_dict()), spectrogram=SIGNAL
)
OPTIONAL = {
    "genre",
    "category_licence",
    "text_title",
    "date_created",
    "number_tempo",
    "artist_tracks",
    "artist_mean_log_listens",
    "artist_album_tracks",
    "artist_album_mean_log_listens",
}


def make_record(rng) -> dict:
    return {
        "spectrogram": rng.integers(0, 256, SIGNAL.shape, np.uint8),
        "label": int(rng.integers(3)),
        "genre": [b"", b"Rock", b"Folk"][rng.integers(3)],
        "date_created": int(rng.choice([-1, 10**8, 10**9])),
        "category/licence": [None, b"CC0", b"BY"][rng.integers(3)],
        "number/tempo": [None, float(rng.uniform(60, 200))][rng.integers(2)],
        "text/title": [None, b"Blue sky", b"Rain"][rng.integers(3)],
        "artist_tracks": [None, 2][rng.integers(2)],
        "artist_mean_log_listens": float(rng.uniform(3, 9)),
        "artist_album_tracks": [None, 1][rng.integers(2)],
        "artist_album_mean_log_listens": float(rng.uniform(3, 9)),
        "chroma": rng.integers(0, 256, (12, SIGNAL.shape[1]), np.uint8),
        "tempo": rng.integers(0, 256, 384, np.uint8),
    }


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """The export of a network of random weights, and the records that it was made for."""
    folder = tmp_path_factory.mktemp("fused")
    rng = np.random.default_rng(1)
    rows = {name: [make_record(rng) for _ in range(12)] for name in ("train", "validation", "test")}
    info = write_dataset(folder / "dataset", inputs=INPUTS, splits=rows, config=CONFIG)
    config = TrainConfig.from_dict(fusion.get_config().to_dict())
    config = dataclasses.replace(
        config, network=dataclasses.replace(config.network, width=8, texture_units=8, members=1)
    )
    weights = network.build(config.network, info).model.get_weights()
    weights = [weight + rng.normal(0, 0.1, weight.shape) for weight in weights]
    weights = [np.abs(w) if w.ndim == 1 else w for w in weights]  # variances are among them
    candidate = export.write_candidate(
        weights, config, info, None, str(folder / "export"), dataset_dir=str(folder / "dataset")
    )
    model = ExportedModel(str(folder / "export" / candidate))
    (shard,) = info.splits["test"].shards
    stored = tf.data.TFRecordDataset(str(folder / "dataset" / shard.file)).as_numpy_iterator()
    records = [
        Record(place, row["spectrogram"], data)
        for place, (row, data) in enumerate(zip(rows["test"], stored, strict=True))
    ]
    return model, records


def test_each_input_has_a_name_and_a_default_that_says_unknown(fused):
    model, _ = fused
    with open(f"{model.path}/saved_model.pb", "rb") as file:
        (graph,) = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs
    for name, own in export.SIGNATURES.items():
        definition = graph.signature_def[name]
        optional = set() if name == "examples" else OPTIONAL
        optional = optional | ({"chroma", "tempo"} if name == "spectrogram" else set())
        assert set(definition.inputs) == {own} | optional
        assert set(definition.defaults) == optional
        for default in definition.defaults.values():
            value = tf.make_ndarray(default)
            assert len(value) == 1
            assert np.isnan(value).all() if value.dtype == np.float32 else not value.any()


def test_sound_alone_is_enough_and_is_unknown_metadata(fused):
    model, _ = fused
    noise = np.random.default_rng(1).normal(0, 0.1, (2, 50_000)).astype(np.float32)
    alone = model.probabilities_of_waveforms(noise)
    told = model.probabilities_of_waveforms(noise, [{}, {}])
    np.testing.assert_allclose(alone, told, atol=1e-6)
    stranger = [{"genre": "Zydeco", "licence": "mine"}] * 2
    # It is known that there is a genre, but not one of them.
    np.testing.assert_allclose(alone, model.probabilities_of_waveforms(noise, stranger), atol=1e-6)
    one = model.probabilities_of_waveforms(noise, [{"genre": "Rock"}, {}])
    assert np.abs(one[0] - alone[0]).max() > 1e-3
    np.testing.assert_allclose(one[1], alone[1], atol=1e-6)


def test_every_input_tells_in_every_signature(fused):
    model, records = fused
    noise = np.random.default_rng(1).normal(0, 0.1, (1, SIGNAL.num_samples)).astype(np.float32)
    wav = tf.audio.encode_wav(noise.T, 22_050).numpy()
    known = {
        "genre": "Folk",
        "licence": "BY",
        "date_created": 1e9,
        "tempo": 180.0,
        "title": "Rain",
        "artist_tracks": 2.0,
        "artist_mean_log_listens": 9.0,
    }
    for signature, own in (
        ("serving_default", noise),
        ("wav", [wav]),
        ("spectrogram", records[0].picture[np.newaxis]),
    ):

        def ask(told, signature=signature, own=own):
            inputs = {export.SIGNATURES[signature]: own, **metadata.columns([told], INPUTS)}
            return model.ask(signature, inputs)["probabilities"].numpy()

        everything = ask(known)
        for name in known:
            if name == "artist_tracks":
                continue  # with the mean alone the artist is unknown
            less = {key: value for key, value in known.items() if key != name}
            assert np.abs(ask(less) - everything).max() > 1e-5, (signature, name)


def test_an_example_may_hold_the_picture_alone(fused):
    model, records = fused
    bare = [serialized({"spectrogram": record.picture}) for record in records]
    answers = model.ask("examples", {"examples": bare})["probabilities"].numpy()
    pictures = np.stack([record.picture for record in records])
    np.testing.assert_allclose(answers, model.probabilities_of_pictures(pictures), atol=1e-5)
    full = model.ask("examples", {"examples": [r.serialized for r in records]})
    assert np.abs(full["probabilities"].numpy() - answers).max() > 1e-3


def test_verification_compares_what_the_records_carry(fused):
    model, records = fused
    references = json.loads(
        export_folder.files.read_text(f"{model.path}/{export_folder.REFERENCES_FILE}")
    )
    verifier = Verifier(model)
    windows = list(
        np.random.default_rng(2).normal(0, 0.1, (2, SIGNAL.num_samples)).astype(np.float32)
    )
    for check in (
        verifier.references(records, references),
        verifier.examples(records),
        verifier.wavs(windows, stereo=False),
        verifier.batches(windows, records[:3]),
        verifier.lengths(),
        verifier.silence(),
        verifier.warm_up_file(),
        verifier.stock_ops(),
        verifier.distributions(),
    ):
        assert check.passed, check
    assert verifier.references(records, references).compared == 2 * len(records)


def test_what_it_takes_is_said(fused):
    model, records = fused
    assert model.info.inputs == INPUTS
    assert set(model.info.vocabularies["licence"]) == {"CC0", "BY"}
    card = export_folder.files.read_text(f"{model.path}/{export_folder.CARD_FILE}")
    assert "`licence` (category)" in card and "hears chroma and tempo" in card
    row = metadata.of_record(decode_example(records[0].serialized), INPUTS, model.info.signal)
    assert row.keys() == metadata.unknown(INPUTS, model.info.signal).keys()
