r"""The poster's best network: six convolutions on RGB spectrograms (test accuracy 61 %).

python -m trainer.train --config=configs/six_conv_rgb.py --dataset_dir=dataset --model_dir=model
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()

    # How many of the poster's six blocks, and whether the picture goes through a colormap.
    config.network = ConfigDict(dict(convolutions=6, color="rgb"))

    # The poster's.
    config.learning_rate = 5e-4  # Adam's
    config.batch_size = 16  # of all devices together
    config.dropout = 0.4  # before the last layer
    config.epochs = 100

    # SpecAugment: at most so many mel bands and columns of each training picture are blanked.
    config.freq_mask = 0
    config.time_mask = 0

    # Records that a shuffle holds; more than a dataset has is as good as a perfect shuffle.
    config.shuffle_buffer = 4_096
    config.seed = 0
    # The same bits in every run, at some cost in speed.
    config.deterministic = False
    return config
