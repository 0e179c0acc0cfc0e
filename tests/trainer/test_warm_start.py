"""A training that begins with the weights of another one: what is taken over, what is refused."""

import dataclasses
import json
import re
import shutil

import keras
import numpy as np
import pytest

from common import export_folder
from common.errors import UserFacingError
from common.inputs import Inputs
from configs import fusion, short_chunk, two_conv_mono
from tests.support import datasets_with_inputs, drifting
from tests.support.commands import assert_refused, run_module
from trainer.evaluation.epochs import EpochMetrics
from trainer.model import export, network
from trainer.run import devices, model_folder, warm_start
from trainer.run.loop import Trainer
from trainer.run.progress import Console
from trainer.run.session import Session
from trainer.train_config import TrainConfig

EPOCH = EpochMetrics(
    epoch=1,
    loss=1.0,
    accuracy=0.5,
    validation_loss=1.0,
    validation_accuracy=0.5,
    learning_rate=1e-3,
)
INPUTS = Inputs(categories=("genre",), numbers=("date_created",), texts=("title",))


def small(config) -> TrainConfig:
    values = config.get_config().to_dict()
    values |= {"batch_size": 4, "epochs": 2, "steps_per_call": 1, "checkpoint_seconds": 0}
    values |= {"warmup_epochs": 0.0, "listens_loss": 0.0, "genre_loss": 0.0, "mixup": 0.0}
    values |= {"time_crop": 0}
    if "width" in values["network"]:
        values["network"] |= {"width": 4, "texture_members": 1, "texture_units": 4}
    if "members" in values["network"]:
        values["network"] |= {"members": 1, "hidden_units": (4,)}
    return TrainConfig.from_dict(values)


AUDIO, FUSION, POSTER = small(short_chunk), small(fusion), small(two_conv_mono)


def make_dataset(folder, *, title=b"slow rivers", seed=0):
    """Of small pictures: what is taken over depends on none."""
    rng = np.random.default_rng(seed)

    def records(size):
        return [
            {
                "spectrogram": rng.integers(0, 256, drifting.SIGNAL.shape, np.uint8),
                "label": index % 3,
                "genre": [b"Folk", b"Rock"][index % 2],
                "date_created": 1_000_000 * index,
                "text/title": title,
            }
            for index in range(size)
        ]

    splits = {"train": records(12), "validation": records(4), "test": records(4)}
    return datasets_with_inputs.write_dataset(
        folder, inputs=INPUTS, splits=splits, config=drifting.CONFIG
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "dataset"
    return folder, make_dataset(folder)


def session_of(config, info, dataset_dir, model_dir, *, init_from=None, reset_head=False, **how):
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.seed)
    begins_with = warm_start.of_training(
        init_from, reset_head=reset_head, model_dir=str(model_dir), config=config, info=info
    )
    strategy = devices.strategy_for(how.pop("strategy", "one_device"))
    return Session(
        Trainer(config, info, strategy),
        dataset_dir=str(dataset_dir),
        model_dir=str(model_dir),
        stop_asked=lambda: False,
        console=Console(silent=True),
        begins_with=begins_with,
        **how,
    )


def weights_of(trainer) -> dict[str, np.ndarray]:
    return {weight.path: np.array(weight) for weight in trainer.model.weights}


@pytest.fixture(scope="module")
def sources(made, tmp_path_factory):
    """Of each network a model folder that has a best epoch, and an export of the same weights."""
    folder, info = made
    root = tmp_path_factory.mktemp("sources")
    found = {}
    for config in (AUDIO, FUSION, POSTER):
        name = config.network.architecture
        model, rng = network.build(config.network, info, seed=11).model, np.random.default_rng(1)
        for weight in model.weights:
            weight.assign(np.array(weight) + rng.uniform(0, 0.1, weight.shape))
        model_dir = str(root / name)
        model_folder.claim(model_dir, config, info)
        model_folder.save_best(model_dir, 1, model)
        model_folder.write_history(model_dir, [EPOCH])
        candidate = export.write_candidate(
            model.get_weights(), config, info, None, f"{model_dir}_export", dataset_dir=str(folder)
        )
        (root / f"{name}_export" / candidate).rename(root / f"{name}_export/1")
        weights = {weight.path: np.array(weight) for weight in model.weights}
        found[name] = (root / name, root / f"{name}_export/1", weights)
    return found


