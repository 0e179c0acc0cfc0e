r"""Trains a network on a dataset, keeps its best epoch, evaluates that on the test split, exports.

python -m trainer.train --config=configs/six_conv_rgb.py --dataset_dir=dataset --model_dir=model

The same command again resumes where it stopped: at the last checkpoint after a kill, at the last
step after a SIGTERM, which ends it with exit code 75 (EX_TEMPFAIL of sysexits.h). What lies in
--model_dir: `run/model_folder.py`.
"""

from absl import flags

from common import command, lock
from common.errors import require
from trainer.run.stop_signal import EXIT_STOPPED, Stopped, StopSignal
from trainer.train_config import STRATEGIES, TrainConfig

_CONFIG = command.define_config("configs/six_conv_rgb.py")
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Where checkpoints, metrics and evaluation go.", required=True
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where the export goes; <model_dir>/export unless given."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    STRATEGIES,
    "mirrored: all GPUs, or all CPU devices where there is none; multi_worker: those of all "
    "workers in TF_CONFIG; auto: whichever uses all.",
)
_INIT_FROM = flags.DEFINE_string(
    "init_from", None, "Begin with the weights of this --model_dir of another training, or export."
)
_RESET_HEAD = flags.DEFINE_bool(
    "reset_head", False, "With --init_from: start the last layers anew; classes may differ."
)
_SKIP_DAMAGED = flags.DEFINE_bool(
    "skip_damaged", False, "Look for damaged records first, list them, train without them."
)
_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)


def main(argv: list[str]) -> int:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --model_dir=model")
    stop = StopSignal()
    stop.listen()
    try:
        config = TrainConfig.from_dict(command.config_values(_CONFIG))
        with command.kept_back_stderr(), stop.blocked():
            # Here: a mistake in a flag should not wait for them.
            from trainer.run import cluster, folder_lock, session
        model_dir = _MODEL_DIR.value.rstrip("/")
        export_dir = (_EXPORT_DIR.value or f"{model_dir}/export").rstrip("/")
        folders = (model_dir, export_dir) if cluster.is_chief_here(_STRATEGY.value) else ()
        with folder_lock.hold(*folders, force=_FORCE_UNLOCK.value):
            finished = session.train(
                config,
                dataset_dir=_DATASET_DIR.value.rstrip("/"),
                model_dir=model_dir,
                export_dir=export_dir,
                strategy=_STRATEGY.value,
                skip_damaged=_SKIP_DAMAGED.value,
                stop=stop,
                init_from=None if _INIT_FROM.value is None else _INIT_FROM.value.rstrip("/"),
                reset_head=_RESET_HEAD.value,
            )
    except Stopped:
        print("stopped as asked, before a step was done; the same command goes on", flush=True)
        finished = False
    return 0 if finished else EXIT_STOPPED


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
