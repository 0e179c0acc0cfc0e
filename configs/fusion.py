r"""The network for audio and metadata of a track, any of which may be missing.

python -m trainer.train --config=configs/fusion.py --dataset_dir=dataset --model_dir=model

The dataset's own config says what its records carry (`config.inputs`). What is not said here is as
in `short_chunk.py`.
"""

from ml_collections import ConfigDict

from configs import short_chunk


def get_config() -> ConfigDict:
    config = short_chunk.get_config()
    config.network.architecture = "fusion"
    # Names of inputs, such as ("genre", "date_created", "artist_history"); all there are if ().
    config.network.inputs = ()
    config.network.hidden_units = (128, 64)
    config.network.members = 5
    # What the picture counts for beside them where the artist's other tracks are known, and where
    # they are not; alone it counts for all.
    config.network.picture_weight = (0.15, 0.35)
    # Inputs are left out of so many training examples, so that none is relied on alone: most often
    # those that name few artists. The histories need not be: where there are none, dense
    # layers answer that never see any.
    config.input_dropout = ConfigDict(
        dict(genre=0.1, artist_history=0.0, album_history=0.0, location=0.7, others=0.3)
    )
    return config
