"""What the graph hears against what the job hears, to one level."""

import numpy as np
import pytest
import tensorflow as tf

from common import audio, audio_features, clips
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams
from tests.support.made_sounds import made_sounds
from trainer.model import front_end

PARAMS = SpectrogramParams()
BOTH = Inputs(chroma=True, tempo=True)


def assert_heard_alike(windows: list[np.ndarray], params: SpectrogramParams) -> None:
    in_graph = tf.function(lambda waveforms: front_end.hear(waveforms, params, BOTH))
    for window in windows:
        ours = audio_features.of_window(window, params, BOTH)
        theirs = in_graph(window[None])
        assert ours.keys() == theirs.keys() == {"spectrogram", "chroma", "tempo"}
        for name, values in ours.items():
            assert theirs[name].dtype == tf.uint8
            assert theirs[name].shape == (1, *values.shape)
            off = np.abs(theirs[name][0].numpy().astype(int) - values)
            assert off.max() <= 1, name


def test_made_sounds():
    assert_heard_alike(list(made_sounds(PARAMS).values()), PARAMS)


def test_real_clips(fma_sample):
    windows = []
    for path in sorted((fma_sample / "fma_small").rglob("*.mp3")):
        waveform = audio.load_waveform(path.read_bytes(), sample_rate=PARAMS.sample_rate)
        windows += clips.even_windows(waveform, num_samples=PARAMS.num_samples)
    assert_heard_alike(windows, PARAMS)


@pytest.mark.parametrize("frames_per_column", [4, 5])
def test_other_parameters(frames_per_column):
    params = SpectrogramParams(
        num_mels=64, num_samples=66_150, hop=441, frames_per_column=frames_per_column
    )
    assert_heard_alike([made_sounds(params)["beats"]], params)


def test_a_batch_is_heard_as_its_parts_and_silence_as_nothing():
    sounds = made_sounds(PARAMS)
    batch = np.stack([sounds["beats"], np.zeros(PARAMS.num_samples, np.float32), sounds["noise"]])
    together = front_end.hear(batch, PARAMS, BOTH)
    for place in range(3):
        alone = front_end.hear(batch[place : place + 1], PARAMS, BOTH)
        for name in ("chroma", "tempo"):
            off = np.abs(together[name][place].numpy().astype(int) - alone[name][0].numpy())
            assert off.max() <= 1
    assert not together["chroma"][1].numpy().any()
    assert not together["tempo"][1].numpy().any()


def test_what_is_not_asked_for_is_not_made():
    waveform = np.zeros((1, 1000), np.float32)
    assert list(front_end.hear(waveform, PARAMS, Inputs())) == ["spectrogram"]
