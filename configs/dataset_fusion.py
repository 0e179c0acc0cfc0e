r"""All that FMA knows of a track before anybody hears it, beside its picture, harmony and tempo.

python -m beam_pipelines.build_dataset --config=configs/dataset_fusion.py \
    --tracks_csv=fma_metadata/tracks.csv --features_csv=fma_metadata/echonest.csv \
    --audio_dir=fma_small --output_dir=dataset_fusion

Split by artist, as `dataset_artist.py`, whose other values it takes: a new artist's track has no
history there. With `--config.split_by=date` the past is for training and the newest for the test,
where an artist's earlier tracks may honestly help.
"""

from ml_collections import ConfigDict

from configs import dataset_artist


def get_config() -> ConfigDict:
    config = dataset_artist.get_config()
    config.inputs.categories = ("genre", "location", "license")
    config.inputs.numbers = (
        "date_created",
        "date_released",
        "duration",
        "bit_rate",
        # Of echonest.csv.
        "acousticness",
        "danceability",
        "energy",
        "instrumentalness",
        "liveness",
        "speechiness",
        "tempo",
        "valence",
    )
    config.inputs.texts = ("title", "tags")
    config.inputs.artist_history = True
    config.inputs.album_history = True
    config.inputs.chroma = True
    config.inputs.tempo = True
    return config
