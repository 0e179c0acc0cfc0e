r"""The poster's network of two convolutions on mono spectrograms (test accuracy 42 %).

python -m trainer.train --config=configs/two_conv_mono.py --dataset_dir=dataset --model_dir=model
"""

from ml_collections import ConfigDict

from configs import six_conv_rgb


def get_config() -> ConfigDict:
    config = six_conv_rgb.get_config()
    config.network.convolutions = 2
    config.network.color = "mono"
    return config
