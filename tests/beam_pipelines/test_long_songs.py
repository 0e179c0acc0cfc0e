"""Of a long song the job reads and decodes a part, and writes what it would write of all of it."""

import dataclasses
import pathlib

import pytest

from beam_pipelines import clip_record
from beam_pipelines.decoder_process import Decoder
from beam_pipelines.shard_writer import Songs
from common import audio, clips, files
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


def test_the_following_song_is_read_while_one_is_decoded(songs, tmp_path, monkeypatch):
    tracks = [Track(number, f"{number}.mp3", 2_000, 3, "Rock", -1, "") for number in range(4)]
    first, second, third, missing = tracks
    for track in tracks[:3]:
        (tmp_path / track.path).write_bytes(made_songs.mp3(10, seed=track.track_id))
    expected = {track: songs.records_of(track, THRESHOLDS) for track in tracks[:3]}
    done = []
    begin_reading, decode = files.begin_reading, Decoder.decode

    def noting_reads(path, *args, **kwargs):
        done.append(("read", pathlib.Path(path).name))
        return begin_reading(path, *args, **kwargs)

    def noting_decodes(decoder, track, *args, **kwargs):
        done.append(("decode", track.path))
        return decode(decoder, track, *args, **kwargs)

    monkeypatch.setattr(files, "begin_reading", noting_reads)
    monkeypatch.setattr(Decoder, "decode", noting_decodes)
    assert songs.records_of(first, THRESHOLDS, second) == expected[first]
    assert songs.records_of(second, THRESHOLDS, missing) == expected[second]
    reads = [("read", track.path) for track in tracks]
    assert done == [reads[0], reads[1], ("decode", "0.mp3"), reads[3], ("decode", "1.mp3")]
    # Not the one that was announced.
    assert songs.records_of(third, THRESHOLDS) == expected[third]
    assert songs.records_of(third, THRESHOLDS, missing) == expected[third]
    with pytest.raises(FileNotFoundError):
        songs.records_of(missing, THRESHOLDS, first)
    assert songs.records_of(first, THRESHOLDS) == expected[first]
