"""An exported model in this process: which version, how it hears, what it answers."""

import json
import os

import numpy as np

from beam_pipelines import audio, command
from beam_pipelines.command import InputError


class ExportedModel:
    """The newest version in an export folder, and how to prepare audio for it.

    Raises:
        InputError: there is no version in the folder.
    """

    def __init__(self, export_dir: str):
        version = newest_version(export_dir)
        self.path = os.path.join(export_dir, str(version))
        with open(os.path.join(self.path, "assets.extra", "model_info.json")) as file:
            self.info = json.load(file)
        with command.kept_back_stderr():
            import tensorflow as tf  # here, since a mistake in a flag should not wait for it

            self._loaded = tf.saved_model.load(self.path)
        self._predict = self._loaded.signatures["serving_default"]

    def window(self, data: bytes) -> np.ndarray:
        """The part of an audio file that the model hears: float32 [samples].

        Raises:
            audio.ClipError: the file can't be used.
        """
        config = self.info["dataset"]["config"]
        (window,) = audio.clip_windows(
            data,
            sample_rate=config["spectrogram"]["sample_rate"],
            num_samples=config["spectrogram"]["num_samples"],
            min_seconds=config["min_seconds"],
            silence_dbfs=config["silence_dbfs"],
        )
        return window

    def probabilities(self, waveforms: np.ndarray) -> np.ndarray:
        """Probabilities float32 [batch, classes] of waveforms float32 [batch, samples]."""
        return self._predict(waveform=waveforms)["probabilities"].numpy()


def newest_version(export_dir: str) -> int:
    """The highest of the numbered folders that TensorFlow Serving would look at."""
    names = os.listdir(export_dir) if os.path.isdir(export_dir) else []
    versions = [int(name) for name in names if name.isdecimal()]
    if not versions:
        raise InputError(
            f"{export_dir}: no exported model; --export_dir is what trainer.train made"
        )
    return max(versions)
