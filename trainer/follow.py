r"""Follows a dataset that grows: tests on what is new, trains on it, releases what passes the gate.

python -m trainer.follow --config=configs/six_conv_rgb.py --dataset_dir=dataset --model_dir=model \
    --export_dir=export

Looks every --poll for new generations; with --once it ends when none is left. The same command goes
on wherever it was stopped or killed. What lies in --model_dir: `continuous/plan.py`.

Several workers, each with its TF_CONFIG, train an update together; the chief alone does the rest.

With --dry_run it releases nothing; with --release=UPDATE --reason=TEXT it releases what that update
has set aside, and does nothing else.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from common import command, generations, lock
from common.errors import require
from trainer.continuous import following, plan
from trainer.continuous.plan import Plan
from trainer.follow_config import FollowConfig
from trainer.run import cluster, rendezvous
from trainer.run.child import Child
from trainer.run.stop_signal import EXIT_STOPPED, Stopped, StopSignal
from trainer.train_config import STRATEGIES, TrainConfig

_CONFIG = command.define_config("configs/six_conv_rgb.py")
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "The dataset, to which generations are added.", required=True
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Where the updates and the curve go.", required=True
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where the versions go; <model_dir>/export unless given."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    STRATEGIES,
    "mirrored: all devices of this machine; one_device: the first; multi_worker: those of all "
    "workers in TF_CONFIG; auto: all there are.",
)
_EVERY_GENERATIONS = flags.DEFINE_integer(
    "every_generations", 1, "How many new generations an update takes.", lower_bound=1
)
_ONCE = flags.DEFINE_bool("once", False, "End when there is nothing new, instead of waiting.")
_POLL = flags.DEFINE_float("poll", 30.0, "Seconds between two looks.", lower_bound=0.1)
_MAX_UPDATES = flags.DEFINE_integer(
    "max_updates", 0, "With --once: end after so many updates; 0 for all.", lower_bound=0
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Set aside what passes the gate too, instead of releasing it."
)
_RELEASE = flags.DEFINE_integer(
    "release", None, "Release what this update has set aside, whatever the gate said.",
    lower_bound=1,
)  # fmt: skip
_REASON = flags.DEFINE_string("reason", None, "Why --release; recorded with the release.")
_BY = flags.DEFINE_string(
    "by", None, "Who decides on --release; whoever is logged in unless given."
)
_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)

_SECONDS_BETWEEN_LOOKS_AT_A_CHILD = 0.2


def main(argv: list[str]) -> int:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --model_dir=model")
    require(
        _RELEASE.value is None or _REASON.value is not None,
        f"--release={_RELEASE.value}: why? --reason=TEXT says so, and is recorded",
    )
    require(
        _RELEASE.value is not None or (_REASON.value is None and _BY.value is None),
        "--reason and --by belong to --release=UPDATE",
    )
    require(
        _RELEASE.value is None or not _DRY_RUN.value, "--release and --dry_run exclude each other"
    )
    require(
        _ONCE.value or not _MAX_UPDATES.value,
        f"--max_updates={_MAX_UPDATES.value}: without --once it watches for ever; give both",
    )
    stop = StopSignal()
    stop.listen()
    try:
        values = command.config_values(_CONFIG)
        config = TrainConfig.from_dict(values)
        follow = FollowConfig.from_dict(values.get("follow", {}))
        cluster.check(_STRATEGY.value)
        if _RELEASE.value is not None:
            require(
                not cluster.is_multi_worker(_STRATEGY.value),
                "--release: it takes no workers; --strategy=one_device releases without the others",
            )
            return _release(_RELEASE.value)
        if _ONCE.value:
            return _follow(config, follow, stop)
        return _watch(sys.argv[1:])
    except Stopped:
        print("stopped as asked; the same command goes on", flush=True)
        return EXIT_STOPPED


def _folders() -> dict[str, str]:
    model_dir = _MODEL_DIR.value.rstrip("/")
    return {
        "dataset_dir": _DATASET_DIR.value.rstrip("/"),
        "model_dir": model_dir,
        "export_dir": (_EXPORT_DIR.value or f"{model_dir}/export").rstrip("/"),
    }


def _follow(config: TrainConfig, follow: FollowConfig, stop: StopSignal) -> int:
    """Does one update after the other, until there is nothing new; in the chief, with the others.

    Another worker trains the updates that the chief has planned, and ends when that does.
    """
    folders = _folders()
    with command.kept_back_stderr(), stop.blocked():
        from trainer.continuous import override, workers
        from trainer.continuous.update import Update
        from trainer.run import devices, folder_lock
    rendezvous.meet_workers(_STRATEGY.value)
    with stop.blocked():
        strategy = devices.strategy_for(_STRATEGY.value)
    stop.wait_for_steps()

    def update_of(
        planned: Plan, done: Sequence[dict[str, Any]], with_workers: workers.Workers
    ) -> Update:
        return Update(
            plan=planned,
            config=config,
            follow=follow,
            **folders,
            workers=with_workers,
            stop_asked=stop.has_come,
            before=done,
            dry_run=_DRY_RUN.value,
        )

    def lead(with_workers: workers.Workers) -> int:
        with folder_lock.hold(
            folders["model_dir"], folders["export_dir"], force=_FORCE_UNLOCK.value
        ):
            override.finish_begun(**folders)
            count = 0
            while not _MAX_UPDATES.value or count < _MAX_UPDATES.value:
                if stop.has_come():
                    print("stopped as asked; the same command goes on", flush=True)
                    return EXIT_STOPPED
                done = plan.finished(folders["model_dir"])
                following.write_history(folders["model_dir"], done)
                planned = following.begin_next(
                    done, **folders, every_generations=_EVERY_GENERATIONS.value
                )
                if planned is None:
                    break
                outcome = update_of(planned, done, with_workers).run()
                if outcome is None:
                    print("stopped as asked; the same command goes on", flush=True)
                    return EXIT_STOPPED
                following.write_history(folders["model_dir"], [*done, outcome])
                print(following.in_words(outcome, folders["export_dir"]), flush=True)
                count += 1
            if not count:
                print("nothing new", flush=True)
        return 0

    def train(update: int, with_workers: workers.Workers) -> None:
        planned = plan.begun(folders["model_dir"], update)
        assert planned is not None  # written by the chief
        update_of(planned, (), with_workers).train_with_chief()

    return workers.run(strategy, lead=lead, train=train)


def _release(update: int) -> int:
    """Releases what an update has set aside, by a person's decision."""
    folders = _folders()
    with command.kept_back_stderr():
        from trainer.continuous import override
        from trainer.run import folder_lock, gate

    decision = gate.override_now(reason=_REASON.value or "", by=_BY.value)
    with folder_lock.hold(folders["model_dir"], folders["export_dir"], force=_FORCE_UNLOCK.value):
        done = override.release(update, decision, **folders)
        following.write_history(folders["model_dir"], plan.finished(folders["model_dir"]))
    print(following.in_words(done, folders["export_dir"]), flush=True)
    return 0


