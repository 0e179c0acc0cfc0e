"""What is told of a track, from the client, the command and the API to the model and back."""

import asyncio
import concurrent.futures
import dataclasses
import json
import types

import numpy as np
import pytest

from common import metadata
from common.errors import UserFacingError
from common.inputs import Inputs
from common.model_info import ModelInfo
from common.spectrogram import SpectrogramParams
from configs import dataset_artist
from serving import predict
from serving.client import Client
from serving.model.predictions import Predictions
from serving.model.song import Song, Window
from serving.web.service import PredictionService
from serving.web.upload import Uploaded

INPUTS = Inputs(categories=("genre",), numbers=("tempo",), texts=("title",), chroma=True)
PARAMS = SpectrogramParams(**dataset_artist.get_config().spectrogram.to_dict())
INFO = ModelInfo(
    class_names=("low", "high"),
    thresholds=(10,),
    signal=PARAMS,
    min_seconds=1.0,
    silence_dbfs=-60.0,
    dataset_fingerprint="",
    evaluation=None,
    inputs=INPUTS,
    vocabularies={"genre": ("Rock",)},
)


def test_the_description_survives_json():
    text = json.dumps(dataclasses.asdict(INFO))
    assert ModelInfo.from_json(text) == INFO
    older = {k: v for k, v in json.loads(text).items() if k not in ("inputs", "vocabularies")}
    assert ModelInfo.from_json(json.dumps(older)).inputs == Inputs()


class Transport:
    """A server that answers with the number of known genres, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def predict(self, inputs, *, timeout):
        self.asked.append(inputs)
        known = (inputs["genre"] == b"Rock").astype(np.float32)
        return Predictions(np.stack([1 - known, known], axis=1), "1")


def test_a_request_names_every_input_for_each_of_its_pictures():
    """TensorFlow Serving would put a default of one row beside a batch of many."""
    with Client("grpc://127.0.0.1:9", INFO) as client:
        client._transport.close()
        client._transport = transport = Transport()
        transport.close = lambda: None
        pictures = np.zeros((40, *PARAMS.shape), np.uint8)
        told = metadata.columns([{"genre": "Rock"}, *[{}] * 39], INPUTS)
        answers = client.predict(pictures, told)
        assert answers.probabilities[:, 1].tolist() == [1.0] + [0.0] * 39
        client.predict(pictures[:1])
    for asked, size in zip(transport.asked, (32, 8, 1), strict=True):
        assert asked.keys() == {"spectrogram", "genre", "number_tempo", "text_title", "chroma"}
        assert {len(rows) for rows in asked.values()} == {size}


def test_a_file_of_inputs(tmp_path):
    path = tmp_path / "inputs.json"

    def read(values):
        path.write_text(json.dumps(values))
        return predict.read_inputs(str(path), INFO, ["a.mp3", "b.mp3"])

    assert read({"a.mp3": {"genre": "Rock", "tempo": 90}}) == {
        "a.mp3": {"genre": "Rock", "tempo": 90.0}
    }
    assert read({"genre": "Rock"}) == {name: {"genre": "Rock"} for name in ("a.mp3", "b.mp3")}
    for values, problem in (
        ([], "not an object"),
        ({"c.mp3": {}}, "c.mp3 is no file that is asked about"),
        ({"a.mp3": {"listens": 3}}, "no such input"),
        ({"a.mp3": {"tempo": "fast"}}, "tempo: 'fast' is not a number"),
    ):
        with pytest.raises(UserFacingError, match=problem):
            read(values)
    path.write_text("{")
    with pytest.raises(UserFacingError, match="not JSON"):
        predict.read_inputs(str(path), INFO, [])
    with pytest.raises(UserFacingError, match="No such file"):
        predict.read_inputs(str(tmp_path / "none"), INFO, [])


def test_the_answer_says_what_each_input_adds():
    class Version:
        info = INFO

        def submit(self, pictures, beside):
            assert {len(rows) for rows in beside.values()} == {len(pictures)}
            known = (beside["genre"] == b"Rock") * 0.5 + ~np.isnan(beside["number_tempo"]) * 0.25
            future = concurrent.futures.Future()
            rows = np.stack([1 - known, known], axis=1).astype(np.float32)
            future.set_result(Predictions(rows, "1"))
            return future

    heard = {"spectrogram": np.zeros(PARAMS.shape, np.uint8), "chroma": np.zeros((12, 159))}
    whole = Song(30.0, [Window(0.0, heard)], 0)
    told = {"genre": "Rock", "tempo": 90.0}
    service = object.__new__(PredictionService)
    service._observe = lambda *_: None
    version = Version()
    version.number, version.decoders = 1, types.SimpleNamespace(dispatch=lambda _: whole)
    counted = []
    version.songs = types.SimpleNamespace(add=lambda _, by_sound: counted.append(list(by_sound)))
    answer = asyncio.run(
        service._predict_song(version, Uploaded(b"", told), explain=True)
    ).model_dump()
    assert answer["label"] == "high" and answer["probabilities"]["high"] == 0.75
    assert answer["sound_alone"] == {"low": 1.0, "high": 0.0}
    assert counted == [[1.0, 0.0]]  # the training's reference knows no inputs either
    assert answer["inputs"] == [
        {"name": "genre", "value": "Rock", "weight": 0.5},
        {"name": "tempo", "value": 90.0, "weight": 0.25},
    ]
    assert len(answer["explanation"]) == 30