@pytest.mark.parametrize("config", [AUDIO, FUSION, POSTER], ids=lambda c: c.network.architecture)
def test_the_weights_of_a_folder_and_of_its_export_are_taken_over(made, sources, tmp_path, config):
    folder, info = made
    model_dir, exported, expected = sources[config.network.architecture]
    for number, source in enumerate((model_dir, exported)):
        other = dataclasses.replace(config, seed=7)
        session = session_of(other, info, folder, tmp_path / str(number), init_from=str(source))
        before = weights_of(session.trainer)
        session.open()
        found = weights_of(session.trainer)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert any((before[name] != expected[name]).any() for name in expected)
        assert int(session.trainer.optimizer.iterations) == 0
        record = json.loads((tmp_path / str(number) / "training.json").read_text())["init_from"]
        assert record["path"] == str(source) and len(record["fingerprint"]) == 64


def test_an_export_from_before_its_variables_had_names(made, sources, tmp_path):
    folder, info = made
    _, exported, expected = sources["short_chunk"]
    old = tmp_path / "old"
    shutil.copytree(exported, old)
    path = old / export_folder.INFO_FILE
    values = json.loads(path.read_text())
    del values["variables"], values["encoding"]
    path.write_text(json.dumps(values))
    session = session_of(AUDIO, info, folder, tmp_path / "model", init_from=str(old))
    session.open()
    for name, found in weights_of(session.trainer).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


def test_averages_of_the_weights_begin_there_as_well(made, sources, tmp_path):
    folder, info = made
    config = dataclasses.replace(POSTER, weight_average=0.9)
    source, _, expected = sources["poster"]
    session = session_of(config, info, folder, tmp_path / "model", init_from=str(source))
    session.open()
    learner = {v.path: v for v in session.trainer._learner.weights}
    for name, weight in expected.items():
        np.testing.assert_array_equal(np.array(learner[name]), weight, err_msg=name)


def test_shrink_and_perturb(made, sources, tmp_path):
    """Against a network built by itself; what normalisation has seen is not shrunk."""
    folder, info = made
    config = dataclasses.replace(AUDIO, seed=5, shrink_perturb=(0.4, 0.1))
    source, _, old = sources["short_chunk"]
    session = session_of(config, info, folder, tmp_path / "model", init_from=str(source))
    session.open()
    new = network.build(config.network, info, seed=5).model
    moved = 0
    for weight, found in zip(new.weights, session.trainer.model.weights, strict=True):
        expected = old[weight.path]
        if weight.trainable:
            moved += 1
            expected = 0.4 * expected.astype(np.float64) + 0.1 * np.array(weight, np.float64)
        np.testing.assert_allclose(np.array(found), expected, rtol=1e-5, atol=1e-7)
    assert 0 < moved < len(new.weights)


def test_the_last_layers_anew_for_other_classes(made, sources, tmp_path):
    folder, info = made
    mine = {"class_names": ("cold", "hot"), "thresholds": (100,)}
    splits = {
        name: dataclasses.replace(split, class_counts={"cold": 6, "hot": 6})
        for name, split in info.splits.items()
    }
    other = dataclasses.replace(info, splits=splits, **mine)
    for config in (AUDIO, POSTER):
        source, _, expected = sources[config.network.architecture]
        where = tmp_path / config.network.architecture
        with pytest.raises(UserFacingError, match=r"low, medium, high.*cold, hot.*--reset_head"):
            session_of(config, other, folder, where, init_from=str(source))
        session = session_of(config, other, folder, where, init_from=str(source), reset_head=True)
        fresh = weights_of(session.trainer)
        session.open()
        kept = 0
        for name, found in weights_of(session.trainer).items():
            is_same = found.shape == expected[name].shape and (found == expected[name]).all()
            kept += is_same
            assert is_same or (found == fresh[name]).all(), name
        assert kept > len(fresh) / 2
        assert session.trainer.model.output_shape == (None, 2)


