"""CPU-seconds and page faults of a training step, with and without this project's settings.

python -m tests.benchmarks.step_costs STEPS prints both, of the process's own settings, as
`measure` starts it: each setting needs a process of its own, since TensorFlow and glibc read them
once.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

from common import dataset_reader
from tests.benchmarks.bar import Bar

_ALONE = "CPU-seconds a step / without oneDNN, memory given back"
BARS = {
    _ALONE: Bar(bar=0.45, better="lower"),
    "page faults a step": Bar(bar=2_000, better="lower"),
}
_STEPS, _ROUNDS = 20, 3
# TensorFlow's own on a processor with AVX2 alone, and glibc's.
_WITHOUT = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072",
    "KEEP_FREED_MEMORY": "no",
}


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        ours, without = [], []
        for _ in range(_ROUNDS):
            ours.append(_costs(folder, {}))
            without.append(_costs(folder, _WITHOUT))
    for name, costs in (("ours", ours), ("without", without)):
        seconds, faults = (statistics.median(column) for column in zip(*costs, strict=True))
        print(f"{name}: {seconds:.2f} CPU-seconds and {faults:,.0f} page faults a step")
    ratios = [a[0] / b[0] for a, b in zip(ours, without, strict=True)]
    return {
        _ALONE: statistics.median(ratios),
        "page faults a step": statistics.median(faults for _, faults in ours),
    }


def _costs(folder: str, settings: dict[str, str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "tests.benchmarks.step_costs", folder, str(_STEPS)]
    done = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=True
    )
    seconds, faults = json.loads(done.stdout.splitlines()[-1])
    return seconds, faults


def main(folder: str, num_steps: int) -> None:
    if os.environ.get("KEEP_FREED_MEMORY") == "no":
        from common import tensorflow_environment

        tensorflow_environment.keep_freed_memory = lambda: None
    import pathlib

    import tensorflow as tf

    from configs import six_conv_rgb
    from tests.benchmarks import training
    from tests.benchmarks.made_dataset import make_dataset
    from trainer.run import devices, loop
    from trainer.train_config import TrainConfig

    directory = pathlib.Path(folder) / "dataset"
    if not directory.exists():
        make_dataset(directory, num_shards=1, examples_a_shard=64)
    config = TrainConfig.from_dict(six_conv_rgb.get_config().to_dict())
    info = dataset_reader.load_dataset_info(str(directory))
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    batches = training.in_memory(trainer, directory)

    def run(count: int) -> resource.struct_rusage:
        trainer.run_steps(batches, tf.constant(count), tf.constant(0))
        return resource.getrusage(resource.RUSAGE_SELF)

    before, after = run(5), run(num_steps)
    seconds = sum(after[:2]) - sum(before[:2])
    faults = after.ru_minflt - before.ru_minflt
    print(json.dumps([seconds / num_steps, faults / num_steps]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
