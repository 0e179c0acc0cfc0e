"""An update of `trainer.follow`: what its training costs beside its steps, and its memory.

The cost: a generation of 1 % of a dataset comes, and an update takes it. Counted is its training:
the old clips are drawn, and it trains on them and the new ones, with all that belongs to it
(validation, checkpoints, summaries). That is divided by the time of a plain loop over the same
batches for as many steps, in seconds and in CPU-seconds, which other work on the machine moves
less. Each is a process of its own, which compiles its steps. What else an update does is printed
beside it and not counted, since it has other sizes: the test before the training asks about the new
clips and tells drift from a bounded sample of the old ones; the evaluation and the gate ask about
the test split; an export is written and, if it passes the gate, verified.

Old clips: the bytes that the kernel says were read to draw them, over those of all old training
shards. The training itself must have none of these among its shards. What is read for drift, of old
clips of all splits, is printed beside it.

Memory: `trainer.follow` watches, and takes 50 generations of a step each. Its own, resident; and
the most that each update's process ever had, which grows a little as the test split does.

python -m tests.benchmarks.following update (or: steps) FOLDER measures one there, printed as JSON.
"""

import collections
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from unittest import mock

from common import dataset_reader
from common.generations import generation_of
from tests.benchmarks.bar import Bar
from tests.benchmarks.made_dataset import make_dataset
from tests.support import drifting, generations

_COST, _CPU = "update of 1 % / its steps", "update of 1 % / its steps, CPU-seconds"
_OLD_BYTES = "update of 1 %, old bytes read / all"
_WATCHER, _UPDATE = "follow's memory, generation 50 / 2", "an update's memory, generation 50 / 2"
BARS = {
    _COST: Bar(bar=1.2, better="lower"),
    _CPU: Bar(bar=1.2, better="lower"),
    _OLD_BYTES: Bar(bar=0.1, better="lower"),
    _WATCHER: Bar(bar=1.05, better="lower"),
    _UPDATE: Bar(bar=1.05, better="lower"),
}
_SHARDS, _CLIPS_A_SHARD = 64, 500
_ROUNDS = 3
_GENERATIONS = 50
# A process's peak differs by a few percent from run to run.
_AVERAGED = 5


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return costs(pathlib.Path(folder)) | memory(pathlib.Path(folder))


# ---- what an update costs


def costs(folder: pathlib.Path) -> dict[str, float]:
    """Of an update for each of some generations, in a process of its own each."""
    dataset = folder / "dataset"
    base = make_dataset(dataset, num_shards=_SHARDS, examples_a_shard=_CLIPS_A_SHARD)
    (dataset / "dataset_info.json").write_text(generations.with_digests(base, dataset).to_json())
    found = []
    for number in range(1, _ROUNDS + 1):
        part = folder / f"part{number}"
        size = _SHARDS * _CLIPS_A_SHARD // 100
        make_dataset(part, num_shards=1, examples_a_shard=size, seed=number)
        generations.add(dataset, part, generation=number)
        found.append(measured("update", folder) | measured("steps", folder))
        seconds = {
            name: round(value, 1) for name, value in found[-1].items() if "bytes" not in name
        }
        read = {name: f"{value >> 20} MB" for name, value in found[-1].items() if "bytes" in name}
        print(f"update of 1 %, seconds: {seconds}; {read}", flush=True)
    return {
        name: statistics.median(
            (each[f"draw{unit}"] + each[f"train{unit}"]) / each[f"steps alone{unit}"]
            for each in found
        )
        for name, unit in ((_COST, ""), (_CPU, ", CPU"))
    } | {
        _OLD_BYTES: max(each["old bytes read"] / each["old bytes"] for each in found),
    }


def measured(what: str, folder: pathlib.Path) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, what, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(what: str, folder: pathlib.Path) -> None:
    from configs import six_conv_rgb
    from trainer.continuous import following, workers
    from trainer.continuous.update import Update
    from trainer.follow_config import FollowConfig
    from trainer.run import devices
    from trainer.train_config import TrainConfig

    where = {f"{name}_dir": str(folder / name) for name in ("dataset", "model", "export")}
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    strategy = devices.strategy_for("one_device")
    if not (folder / "export").exists():
        release_untrained(config, strategy, folder)
    done = following.plan.finished(where["model_dir"])
    if what == "update":
        planned = following.begin_next(done, **where, every_generations=1)
    else:
        planned = following.plan.begun(where["model_dir"], len(done))
    update = Update(
        plan=planned,
        config=config,
        follow=FollowConfig(),
        **where,
        workers=workers.Workers(strategy),
        stop_asked=lambda: False,
        before=done,
    )
    print(json.dumps(phases(update) if what == "update" else steps_alone(update, folder / "again")))


