"""A model that follows a dataset: what it does at each generation, and after a kill."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from common import dataset_reader, export_folder
from common.errors import UserFacingError
from tests.support import drifting
from tests.support.commands import assert_refused, run_module, start_module
from trainer.continuous import override, plan
from trainer.continuous.update import Update
from trainer.evaluation.gate_report import Override
from trainer.run.loop import Diverged, Position

FLAGS = [
    "--config=configs/two_conv_mono.py",
    "--config.network.convolutions=1",
    "--config.network.standardize",
    "--config.network.initializer=he",
    "--config.epochs=6",
    "--config.follow.epochs=6",
]
# What can be compared: dropout is drawn by each worker by itself.
EXACT = ["--config.deterministic", "--config.dropout=0.0", "--config.follow.epochs=3"]


def command(folder, *flags, strategy="one_device"):
    return [
        "trainer.follow",
        *FLAGS,
        f"--strategy={strategy}",
        f"--dataset_dir={folder / 'dataset'}",
        f"--model_dir={folder / 'model'}",
        f"--export_dir={folder / 'export'}",
        *flags,
    ]


def follow(folder, *flags):
    result = run_module(*command(folder, "--once", *flags))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def updates(folder) -> list[dict]:
    return [
        json.loads((path / "update.json").read_text())
        for path in sorted((folder / "model/updates").iterdir())
    ]


def history(folder) -> list[dict]:
    text = (folder / "model/prequential.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.integration
def test_what_makes_a_song_popular_changes(tmp_path):
    """At generation 2: follow recovers within two generations, the first model does not."""
    drifting.write(tmp_path / "dataset", seed=0, sizes=(150, 30, 90))
    flags = ("--config.follow.replay=0.2", "--config.follow.test_generations=2")
    follow(tmp_path, *flags)
    for generation in (1, 2, 3, 4):
        drifting.grow(tmp_path / "dataset", generation, turned=generation >= 2)
    told = follow(tmp_path, *flags)
    lines = history(tmp_path)
    accuracy = {
        model: [line["models"][model]["accuracy"] for line in lines]
        for model in ("follow", "first")
    }
    assert [line["generation"] for line in lines] == [1, 2, 3, 4]
    assert accuracy["follow"][0] > 0.8
    assert accuracy["follow"][1] < 0.6
    assert accuracy["follow"][3] > 0.75
    assert max(accuracy["first"][1:]) < 0.6
    assert [bool(line["drift"]) for line in lines] == [False, True, False, False], told
    assert (tmp_path / "model/prequential.png").read_bytes().startswith(b"\x89PNG")
    assert all(update["steps"] <= 6 * 5 for update in updates(tmp_path)[1:])


def watch_until(seen, folder):
    """Follows without --once until something is seen, and asks it to stop."""
    process = start_module(*command(folder, "--poll=0.2", *EXACT))
    while not seen() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    told = process.communicate()[0]
    assert process.returncode == 75, told
    assert "[update 2] update 2, generation 2" in told


# What there is below a folder when a moment of update 2 has come, in their order.
MOMENTS = {
    "plan": "model/updates/000002/plan.json",
    "test before training": "model/updates/000002/before.json",
    "training": "model/updates/000002/checkpoints/ckpt-*.npz",
    "evaluation": "model/updates/000002/evaluation.json",
    "export": "export/.candidate-*",
    "export done": f"export/.candidate-*/{export_folder.WARM_UP_FILE}",
    "gate": "model/updates/000002/gate.json",
    "verification": f"export/.candidate-*/{export_folder.REPORT_FILE}",
    "release": "export/2/saved_model.pb",
}
KILLS = int(os.environ.get("SOAK_FOLLOW_KILLS", "2"))


def moments_of_kills() -> list[str]:
    """Two that matter, and as many others at random as `make soak` asks for."""
    matter, names = ["training", "release"], list(MOMENTS)
    others = random.Random(5).choices(names, k=max(0, KILLS - len(matter)))
    return sorted([*matter, *others], key=names.index)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Folders as they are before update 2 and after it, where nobody stops it."""
    whole = tmp_path_factory.mktemp("followed") / "whole"
    before = whole.parent / "before"
    drifting.write(whole / "dataset", seed=0, sizes=(24, 6, 60))
    drifting.grow(whole / "dataset", 1, sizes=(8, 0, 60))
    follow(whole, "--config.epochs=1", *EXACT)
    # So much more to learn from that the gate lets it pass.
    drifting.grow(whole / "dataset", 2, sizes=(300, 30, 30))
    shutil.copytree(whole, before)
    follow(whole, *EXACT)
    return before, whole


