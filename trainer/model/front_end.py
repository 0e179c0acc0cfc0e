"""The signal front end in the graph: what `common.audio_features` computes, in TensorFlow."""

import numpy as np
import tensorflow as tf

from common import chroma, spectrogram, tempo
from common.inputs import Inputs
from common.spectrogram import SpectrogramParams


def central_window(waveforms: tf.Tensor, num_samples: int) -> tf.Tensor:
    """The middle of waveforms [batch, samples], zero-padded at the end: [batch, num_samples]."""
    length = tf.shape(waveforms)[1]
    start = tf.maximum(0, (length - num_samples) // 2)
    window = waveforms[:, start : start + num_samples]
    padding = num_samples - tf.shape(window)[1]
    window = tf.pad(window, [[0, 0], [0, padding]])
    return tf.ensure_shape(window, [None, num_samples])


def hear(waveforms: tf.Tensor, params: SpectrogramParams, inputs: Inputs) -> dict[str, tf.Tensor]:
    """{feature: uint8 [batch, …]} of waveforms float32 [batch, samples], any length.

    Always `spectrogram` [batch, height, width]; `chroma` [batch, 12, width] and `tempo`
    [batch, 384] where the inputs ask for them.
    """
    power = frame_power(central_window(waveforms, params.num_samples), params)
    columns = column_power(power, params)
    heard = {"spectrogram": pictures_of(columns, params)}
    if inputs.chroma:
        heard["chroma"] = chroma_of(columns, params)
    if inputs.tempo:
        heard["tempo"] = tempo_of(power, params)
    return heard


def pictures(waveforms: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """Pictures uint8 [batch, height, width] of waveforms float32 [batch, samples], any length."""
    return hear(waveforms, params, Inputs())["spectrogram"]


def frame_power(window: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """`spectrogram.frame_power` of windows [batch, num_samples]: [batch, frames, bins]."""
    margin = params.fft_size // 2
    spectrum = tf.signal.stft(
        tf.pad(window, [[0, 0], [margin, margin]]),
        frame_length=params.fft_size,
        frame_step=params.hop,
        fft_length=params.fft_size,
        window_fn=lambda _, dtype: tf.constant(spectrogram.hann_window(params.fft_size), dtype),
    )
    power = tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2
    return power[:, : params.shape[1] * params.frames_per_column]


def column_power(power: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """`spectrogram.column_power`: [batch, width, bins]."""
    bins = 1 + params.fft_size // 2
    grouped = tf.reshape(power, [-1, params.shape[1], params.frames_per_column, bins])
    return tf.reduce_mean(grouped, axis=2)


def pictures_of(columns: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """`spectrogram.picture_of`: uint8 [batch, height, width]."""
    bank = spectrogram.mel_filter_bank(params).astype(np.float32)
    decibels = _decibels(tf.einsum("mf,btf->bmt", bank, columns), 1e-10)
    loudest = tf.reduce_max(decibels, axis=[1, 2], keepdims=True)
    return _levels((decibels - loudest) / params.floor_db + 1)


def chroma_of(columns: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """`chroma.chroma`: uint8 [batch, 12, width]."""
    bank = chroma.pitch_class_bank(params).astype(np.float32)
    strength = tf.einsum("cf,btf->bct", bank, columns)
    strongest = tf.reduce_max(strength, axis=1, keepdims=True)
    return _levels(strength / tf.maximum(strongest, chroma.MIN_POWER))


def tempo_of(power: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """`tempo.tempo`: uint8 [batch, 384]."""
    onsets = onset_strength(power, params)
    margin = tempo.NUM_LAGS // 2
    ramp = tf.constant(np.arange(margin) / margin, tf.float32)
    before, after = onsets[:, :1] * ramp, onsets[:, -1:] * ramp[::-1]
    padded = tf.concat([before, onsets, after], axis=1)
    places = np.arange(params.frames_per_column // 2, onsets.shape[1], params.frames_per_column)
    frames = tf.gather(padded, places[:, None] + np.arange(tempo.NUM_LAGS), axis=1)
    windowed = frames * spectrogram.hann_window(tempo.NUM_LAGS)
    energy = tf.maximum(tf.reduce_sum(windowed**2, axis=2, keepdims=True), tempo.min_energy())
    spectrum = tf.signal.rfft(windowed, [2 * tempo.NUM_LAGS])
    density = (tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2) / energy
    mean = tf.cast(tf.reduce_mean(density, axis=1), tf.complex64)
    return _levels(tf.signal.irfft(mean, [2 * tempo.NUM_LAGS])[:, : tempo.NUM_LAGS])


def onset_strength(power: tf.Tensor, params: SpectrogramParams) -> tf.Tensor:
    """`tempo.onset_strength`: float32 [batch, frames]."""
    bank = spectrogram.mel_filter_bank(params).astype(np.float32)
    decibels = _decibels(tf.einsum("mf,btf->btm", bank, power), tempo.MIN_POWER)
    loudest = tf.reduce_max(decibels, axis=[1, 2], keepdims=True)
    decibels = tf.maximum(decibels, loudest - tempo.TOP_DB)
    growth = tf.reduce_mean(tf.nn.relu(decibels[:, 1:] - decibels[:, :-1]), axis=2)
    num_frames = params.shape[1] * params.frames_per_column
    delayed = tf.pad(growth, [[0, 0], [tempo.onset_delay(params), 0]])[:, :num_frames]
    return tf.ensure_shape(delayed, [None, num_frames])


def _decibels(power: tf.Tensor, least: float) -> tf.Tensor:
    return 10 / np.log(10) * tf.math.log(tf.maximum(power, least))


def _levels(values: tf.Tensor) -> tf.Tensor:
    """Levels of 0 … 255, uint8, of values of 0 … 1."""
    return tf.cast(tf.round(tf.clip_by_value(values, 0, 1) * 255), tf.uint8)
