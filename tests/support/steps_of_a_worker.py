"""Trains some steps, as one of several workers if TF_CONFIG says so, and writes down what it saw.

python -m tests.support.steps_of_a_worker dataset_dir folder → folder/<worker>.npz
"""

import sys
import zlib

import numpy as np

from common import dataset_reader
from configs import two_conv_mono
from trainer.run import devices, loop
from trainer.train_config import TrainConfig

NUM_STEPS = 20


def main(dataset_dir: str, folder: str) -> None:
    strategy = devices.strategy_for("auto")
    info = dataset_reader.load_dataset_info(dataset_dir)
    values = two_conv_mono.get_config().to_dict()
    config = TrainConfig.from_dict(values | {"dropout": 0.0, "batch_size": 4, "steps_per_call": 1})
    trainer = loop.Trainer(config, info, strategy)
    predictions = trainer.predict(dataset_dir, "test")
    seen = examples_of_an_epoch(trainer, dataset_dir)
    losses, epoch = [], 0
    while len(losses) < NUM_STEPS:
        before = loop.Position(epoch=epoch)
        for progress in trainer.run_epoch(dataset_dir, before):
            now = progress.position
            losses.append((now.loss - before.loss) / (now.weight - before.weight))
            before = now
        epoch += 1
    np.savez(
        f"{folder}/{devices.local_replicas(strategy)[0]}.npz",
        losses=losses,
        seen=seen,
        weights=np.concatenate([weight.ravel() for weight in trainer.model.get_weights()]),
        probabilities=predictions.probabilities,
    )


def examples_of_an_epoch(trainer: loop.Trainer, dataset_dir: str) -> list[tuple[int, int]]:
    """(index in the epoch, checksum of the picture) of each example that came to this worker."""
    seen = []
    iterator = iter(trainer.distributed("train", dataset_dir, epoch=0))
    for _ in range(trainer.steps_an_epoch):
        batch = next(iterator)
        columns = (
            trainer.strategy.experimental_local_results(batch[name])
            for name in ("index", "spectrogram", "weight")
        )
        for index, picture, weight in zip(*columns, strict=True):
            kept = np.flatnonzero(weight.numpy())
            seen += [(int(index[i]), zlib.crc32(picture[i].numpy().tobytes())) for i in kept]
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