@pytest.mark.integration
def test_kills_at_any_moment(followed, tmp_path):
    """The same releases as without, none twice, no number reused."""
    before, whole = followed
    killed = tmp_path / "killed"
    shutil.copytree(before, killed)
    draw, plans, told = random.Random(7), set(), ""
    export, update = killed / "export", killed / "model/updates/000002"
    flags = ("--once", *EXACT, "--config.checkpoint_seconds=0")
    for moment in moments_of_kills():
        process = start_module(*command(killed, *flags))
        while not list(killed.glob(MOMENTS[moment])) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        told += process.communicate()[0]
        assert "Traceback" not in told and "error: " not in told, told
        plans |= {path.read_bytes() for path in update.glob("plan.json")}
        numbered = sorted(path.name for path in export.iterdir() if path.name.isdecimal())
        assert numbered in (["1"], ["1", "2"])
    if not (update / "update.json").exists():  # the last one may have come behind all that is done
        watch_until((update / "update.json").exists, killed)
    assert plans == {(update / "plan.json").read_bytes()}
    assert "resumed after" in told

    found, expected = updates(killed), updates(whole)
    assert [each["outcome"] for each in expected] == ["released"] * 2, expected[-1]["reasons"]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("outcome", "export", "generations", "new", "starts_from", "clips", "steps"):
            assert ours[name] == theirs[name], name
    evaluations = {
        (folder / "model/updates/000002/evaluation.json").read_bytes() for folder in (whole, killed)
    }
    assert len(evaluations) == 1
    assert sorted(path.name for path in export.iterdir()) == ["1", "2"]
    described = [export_folder.info_values(str(export / version)) for version in ("1", "2")]
    assert [each["update"]["id"] for each in described] == [each["id"] for each in found]
    assert described[1]["dataset_generations"] == [0, 1, 2]
    assert described[1]["init_from"]["path"] == str(export / "1")
    training = json.loads((update / "training.json").read_text())
    assert training["dataset"]["generations"] == [0, 1, 2]
    assert json.loads((update / "gate.json").read_text())["passes"]
    assert "nothing new" in follow(killed)


# Watching, each worker has a process for each update, which meet anew; it costs twice the time.
WATCHES = [False, *([True] if KILLS > 2 else [])]