def test_what_does_not_fit_is_named(made, sources, tmp_path):
    folder, info = made
    audio, audio_export, _ = sources["short_chunk"]
    known, _, _ = sources["fusion"]

    def refused(source, words, *, config=AUDIO, info=info, **how):
        with pytest.raises(UserFacingError, match=re.escape(words)) as raised:
            session_of(config, info, folder, tmp_path / "model", init_from=str(source), **how)
        assert "\n" not in str(raised.value) and str(source) in str(raised.value)

    wider = dataclasses.replace(AUDIO, network=dataclasses.replace(AUDIO.network, width=8))
    refused(audio, "config.network.width is 4 there and 8 here", config=wider)
    refused(audio, "config.network.architecture", config=POSTER)
    signal = dataclasses.replace(info.config.spectrogram, floor_db=60.0)
    other = dataclasses.replace(info, config=dataclasses.replace(info.config, spectrogram=signal))
    for source in (audio, audio_export):
        refused(source, "config.spectrogram.floor_db", info=other)
    titled = make_dataset(tmp_path / "titled", title=b"fast cars")
    refused(known, "other values of text/title", config=FUSION, info=titled)
    refused(tmp_path, "neither a --model_dir of trainer.train nor an export")
    refused(audio_export.parent, "a folder of versions; name one")
    (tmp_path / "model").mkdir()
    shutil.copy(audio / "training.json", tmp_path / "model")
    refused(tmp_path / "model", "that is --model_dir")

    damaged = tmp_path / "damaged"
    shutil.copytree(audio_export, damaged)
    for path in (damaged / "variables").iterdir():
        path.write_bytes(b"")
    refused(damaged, "its weights can't be read")
    with pytest.raises(UserFacingError, match="--reset_head"):
        session_of(AUDIO, info, folder, tmp_path / "new", reset_head=True)
    shrunk = dataclasses.replace(AUDIO, shrink_perturb=(0.5, 0.1))
    with pytest.raises(UserFacingError, match=r"config\.shrink_perturb"):
        session_of(shrunk, info, folder, tmp_path / "new")
    for pair in ((0.5,), (2.0, 0.0), ("a", 0)):
        with pytest.raises(UserFacingError, match=r"config\.shrink_perturb"):
            dataclasses.replace(AUDIO, shrink_perturb=pair)


class Killed(Exception):
    pass


def test_after_a_kill_it_goes_on_and_does_not_begin_again(made, sources, tmp_path):
    """With the source gone, and to what a training that was never killed ends in."""
    folder, info = made
    config = dataclasses.replace(POSTER, epochs=1, shrink_perturb=(0.5, 0.1))
    source = tmp_path / "source"
    shutil.copytree(sources["poster"][0], source)

    def run(name, **how):
        return session_of(config, info, folder, tmp_path / name, init_from=str(source), **how)

    whole = run("whole")
    whole.open()
    whole.run_epochs()

    stopped = run("stopped")
    stopped.open()
    calls = iter(range(100))

    def kill():
        if next(calls) == 2:
            raise Killed
        return False

    stopped._stop_asked = kill
    with pytest.raises(Killed):
        stopped.run_epochs()
    stopped._checkpoints.wait()
    shutil.rmtree(source)
    again = run("stopped")
    again.open()
    assert again.position.step == 2
    again.run_epochs()
    assert again.history[-1].loss == pytest.approx(whole.history[-1].loss, rel=1e-4)
    for name, weight in weights_of(again.trainer).items():
        np.testing.assert_allclose(weight, weights_of(whole.trainer)[name], rtol=1e-3, atol=1e-5)
    assert model_folder.warm_start_of(str(tmp_path / "stopped"))["path"] == str(source)
    for other in (None, str(tmp_path)):
        with pytest.raises(UserFacingError, match=r"began with --init_from=.*source"):
            session_of(
                config if other else dataclasses.replace(POSTER, epochs=1),
                info,
                folder,
                tmp_path / "stopped",
                init_from=other,
            )