def _watch(arguments: Sequence[str]) -> int:
    """Starts a process for what is new, whenever there is some; ends as that does if not well.

    Each is one of its own, so that the memory of TensorFlow does not grow from update to update.
    Each worker of several does so; their processes meet, and what is new the chief's decides.
    """
    folders = _folders()
    is_chief = cluster.is_chief_here(_STRATEGY.value)
    argv = [sys.executable, "-m", "trainer.follow", *arguments, "--once", "--max_updates=1"]
    print(f"watching {folders['dataset_dir']}", flush=True)
    looked: list[int] | None = None
    while True:
        # The manifests are read only when there is another one.
        there = generations.numbers_in(generations.sizes_below(folders["dataset_dir"]))
        if there == looked:
            time.sleep(_POLL.value)
            continue
        done = plan.finished(folders["model_dir"])
        planned = following.next_plan(done, **folders, every_generations=_EVERY_GENERATIONS.value)
        if planned is None:
            looked = there
            continue
        child = Child(argv, name=f"update {planned.update}", env={})
        try:
            while (code := child.code()) is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_A_CHILD)
        except BaseException:
            child.ask_to_stop()
            while child.code() is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_A_CHILD)
            raise
        finally:
            child.end()
        if code:
            return code
        if not is_chief:
            rendezvous.wait_for_end(cluster.chief_address())


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
