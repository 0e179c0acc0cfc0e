"""An exported model in this process: which version, how it hears, what it answers."""

import json
import os

import numpy as np

from beam_pipelines import audio, command
from beam_pipelines.command import InputError


class ExportedModel:
    """The newest version in an export folder, and how to prepare audio for it.

    Raises:
        InputError: there is no version in the folder, or it can't be loaded.
    """

    def __init__(self, export_dir: str):
        self.path = os.path.join(export_dir, str(newest_version(export_dir)))
        with command.kept_back_stderr():
            import tensorflow as tf  # here, since a mistake in a flag should not wait for it
        try:
            with open(os.path.join(self.path, "assets.extra", "model_info.json")) as file:
                self.info = json.load(file)
            with command.kept_back_stderr():
                self._loaded = tf.saved_model.load(self.path)
            self._predict = self._loaded.signatures["serving_default"]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"{self.path}: not a whole export ({message[:200]})") from None

    def window(self, data: bytes) -> np.ndarray:
        """The part of an audio file that the model hears: float32 [samples].

        Raises:
            audio.ClipError: the file can't be used.
        """
        (window,) = audio.clip_windows(
            data,
            sample_rate=self.info["signal"]["sample_rate"],
            num_samples=self.info["signal"]["num_samples"],
            min_seconds=self.info["min_seconds"],
            silence_dbfs=self.info["silence_dbfs"],
        )
        return window

    def probabilities(self, waveforms: np.ndarray) -> np.ndarray:
        """Probabilities float32 [batch, classes] of waveforms float32 [batch, samples]."""
        return self._predict(waveform=waveforms)["probabilities"].numpy()


def newest_version(export_dir: str) -> int:
    """The highest of the numbered folders, which is what TensorFlow Serving serves."""

    def is_version(name):
        return name.isdecimal() and holds_model(os.path.join(export_dir, name))

    names = os.listdir(export_dir) if os.path.isdir(export_dir) else []
    found = [int(name) for name in names if is_version(name)]
    if not found:
        problem = "no exported model; --export_dir is what trainer.train made"
        if holds_model(export_dir):
            problem = f"a version; --export_dir is the folder it lies in, {export_dir}/.."
        raise InputError(f"{export_dir}: {problem}")
    return max(found)


def holds_model(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "saved_model.pb"))
