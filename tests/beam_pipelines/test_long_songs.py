"""Of a long song the job reads and decodes a part, and writes what it would write of all of it."""

import dataclasses

import pytest

from beam_pipelines import clip_record
from beam_pipelines.decoder_process import Decoder
from beam_pipelines.shard_writer import Songs
from common import audio, clips
from common.catalogue import Track
from common.dataset_config import DatasetConfig
from common.spectrogram import SpectrogramParams
from configs import dataset_artist
from tests.support import made_songs

CONFIG = dataclasses.replace(
    DatasetConfig.from_dict(dataset_artist.get_config().to_dict()),
    spectrogram=SpectrogramParams(num_samples=66_560),
    clips_per_track=2,
)
THRESHOLDS = (1_000, 3_500)


@pytest.fixture
def songs(tmp_path):
    decoder = Decoder(CONFIG)
    decoder.start()
    yield Songs(CONFIG, str(tmp_path), decoder)
    decoder.close()


def test_records_are_those_of_the_whole_song(songs, tmp_path):
    song = made_songs.mp3(30)
    places = made_songs.frame_places(song)
    place = places[len(places) // 3]
    made = {
        "plain": song,
        "odd": made_songs.with_fate(song, "with garbage between frames"),
        # Its first bytes and its end promise a frame that is not there.
        "damaged": song[:place] + bytes(4) + song[place + 4 :],
    }
    for number, (name, data) in enumerate(made.items()):
        (tmp_path / f"{name}.mp3").write_bytes(data)
        track = Track(number, f"{name}.mp3", 2_000, 3, "Rock", -1, "")
        params = CONFIG.spectrogram
        waveform = audio.load_waveform(data, sample_rate=params.sample_rate)
        windows = clips.even_windows(waveform, num_samples=params.num_samples, count=2)
        expected = [
            clip_record.record_of(track, window, CONFIG, thresholds=THRESHOLDS)
            for window in windows
        ]
        assert songs.records_of(track, THRESHOLDS) == expected
