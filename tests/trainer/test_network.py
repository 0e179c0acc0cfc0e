"""The networks against what the poster prints of them."""

import keras
import numpy as np
import pytest

from configs import four_conv_mono, four_conv_rgb, six_conv_rgb, two_conv_mono
from trainer.model.poster import build_network
from trainer.train_config import TrainConfig


def network(config_module) -> keras.Model:
    config = TrainConfig.from_dict(config_module.get_config().to_dict())
    return build_network(config.network, shape=(102, 159), num_classes=3, dropout=config.dropout)


@pytest.mark.parametrize(
    ("config_module", "parameters"),
    [
        (two_conv_mono, 28_344_899),
        (four_conv_mono, 5_440_451),
        (four_conv_rgb, 5_441_411),
        (six_conv_rgb, 3_345_795),
    ],
)
def test_number_of_parameters(config_module, parameters):
    assert network(config_module).count_params() == parameters


def test_shapes_of_the_six_layers():
    shapes = [
        layer.output.shape[1:]
        for layer in network(six_conv_rgb).layers
        if isinstance(layer, keras.layers.MaxPooling2D)
    ]
    assert shapes == [
        (50, 77, 32),
        (24, 36, 64),
        (11, 17, 128),
        (5, 8, 256),
        (3, 6, 512),
        (1, 1, 1024),
    ]


def test_the_posters_training():
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    assert (config.learning_rate, config.batch_size, config.dropout, config.epochs) == (
        5e-4,
        16,
        0.4,
        100,
    )


def test_rgb_is_the_colormap_of_the_stored_levels():
    import matplotlib

    model = network(six_conv_rgb)
    colors = keras.Model(model.input, model.layers[1].output)
    levels = np.random.default_rng(0).integers(0, 256, (2, 102, 159)).astype(np.uint8)
    expected = matplotlib.colormaps["magma"](levels)[..., :3]
    np.testing.assert_allclose(colors(levels), expected, atol=1e-6)


def test_first_weights_depend_on_the_seed_alone():
    def weights(seed):
        config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
        model = build_network(config.network, shape=(102, 159), num_classes=3, seed=seed)
        return model.get_weights()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