@pytest.mark.integration
@pytest.mark.parametrize("watches", WATCHES)
def test_two_workers_follow_as_one_device_does(watches, followed, tmp_path):
    """Over two generations, with a worker killed in the first update's training."""
    before, whole = followed
    alone, group = tmp_path / "alone", tmp_path / "group"
    shutil.copytree(whole, alone)
    shutil.copytree(before, group)
    for folder in (alone, group):
        drifting.grow(folder / "dataset", 3, sizes=(20, 4, 30))
    flags = (*EXACT, "--config.checkpoint_seconds=0")
    follow(alone, *flags)

    _, *of_follow = command(group, "--poll=0.2" if watches else "--once", *flags, strategy="auto")
    launch = ["trainer.launch", "--workers=2", "--module=trainer.follow", "--", *of_follow]
    process = start_module(*launch)
    while not list(group.glob(MOMENTS["training"])) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pids()[-1], signal.SIGKILL)
    if watches:
        while not (group / "model/updates/000003/update.json").exists() and process.poll() is None:
            time.sleep(0.1)
        process.terminate()
    told = process.communicate()[0]
    assert process.returncode == (75 if watches else 0), told
    assert "; all start again, 2 restarts left" in told and "resumed after" in told, told
    assert "Traceback" not in told and "error: " not in told, told

    found, expected = updates(group), updates(alone)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("outcome", "generations", "new", "clips", "steps"):
            assert ours[name] == theirs[name], (name, told)
    assert [each["new"] for each in found] == [[], [2], [3]]
    curves = [
        [
            json.loads(line)["loss"]
            for update in ("000002", "000003")
            for line in (folder / f"model/updates/{update}/metrics.jsonl").read_text().splitlines()
        ]
        for folder in (group, alone)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    tested = [[line["models"]["follow"] for line in history(folder)] for folder in (group, alone)]
    for name in ("accuracy", "log_loss"):
        ours, theirs = ([line[name] for line in lines] for lines in tested)
        assert ours == pytest.approx(theirs, rel=1e-3)
    versions = [
        sorted(path.name for path in (folder / "export").iterdir() if path.name.isdecimal())
        for folder in (group, alone)
    ]
    assert versions[0] == versions[1]


@pytest.mark.integration
def test_a_person_releases_what_was_set_aside(tmp_path):
    """After a dry run, and against the gate; who, when and why stands wherever the release does."""
    drifting.write(tmp_path / "dataset", seed=0, sizes=(24, 6, 60))
    quick = ("--config.epochs=1", "--config.follow.epochs=1")
    told = follow(tmp_path, "--dry_run", *quick)
    (first,) = updates(tmp_path)
    aside = tmp_path / "export" / first["export"]
    assert first["outcome"] == "dry run" and "--release=1" in told
    assert first["export"].startswith(".refused-") and aside.is_dir()
    assert json.loads((aside / export_folder.REPORT_FILE).read_text())["passed"]
    assert "nothing new" in follow(tmp_path, "--dry_run", *quick)
    decided = ("--reason=we saw <it> work", "--by=Ada")
    told = follow(tmp_path, "--release=1", *decided)
    assert "released" in told and "overridden: we saw <it> work (Ada, " in told
    (first,) = updates(tmp_path)
    assert (first["outcome"], first["export"]) == ("released", "1")

    drifting.grow(tmp_path / "dataset", 1, sizes=(8, 0, 60))
    follow(tmp_path, *quick)
    second = updates(tmp_path)[1]
    assert second["outcome"] == "set aside" and second["starts_from"] == "1"
    # As a kill may leave it, between the decision and the release.
    decision = {"reason": "listeners ask for it", "by": "Ada", "at": "2026-11-27T18:00:00Z"}
    folder, export = tmp_path / "model/updates/000002", tmp_path / "export"
    (folder / "override.json").write_text(json.dumps(decision))
    (export / second["export"]).rename(export / f".candidate-{second['id']}")
    assert "nothing new" in follow(tmp_path, *quick)
    second = updates(tmp_path)[1]
    assert (second["outcome"], second["export"]) == ("released", "2")
    assert second["override"] == decision and second["reasons"]
    judged = json.loads((export / "2/assets.extra/gate.json").read_text())
    assert judged["override"] == decision
    assert judged["would_be_released"] and not judged["passes"]
    assert json.loads((export / "2" / export_folder.INFO_FILE).read_text())["override"] == decision
    assert json.loads((export / "2" / export_folder.REPORT_FILE).read_text())["passed"]
    assert [(line["outcome"], line["override"]) for line in history(tmp_path)] == [
        ("released", decision)
    ]
    assert sorted(path.name for path in export.iterdir()) == ["1", "2"]
    folders = {f"{name}_dir": str(tmp_path / name) for name in ("dataset", "model", "export")}
    for update, problem in ((2, "released as version 2"), (9, "--release=9: .* there are 2")):
        with pytest.raises(UserFacingError, match=problem):
            override.release(update, Override(**decision), **folders)


def test_what_diverged_leaves_nothing_that_only_its_training_needs(tmp_path, monkeypatch):
    folder = tmp_path / "model/updates/000001"
    for name in ("checkpoints/ckpt-1.npz", "best/ckpt-1.npz", "replay-train.tfrecord"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

    def diverge(*_):
        raise Diverged(Position())

    monkeypatch.setattr(dataset_reader, "load_dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(Update, "_test_before_training", lambda *_: {"prequential": []})
    monkeypatch.setattr(Update, "_described", lambda *_: {"clips": {"new": 1, "old": 1}})
    monkeypatch.setattr(Update, "_train", diverge)
    done = Update(
        plan=plan.Plan(
            update=1,
            id="one",
            generations=(0, 1),
            new=(1,),
            starts_from="1",
            served="1",
            first="1",
        ),
        config=None,
        follow=None,
        dataset_dir=str(tmp_path / "dataset"),
        model_dir=str(tmp_path / "model"),
        export_dir=str(tmp_path / "export"),
        workers=None,
        stop_asked=lambda: False,
        before=(),
    ).run()
    assert done["outcome"] == plan.DIVERGED
    assert plan.finished(str(tmp_path / "model")) == [json.loads(json.dumps(done))]
    assert [path.name for path in folder.iterdir()] == [plan.DONE_FILE]


def test_a_release_by_a_person_has_a_reason(tmp_path):
    assert_refused(run_module(*command(tmp_path, "--release=2")), "--release=2", "--reason")
    assert_refused(run_module(*command(tmp_path, "--release=2", "--reason= ")), "reason")
    assert_refused(run_module(*command(tmp_path, "--reason=so")), "--release")
    both = ("--release=2", "--reason=so", "--dry_run")
    assert_refused(run_module(*command(tmp_path, *both)), "--dry_run")


def test_what_can_not_follow_is_refused(tmp_path):
    assert_refused(run_module(*command(tmp_path, strategy="multi_worker")), "TF_CONFIG")
    several = json.dumps(
        {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    )
    release = command(tmp_path, "--release=2", "--reason=so", strategy="auto")
    assert_refused(run_module(*release, env={"TF_CONFIG": several}), "--release", "workers")
    assert_refused(run_module(*command(tmp_path, "--once")), "dataset", "no such folder")
    assert_refused(run_module(*command(tmp_path, "--max_updates=2")), "--max_updates=2", "--once")
    assert_refused(run_module(*command(tmp_path, "--config.follow.replay=1.0")), "follow.replay")
    assert not (tmp_path / "model/updates").exists()
