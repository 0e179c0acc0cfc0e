"""A song of 270 s against a clip of 30 s: what the job computes and what it reads of each.

Both are mp3s of the same sound and bitrate. The processor's time is that of the decoder process,
from the bytes of a file to its record; they take turns, and medians are compared.
"""

import pathlib
import statistics
import tempfile
import time

from beam_pipelines import clip_record
from common import audio_features, clips, files, song_parts
from common.catalogue import Track
from common.dataset_config import DatasetConfig
from common.pieces import Pieces
from configs import dataset_artist
from tests.benchmarks.bar import Bar
from tests.support import made_songs

ROUNDS = 15

BARS = {
    "song of 270 s / clip of 30 s": Bar(bar=1.6, better="lower"),
    "bytes of a song / of a clip": Bar(bar=1.3, better="lower"),
}


def measure() -> dict[str, float]:
    """The two ratios; prints what is behind them, and what a variable bitrate costs."""
    config = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
    audio_features.load_banks(config.spectrogram, config.inputs)
    choose, track = clips.choose_records(config), Track(1, "a.mp3", 1_000, -1, "", -1, "")

    def wanted(pieces: Pieces) -> tuple[int, int] | None:
        rate = config.spectrogram.sample_rate
        return song_parts.bytes_wanted(pieces, choose, sample_rate=rate)

    def seconds(pieces: Pieces) -> float:
        started = time.process_time()
        (window,) = clips.decode_records(pieces, config).windows
        clip_record.record_of(track, window, config, thresholds=(1_000, 3_500))
        return time.process_time() - started

    songs = {
        "clip of 30 s": made_songs.mp3(30.0, compression=0.4),
        "song of 270 s": made_songs.mp3(270.0, compression=0.4),
        "song of 270 s, variable bitrate": made_songs.mp3(270.0, mode="VARIABLE"),
    }
    read: dict[str, Pieces] = {}
    with tempfile.TemporaryDirectory() as name:
        for what, data in songs.items():
            path = pathlib.Path(name, "song.mp3")
            path.write_bytes(data)
            read[what] = files.begin_reading(
                str(path), wanted, at_most=10**9, seconds=60.0
            ).result()
    taken: dict[str, list[float]] = {what: [] for what in songs}
    for _ in range(ROUNDS):
        for what, pieces in read.items():
            taken[what].append(seconds(pieces))
    for what, pieces in read.items():
        milliseconds = 1_000 * statistics.median(taken[what])
        size = f"{pieces.num_bytes:,} of {pieces.size:,} bytes"
        print(f"{what}: {milliseconds:.0f} ms of a processor, {size}", flush=True)
    clip, song = list(songs)[:2]
    return {
        "song of 270 s / clip of 30 s": (
            statistics.median(taken[song]) / statistics.median(taken[clip])
        ),
        "bytes of a song / of a clip": read[song].num_bytes / read[clip].num_bytes,
    }
