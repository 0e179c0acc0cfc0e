"""The exported model: its signatures, and that each answers as the trained network does."""

import dataclasses
import io
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from common import audio, dataset_reader, export_folder, records
from common.errors import UserFacingError
from serving.model import verification
from serving.model.exported_model import ExportedModel
from tests.support import processes
from trainer.model import export, model_card
from trainer.run import devices, loop, model_folder

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(exported.path).signatures


@pytest.fixture(scope="module")
def trained(model_dir, dataset_dir):
    """The trained network's probabilities of every record, by track."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    config = model_folder.load_config(str(model_dir), info)
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    model_folder.restore_best(str(model_dir), trainer.model)
    by_track = {}
    for split in info.splits:
        predictions = trainer.predict(str(dataset_dir), split)
        by_track |= dict(zip(predictions.track_id, predictions.probabilities, strict=True))
    return by_track


def waveforms(library, exported, track_ids):
    params = exported.info.signal
    for track_id in track_ids:
        name = f"{track_id:06d}"
        data = (library.audio_dir / name[:3] / f"{name}.mp3").read_bytes()
        yield track_id, audio.load_waveform(data, sample_rate=params.sample_rate)


def test_signatures_are_the_contracts(signatures):
    inputs = {
        name: {i: (spec.shape.as_list(), spec.dtype) for i, spec in signature_inputs(f).items()}
        for name, f in signatures.items()
    }
    assert inputs == {
        "serving_default": {"waveform": ([None, None], tf.float32)},
        "wav": {"wav": ([None], tf.string)},
        "spectrogram": {"spectrogram": ([None, 102, 159], tf.uint8)},
        "examples": {"examples": ([None], tf.string)},
    }
    for signature in signatures.values():
        outputs = signature.structured_outputs
        assert outputs["probabilities"].dtype == tf.float32
        assert outputs["probabilities"].shape.as_list() == [None, 3]
        assert outputs["label"].dtype == tf.string
        assert outputs["label"].shape.as_list() == [None]


def signature_inputs(signature):
    return signature.structured_input_signature[1]


def test_a_waveform_is_answered_as_its_record(signatures, exported, library, trained):
    assert len(trained) == library.num_examples
    for track_id, waveform in waveforms(library, exported, trained):
        (answer,) = signatures["serving_default"](waveform=tf.constant(waveform[np.newaxis]))[
            "probabilities"
        ].numpy()
        np.testing.assert_allclose(answer, trained[track_id], atol=TOLERANCE)


def test_records_and_pictures_are_answered_as_by_the_network(
    signatures, dataset_dir, trained, exported
):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    examples = [example for _, example in dataset_reader.read_examples(info, str(dataset_dir))]
    expected = np.stack([trained[example["track_id"]] for example in examples])
    pictures = np.stack(
        [np.frombuffer(e["spectrogram"], np.uint8).reshape(102, 159) for e in examples]
    )
    by_picture = signatures["spectrogram"](spectrogram=tf.constant(pictures))
    np.testing.assert_allclose(by_picture["probabilities"], expected, atol=TOLERANCE)
    serialized = [records.encode_example(example) for example in examples]
    by_example = signatures["examples"](examples=tf.constant(serialized))
    np.testing.assert_allclose(by_example["probabilities"], expected, atol=TOLERANCE)
    names = np.array(exported.info.class_names)[expected.argmax(axis=1)]
    assert [label.decode() for label in by_example["label"].numpy()] == names.tolist()


def wav(samples, rate=22_050) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_wavs_of_any_length_mono_and_stereo(signatures, exported, library, trained):
    track_ids = sorted(trained)[:4]
    files = []
    for place, (_, waveform) in enumerate(waveforms(library, exported, track_ids)):
        waveform = np.clip(waveform, -1, 1)
        files.append(wav(np.stack([waveform, waveform], axis=1) if place % 2 else waveform))
    answers = signatures["wav"](wav=tf.constant(files))["probabilities"].numpy()
    expected = np.stack([trained[track_id] for track_id in track_ids])
    np.testing.assert_allclose(answers, expected, atol=5 * TOLERANCE)  # 16 bits
    for samples in (np.zeros(1), np.full(100, 0.5), np.full(1_000_001, 0.1)):
        answer = signatures["wav"](wav=tf.constant([wav(samples)]))["probabilities"].numpy()
        assert answer.sum() == pytest.approx(1, abs=1e-5)


def test_a_wav_of_another_rate_is_refused(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be 22050 Hz"):
        signatures["wav"](wav=tf.constant([wav(np.zeros(1000), rate=44_100)]))


@pytest.mark.parametrize("length", [1, 999, 660_919, 660_920, 660_921, 1_500_000])
def test_odd_lengths_and_silence(signatures, length):
    for waveform in (np.zeros(length), np.random.default_rng(0).normal(0, 0.1, length)):
        answer = signatures["serving_default"](waveform=tf.constant(waveform[None], tf.float32))
        assert np.isfinite(answer["probabilities"]).all()


def test_the_warm_up_file_asks_every_signature_in_every_batch_size(signatures, exported):
    asked = []
    for name, inputs in exported.warm_up_requests():
        answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        assert np.isfinite(answer["probabilities"]).all()
        asked.append((name, len(answer["probabilities"])))
    assert sorted(asked) == sorted(itertools.product(signatures, (1, 2, 4, 8, 16, 32)))


@pytest.fixture
def made(exported, tmp_path):
    """Writes a candidate of a function of pictures in place of a network; its path."""

    def write(answer) -> pathlib.Path:
        @tf.function(input_signature=[tf.TensorSpec([None, 102, 159], tf.uint8, "spectrogram")])
        def ask(spectrogram):
            return {
                "probabilities": answer(tf.shape(spectrogram)[0]),
                "label": tf.repeat("low", tf.shape(spectrogram)[0]),
            }

        module, path = tf.Module(), tmp_path / ".candidate-made"
        module.ask = ask
        signatures = dict.fromkeys(verification.SIGNATURES, ask)
        tf.saved_model.save(module, str(path), signatures=signatures)
        shutil.copytree(pathlib.Path(exported.path, "assets.extra"), path / "assets.extra")
        (path / "assets.extra" / "verification.json").unlink()
        return path

    return write


def uniform(count):
    return tf.fill([count, 3], 1 / 3)


def test_stock_ops_only(exported):
    """All are among those that TensorFlow documents, of which a few would call Python."""
    data = pathlib.Path(exported.path, "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    library = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in library for node in function.node_def)]
    ops = {node.op for node in nodes} - {function.signature.name for function in library}
    assert ops <= set(dir(tf.raw_ops))
    assert not ops & {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
    assert {"RFFT", "DecodeWav", "ParseExampleV2", "Conv2D", "Softmax"} <= ops
    assert verification.foreign_ops(exported.path) == (set(), len(ops))


def test_a_graph_with_a_foreign_op_is_refused(made):
    path = made(uniform)
    assert verification.Verifier(ExportedModel(str(path))).stock_ops().passed
    shutil.rmtree(path)
    path = made(
        lambda count: tf.ensure_shape(tf.py_function(uniform, [count], tf.float32), [None, 3])
    )
    check = verification.Verifier(ExportedModel(str(path))).stock_ops()
    assert not check.passed and check.note == "EagerPyFunc"

    # As if TensorFlow IO were needed, in a function alone.
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    function = saved.meta_graphs[0].graph_def.library.function[0]
    function.node_def.add(name="decode", op="IO>AudioDecodeMP3")
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    foreign, _ = verification.foreign_ops(str(path))
    assert foreign == {"EagerPyFunc", "IO>AudioDecodeMP3"}


def test_a_warm_up_that_is_answered_with_nan_is_refused(made):
    path = made(lambda count: uniform(count) * np.nan)
    with tf.io.TFRecordWriter(str(path / "assets.extra/tf_serving_warmup_requests")) as writer:
        for signature in verification.SIGNATURES:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.signature_name = signature
            pictures = tf.make_tensor_proto(np.zeros((2, 102, 159), np.uint8))
            log.predict_log.request.inputs["spectrogram"].CopyFrom(pictures)
            writer.write(log.SerializeToString())
    check = verification.Verifier(ExportedModel(str(path))).warm_up_file()
    assert np.isnan(check.difference) and not check.passed


def test_a_candidate_that_brings_its_process_down_is_set_aside(made, dataset_dir, tmp_path):
    def crash(count):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="down")]):
            return uniform(count)

    path = made(crash)
    aside = tmp_path / ".refused-made"
    with pytest.raises(UserFacingError, match=f"ended with -6.*set aside: {aside}"):
        export.verify_and_release(path.name, str(tmp_path), str(dataset_dir))
    report = json.loads((aside / "assets.extra" / "verification.json").read_text())
    assert not report["passed"] and "ended with -6" in report["problem"]
    assert not path.exists()


def test_a_run_that_is_asked_to_stop_does_not_wait_for_the_verification(
    exported, dataset_dir, tmp_path
):
    path = tmp_path / ".candidate-made"
    shutil.copytree(exported.path, path)
    before = processes.descendants(os.getpid())
    with pytest.raises(export.NotVerified):
        export.verify_and_release(
            path.name, str(tmp_path), str(dataset_dir), stop_asked=lambda: True
        )
    assert [there.name for there in tmp_path.iterdir()] == [path.name]
    processes.wait_until_ended(processes.descendants(os.getpid()) - before)


def test_what_a_killed_run_has_left_is_replaced(model_dir):
    from_elsewhere = os.path.relpath(model_dir)
    name = export_folder.candidate_of(str(model_dir))
    assert name == export_folder.candidate_of(from_elsewhere)
    assert name != export_folder.candidate_of(f"{model_dir}2")


def test_model_info(exported, dataset_dir, model_dir):
    info = json.loads((dataset_dir / "dataset_info.json").read_text())
    extra = pathlib.Path(exported.path, "assets.extra")
    written = json.loads((extra / "model_info.json").read_text())
    assert written["class_names"] == info["class_names"]
    assert written["signal"] == info["config"]["spectrogram"]
    assert written["dataset_fingerprint"] == info["fingerprint"]
    assert written["training"]["network"] == {"convolutions": 6, "color": "rgb"}
    assert written["num_parameters"] == 3_345_795
    assert written["evaluation"] == json.loads((model_dir / "evaluation.json").read_text())


def test_the_reference_is_of_the_pictures_and_of_what_is_answered_to_others(exported, dataset_dir):
    """The pictures are those of training; asked, by the export itself, are those of no training."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))

    def pictures(*splits):
        records = [
            values["spectrogram"]
            for name, values in dataset_reader.read_examples(info, str(dataset_dir))
            if name in splits
        ]
        shape = info.config.spectrogram.shape
        return np.stack([np.frombuffer(record, np.uint8).reshape(shape) for record in records])

    found = exported.info.reference
    levels = pictures("train").mean(axis=(1, 2))
    assert sum(found.level.counts) == len(levels)
    assert found.level.edges == pytest.approx(np.quantile(levels, np.arange(1, 10) / 10), abs=1e-3)
    answers = exported.probabilities_of_pictures(pictures("validation", "test"))
    predicted = np.bincount(answers.argmax(axis=1), minlength=3)
    assert list(found.labels) == predicted.tolist()
    expected = np.quantile(answers @ np.arange(3), np.arange(1, 10) / 10)
    assert found.expected_class.edges == pytest.approx(expected, abs=1e-4)


