"""The web app and the export against what they are made of, on the same cores in the same run."""

import concurrent.futures
import io
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import threading
import time

import numpy as np

from tests.benchmarks.bar import Bar
from tests.support.paths import FMA_SAMPLE
from tests.support.running_app import RunningApp, running_app

SONGS, ROUNDS, STARTS = 120, 3, 3
BATCH, PAIRS = 32, 100


BARS = {
    "app / plain loop, songs a second": Bar(bar=0.85, better="higher"),
    "export / Keras model, batch 32": Bar(bar=0.95, better="higher"),
    "first request / median one": Bar(bar=3.0, better="lower"),
}


def make_export(folder: pathlib.Path) -> tuple[str, object]:
    """A version of a network that was never trained, and the Keras model in it.

    How well it answers does not matter here, so it is written without a dataset.
    """
    from common.dataset_config import DatasetConfig
    from common.dataset_info import DatasetInfo, Split
    from configs import dataset_artist, six_conv_rgb
    from trainer.model import export, poster
    from trainer.train_config import TrainConfig

    config = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
    empty = Split(
        num_examples=0, class_counts=dict.fromkeys(config.class_names, 0), num_artists=0, shards=()
    )
    splits = dict.fromkeys(("train", "validation", "test"), empty)
    info = DatasetInfo.of(config, splits)
    training = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    model = poster.build_network(
        training.network, shape=config.spectrogram.shape, num_classes=len(config.class_names)
    )
    name = export.write_candidate(
        model.get_weights(), training, info, None, str(folder), dataset_dir=""
    )
    (folder / name).rename(folder / "1")
    return str(folder), model


def songs(folder: pathlib.Path) -> list[pathlib.Path]:
    """Real clips of FMA where they lie beside the project, else noise that was encoded."""
    if FMA_SAMPLE.is_dir():
        return sorted((FMA_SAMPLE / "fma_small").rglob("*.mp3"))
    import soundfile

    random, paths = np.random.default_rng(0), []
    for place in range(8):
        noise = random.normal(0, 0.1, (30 * 44_100, 2)).cumsum(axis=0) / 100
        file = io.BytesIO()
        soundfile.write(file, noise / np.abs(noise).max(), 44_100, format="MP3")
        paths.append(folder / f"{place}.mp3")
        paths[-1].write_bytes(file.getvalue())
    return paths


_model = None


def _load(export_dir: str) -> None:
    """What a process of the plain loop does first: one thread each, as many processes as cores."""
    global _model
    import tensorflow as tf

    from serving.model.exported_model import ExportedModel

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _model = ExportedModel.newest(export_dir)


def _predict(path: str) -> float:
    """What a user would write: decode, call the SavedModel."""
    from serving.model import song

    waveform = song.middle_waveform(pathlib.Path(path).read_bytes(), _model.info)
    return float(_model.probabilities_of_waveforms(waveform[np.newaxis]).max())


def loop_rate(pool, paths: list[str]) -> float:
    """Songs a second by a plain loop on every core."""
    started = time.perf_counter()
    assert all(pool.map(_predict, paths))
    return len(paths) / (time.perf_counter() - started)


def app_rate(app: RunningApp, paths: list[str]) -> float:
    """Songs a second by the app, asked by clients that each wait for their answer."""
    left, lock = iter(paths), threading.Lock()

    def client():
        while True:
            with lock:
                path = next(left, None)
            if path is None:
                return
            answer = app.predict(pathlib.Path(path).read_bytes())
            assert answer.status == 200, answer.body

    threads = [threading.Thread(target=client) for _ in range(4 * os.cpu_count())]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(paths) / (time.perf_counter() - started)


def throughput(export_dir: str, paths: list[str]) -> float:
    """The median over the rounds of app / loop, which take turns."""
    ratios = []
    context = multiprocessing.get_context("spawn")
    with (
        running_app(export_dir) as app,
        concurrent.futures.ProcessPoolExecutor(
            os.cpu_count(), mp_context=context, initializer=_load, initargs=(export_dir,)
        ) as pool,
    ):
        loop_rate(pool, paths[:16])
        app_rate(app, paths[:16])
        for number in range(ROUNDS):
            loop, served = loop_rate(pool, paths), app_rate(app, paths)
            print(f"round {number + 1}: loop {loop:.1f}, app {served:.1f} songs/s", flush=True)
            ratios.append(served / loop)
    return statistics.median(ratios)


def signature_speed(export_dir: str, keras_model) -> float:
    """How fast the spectrogram signature is, as a share of the bare Keras model.

    The median over pairs that take turns in coming first, since what else a machine does may take
    longer than the difference.
    """
    import tensorflow as tf

    from serving.model.exported_model import ExportedModel

    signature = ExportedModel.newest(export_dir).signatures["spectrogram"]
    bare = tf.function(lambda pictures: tf.nn.softmax(keras_model(pictures, training=False)))
    pictures = tf.constant(
        np.random.default_rng(0).integers(0, 256, (BATCH, 102, 159)).astype(np.uint8)
    )
    ask = (
        lambda: bare(pictures),
        lambda: signature(spectrogram=pictures)["probabilities"],
    )

    def seconds(contestant: int) -> float:
        started = time.perf_counter()
        ask[contestant]().numpy()
        return time.perf_counter() - started

    ratios = []
    for number in range(PAIRS + 3):
        first, second = (0, 1) if number % 2 else (1, 0)
        measured = {first: seconds(first), second: seconds(second)}
        ratios.append(measured[0] / measured[1])
    return statistics.median(ratios[3:])  # the first ones build the graph


def first_request(export_dir: str, path: str) -> float:
    """How long the first request after a start takes, in those that a later one takes."""
    data, ratios = pathlib.Path(path).read_bytes(), []
    for _ in range(STARTS):
        with running_app(export_dir) as app:
            seconds = []
            for _ in range(21):
                started = time.perf_counter()
                assert app.predict(data).status == 200
                seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / statistics.median(seconds[1:]))
    return statistics.median(ratios)


def measure() -> dict[str, float]:
    """The figure of each entry of BARS."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "export").mkdir()
        export_dir, keras_model = make_export(folder / "export")
        there = songs(folder)
        paths = [str(there[place % len(there)]) for place in range(SONGS)]
        values = (
            throughput(export_dir, paths),
            signature_speed(export_dir, keras_model),
            first_request(export_dir, paths[0]),
        )
    return dict(zip(BARS, values, strict=True))