def test_all_replicas_begin_with_the_same_weights(made, sources, tmp_path):
    folder, info = made
    source, _, expected = sources["poster"]
    config = dataclasses.replace(POSTER, shrink_perturb=(0.5, 0.1))
    session = session_of(
        config, info, folder, tmp_path / "m", init_from=str(source), strategy="mirrored"
    )
    assert session.trainer.strategy.num_replicas_in_sync == 2
    session.open()
    for weight in session.trainer.model.weights:
        first, second = session.trainer.strategy.experimental_local_results(weight.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy())
        assert (first.numpy() != expected[weight.path]).any() or not expected[weight.path].any()


def warm(made, model_dir, source) -> list[str]:
    """The flags of a training of an epoch that begins with the poster's weights."""
    return [
        "--config=configs/two_conv_mono.py",
        "--config.epochs=1",
        f"--dataset_dir={made[0]}",
        f"--model_dir={model_dir}",
        f"--init_from={source}",
    ]


@pytest.mark.integration
def test_the_command_says_that_it_was_a_warm_start(made, sources, tmp_path):
    _, source, _ = sources["poster"]
    *train, init_from = warm(made, tmp_path / "model", source)
    result = run_module("trainer.train", *train, init_from)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"warm start from {source} (") == 2  # at the beginning and the end
    described = json.loads((tmp_path / "model/export/1" / export_folder.INFO_FILE).read_text())
    assert described["init_from"]["path"] == str(source)
    assert str(source) in (tmp_path / "model/report.html").read_text()
    assert_refused(run_module("trainer.train", *train), "--init_from", "new weights")
    result = run_module("trainer.evaluate", *train[2:])
    assert result.returncode == 0, result.stderr
    assert f"warm start from {source} (" in result.stdout


@pytest.mark.integration
def test_two_workers_begin_with_the_same_weights(made, sources, tmp_path):
    source, _, _ = sources["poster"]
    flags = warm(made, tmp_path / "model", source)
    result = run_module("trainer.launch", "--workers=2", "--", *flags)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(f"warm start from {source} (") == 2


def test_only_a_version_of_its_own_keeps_a_training_from_its_export(
    made, sources, tmp_path, monkeypatch, capsys
):
    """One that was stopped before its export goes on to it, whatever others have released there."""
    folder, info = made
    model_dir, exported, _ = sources[POSTER.network.architecture]
    shutil.copytree(exported, tmp_path / "1")
    session = session_of(POSTER, info, folder, model_dir)
    session._console = Console()
    asked = []
    monkeypatch.setattr(export, "write_candidate", lambda *_, **how: asked.append(how["name"]))
    monkeypatch.setattr(export, "verify_and_release", lambda *_, **__: f"{tmp_path}/2")

    assert session.export(str(tmp_path), unless_exported=True)  # with weights of its own
    assert asked == [export_folder.candidate_of(str(model_dir))]
    assert f"exported: {tmp_path}/2" in capsys.readouterr().out

    model_folder.restore_best(str(model_dir), session.trainer.model)
    (tmp_path / "3").mkdir()
    (tmp_path / "3/saved_model.pb").touch()  # newer, and damaged
    assert session.export(str(tmp_path), unless_exported=True)
    assert f"exported before: {tmp_path}/1" in capsys.readouterr().out
    (tmp_path / "1").rename(tmp_path / ".withdrawn-1")  # how a version is taken back
    assert session.export(str(tmp_path), unless_exported=True)
    assert f"exported before: {tmp_path}/.withdrawn-1" in capsys.readouterr().out
    assert len(asked) == 1
