r"""The poster's network of four convolutions on mono spectrograms (test accuracy 51 %).

python -m trainer.train --config=configs/four_conv_mono.py --dataset_dir=dataset --model_dir=model
"""

from ml_collections import ConfigDict

from configs import six_conv_rgb


def get_config() -> ConfigDict:
    config = six_conv_rgb.get_config()
    config.network.convolutions = 4
    config.network.color = "mono"
    return config