def test_model_card(exported, dataset_dir):
    info = json.loads((dataset_dir / "dataset_info.json").read_text())
    card = pathlib.Path(exported.path, "assets.extra", "model_card.md").read_text()
    assert f"accuracy | {100 * exported.info.evaluation['accuracy']:.1f} %" in card
    for name, scores in exported.info.evaluation["baseline_scores"].items():
        assert f"| {name} " in card and f" {scores['log_loss']:.3f} |" in card
    for name, split in info["splits"].items():
        assert f"| {name} | {split['num_examples']} |" in card
    for part in ("Training data", "Evaluation", "Limits", "Licences", "`medium`: 1,000 to 3,499"):
        assert part in card


def test_the_card_says_of_what_the_classes_are_ranges(small_candidates, small_dataset_dir):
    info = dataset_reader.load_dataset_info(str(small_dataset_dir))
    described = export_folder.info_values(str(small_candidates / ".candidate-first"))
    ranks = dataclasses.replace(
        info,
        thresholds=(0.2, 0.6),
        config=dataclasses.replace(
            info.config, popularity="rank_among_contemporaries", thresholds=(0.2, 0.6)
        ),
    )
    card = model_card.text(described, ranks)
    assert "- `medium`: 0.2 to under 0.6 of its contemporaries\n" in card
    assert "number of listens" not in card


def test_a_training_that_may_end_early_is_not_said_to_have_had_all_its_epochs(
    small_candidates, small_dataset_dir
):
    info = dataset_reader.load_dataset_info(str(small_dataset_dir))
    described = export_folder.info_values(str(small_candidates / ".candidate-first"))
    assert described["training"]["patience"] == 0
    assert "Trained for\n100 epochs in" in model_card.text(described, info)
    described["training"]["patience"] = 5
    assert "Trained for\nup to 100 epochs in" in model_card.text(described, info)