def phases(of_update) -> dict[str, float]:
    """The seconds of an update's phases, and the bytes that drawing old clips read."""
    from trainer.continuous import replay, update
    from trainer.run.session import Session

    found: dict[str, float] = collections.defaultdict(int)

    def timed(name, function):
        def call(*arguments, **named):
            started, of_processor = time.monotonic(), time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                found[name] += time.monotonic() - started
                found[f"{name}, CPU"] += time.process_time() - of_processor

        return call

    timed_mix, drawn = timed("draw", replay.mix), update.Update._drawn

    def draw_for_drift(*arguments):
        before = bytes_read()
        records = drawn(*arguments)
        found["old bytes read for drift"] += bytes_read() - before
        return records

    def draw(info, **how):
        before = bytes_read()
        clips = timed_mix(info, **how)
        if "old bytes" not in found:  # what is drawn is there from then on
            old = old_shards(info, how["new"])
            found["old bytes read"] = bytes_read() - before
            found["old bytes"] = sum(shard.bytes for shard in old)
            trained_on = [*clips.splits["train"].shards, *clips.splits["validation"].shards]
            assert not {shard.file for shard in old} & {shard.file for shard in trained_on}
        return clips

    before_training, judge = update.Update._test_before_training, update.Update._judge
    with contextlib.ExitStack() as stack:
        for target, name, replacement in (
            (
                update.Update,
                "_test_before_training",
                timed("test before training", before_training),
            ),
            (update.Update, "_drawn", draw_for_drift),
            (replay, "mix", draw),
            (Session, "run_epochs", timed("train", Session.run_epochs)),
            (Session, "evaluate", timed("evaluate", Session.evaluate)),
            (update.export, "write_candidate", timed("export", update.export.write_candidate)),
            (update.Update, "_judge", timed("gate and verification", judge)),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        timed("all", of_update.run)()
    return found


def steps_alone(of_update, folder: pathlib.Path) -> dict[str, float]:
    """The seconds of the same steps on the same batches, drawn anew into a folder, and how many."""
    from trainer.continuous import replay
    from trainer.run import loop

    planned, dataset_dir = of_update.plan, of_update.dataset_dir
    config = of_update.follow.of_update(of_update.config, number=planned.update)
    info = dataset_reader.load_dataset_info(dataset_dir, pinned=planned.generations)
    folder = folder / str(planned.update)
    folder.mkdir(parents=True)
    clips = replay.mix(
        info,
        new=planned.new,
        share=of_update.follow.replay,
        dataset_dir=dataset_dir,
        folder=str(folder),
        seed=config.seed,
        test=(),
    )
    trainer = loop.Trainer(config, clips, of_update.workers.strategy)
    started, of_processor = time.monotonic(), time.process_time()
    for epoch in range(config.epochs):
        for _ in trainer.run_epoch(dataset_dir, loop.Position(epoch=epoch)):
            pass
    return {
        "steps alone": time.monotonic() - started,
        "steps alone, CPU": time.process_time() - of_processor,
        "steps": config.epochs * trainer.steps_an_epoch,
    }


def old_shards(info, new) -> list:
    """The shards of the training split that are of no new generation."""
    shards = info.splits["train"].shards
    return [shard for shard in shards if generation_of(shard.file) not in new]


def release_untrained(config, strategy, folder: pathlib.Path) -> None:
    """Releases a network of new weights as the version that is followed on from generation 0."""
    from trainer.model import export
    from trainer.run import loop

    info = dataset_reader.load_dataset_info(str(folder / "dataset"), pinned=(0,))
    weights = loop.Trainer(config, info, strategy).model.get_weights()
    where = {"dataset_dir": str(folder / "dataset")}
    name = export.write_candidate(
        weights, config, info, None, str(folder / "export"), **where, origin={}
    )
    export.verify_and_release(name, str(folder / "export"), where["dataset_dir"])


def bytes_read() -> int:
    """What this process has read from files so far, as the kernel counts it."""
    lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


# ---- memory


def memory(folder: pathlib.Path) -> dict[str, float]:
    """Of `trainer.follow` and of its updates, at the last generations over that at the first."""
    folder = folder / "memory"
    sizes = (8, 2, 6)
    drifting.write(folder / "dataset", seed=0, sizes=sizes)
    follow = [
        sys.executable,
        "-m",
        "trainer.follow",
        "--config=configs/two_conv_mono.py",
        "--config.network.convolutions=1",
        "--config.epochs=1",
        "--config.follow.epochs=1",
        "--strategy=one_device",
        f"--dataset_dir={folder / 'dataset'}",
        f"--model_dir={folder / 'model'}",
    ]
    subprocess.run([*follow, "--once"], stdout=subprocess.DEVNULL, check=True)
    for generation in range(1, _GENERATIONS + 1):
        drifting.grow(folder / "dataset", generation, sizes=sizes)
    own: list[int] = []  # as each update's process is seen first
    peaks: dict[int, int] = {}
    done = folder / f"model/updates/{_GENERATIONS + 1:06d}/update.json"
    with subprocess.Popen([*follow, "--poll=0.2"], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not done.exists():
            for pid in children(process.pid):
                if pid not in peaks:
                    own.append(kilobytes(process.pid, "VmRSS"))
                peaks[pid] = max(peaks.get(pid, 0), kilobytes(pid, "VmHWM"))
            time.sleep(0.05)
        process.terminate()
    updates = list(peaks.values())
    for name, values in (("trainer.follow", own), ("its updates", updates)):
        each = [f"{value >> 10:,}" for value in values]
        print(f"{name}, MB at each generation: {' '.join(each)}", flush=True)
    assert len(updates) == _GENERATIONS, "an update failed"
    return {_WATCHER: growth(own), _UPDATE: growth(updates)}


def growth(values: list[int]) -> float:
    """The last ones over those from generation 2 on."""
    first, last = values[1 : 1 + _AVERAGED], values[-_AVERAGED:]
    return statistics.median(last) / statistics.median(first)


def children(pid: int) -> list[int]:
    found = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    with contextlib.suppress(OSError):
        return [int(child) for path in found for child in path.read_text().split()]
    return []


def kilobytes(pid: int, field: str) -> int:
    """A field of a process's status, 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
