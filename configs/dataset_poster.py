r"""The poster's protocol: three classes of listens, tracks split at random 80/10/10.

python -m beam_pipelines.build_dataset --config=configs/dataset_poster.py \
    --tracks_csv=fma_metadata/tracks.csv --audio_dir=fma_small --output_dir=dataset

Two tracks of one artist may fall on both sides of the split, so the test accuracy flatters;
`configs/dataset_artist.py` is the same without that leak.
"""

from ml_collections import ConfigDict

from configs import dataset_artist


def get_config() -> ConfigDict:
    config = dataset_artist.get_config()
    config.split_by = "track"
    return config
