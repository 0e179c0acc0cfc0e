"""The signal front end in the graph: what `common.spectrogram` computes, in TensorFlow."""

import numpy as np
import tensorflow as tf

from common import spectrogram
from common.spectrogram import SpectrogramParams


def central_window(waveforms: tf.Tensor, num_samples: int) -> tf.Tensor:
    """The middle of waveforms [batch, samples], zero-padded at the end: [batch, num_samples]."""
    length = tf.shape(waveforms)[1]
    start = tf.maximum(0, (length - num_samples) // 2)
    window = waveforms[:, start : start + num_samples]
    padding = num_samples - tf.shape(window)[1]
    window = tf.pad(window, [[0, 0], [0, padding]])
    return tf.ensure_shape(window, [None, num_samples])


def pictures(waveforms: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """Pictures uint8 [batch, height, width] of waveforms float32 [batch, samples], any length."""
    window = central_window(waveforms, params.num_samples)
    margin = params.fft_size // 2
    spectrum = tf.signal.stft(
        tf.pad(window, [[0, 0], [margin, margin]]),
        frame_length=params.fft_size,
        frame_step=params.hop,
        fft_length=params.fft_size,
        window_fn=lambda _, dtype: tf.constant(spectrogram.hann_window(params.fft_size), dtype),
    )
    power = tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2
    width = params.shape[1]
    used = power[:, : width * params.frames_per_column]
    bins = 1 + params.fft_size // 2
    columns = tf.reduce_mean(tf.reshape(used, [-1, width, params.frames_per_column, bins]), axis=2)
    bank = spectrogram.mel_filter_bank(params).astype(np.float32)
    mel = tf.einsum("mf,btf->bmt", bank, columns)
    decibels = 10 / np.log(10) * tf.math.log(tf.maximum(mel, 1e-10))
    loudest = tf.reduce_max(decibels, axis=[1, 2], keepdims=True)
    above_floor = (decibels - loudest) / params.floor_db + 1
    return tf.cast(tf.round(tf.clip_by_value(above_floor, 0, 1) * 255), tf.uint8)
