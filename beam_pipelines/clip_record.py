"""One clip: from its row and its bytes to the record that stands in a shard."""

from beam_pipelines import audio, labels_and_splits, records, spectrogram
from beam_pipelines.catalogue import Track
from beam_pipelines.dataset_config import DatasetConfig


def clip_record(track: Track, data: bytes, config: DatasetConfig) -> bytes:
    """The serialized tf.Example of a clip.

    Args:
        track: its row of the catalogue.
        data: the bytes of its audio file.
        config: of the dataset.

    Raises:
        audio.ClipError: the clip can't be used.
    """
    params = config.spectrogram
    window = audio.clip_window(
        data,
        sample_rate=params.sample_rate,
        num_samples=params.num_samples,
        min_seconds=config.min_seconds,
        silence_dbfs=config.silence_dbfs,
    )
    return records.encode_example(
        {
            "spectrogram": spectrogram.picture(window, params).tobytes(),
            "label": labels_and_splits.label_of(track.listens, config.thresholds),
            "listens": track.listens,
            "track_id": track.track_id,
            "artist_id": track.artist_id,
            "genre": track.genre.encode(),
            "date_created": track.date_created,
        }
    )
