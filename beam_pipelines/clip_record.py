"""One track: from its bytes to its windows, and from a window to the record in a shard."""

import numpy as np

from common import audio, hearing, labels, records
from common.catalogue import Track
from common.dataset_config import DatasetConfig


def waveform_of(data: bytes, config: DatasetConfig) -> np.ndarray:
    """The whole of an audio file, float32 [samples]; ClipError if it can't be decoded."""
    return audio.load_waveform(data, sample_rate=config.spectrogram.sample_rate)


def windows_of(waveform: np.ndarray, config: DatasetConfig) -> list[np.ndarray]:
    """The windows, float32 [num_samples], of a waveform; ClipError if it can't be used."""
    return audio.clip_windows(
        waveform,
        sample_rate=config.spectrogram.sample_rate,
        num_samples=config.spectrogram.num_samples,
        min_seconds=config.min_seconds,
        silence_dbfs=config.silence_dbfs,
        count=config.clips_per_track,
    )


def record_of(
    track: Track, window: np.ndarray, config: DatasetConfig, *, thresholds: tuple[int, ...]
) -> bytes:
    """The serialized tf.Example of a window.

    Args:
        track: its row of the catalogue.
        window: float32 [num_samples].
        config: of the dataset.
        thresholds: of the classes, in listens.
    """
    heard = hearing.hear(window, config.spectrogram, config.inputs)
    return records.encode_example(
        {
            **{name: levels.tobytes() for name, levels in heard.items()},
            "label": labels.label_of(track.listens, thresholds),
            "listens": track.listens,
            "track_id": track.track_id,
            "artist_id": track.artist_id,
            "genre": track.genre.encode(),
            "date_created": track.date_created,
        }
    )
