"""A dataset in 100 generations beside the same one in 1: how soon it is read, and how fast.

The input alone is measured, which is some ten times as fast as a training on a CPU that takes it.
"""

import hashlib
import pathlib
import statistics
import tempfile
import time

from common import dataset_reader, generations, records, relabelling
from common.dataset_config import SPLITS
from common.dataset_info import DatasetInfo
from common.generations import Manifest
from common.relabelling import Correction
from tests.benchmarks.bar import Bar
from tests.benchmarks.made_dataset import make_dataset
from tests.benchmarks.training import examples_a_second, in_turns, ratio
from tests.support.generations import grow_by_parts
from trainer.data import damaged_records, reader

BARS = {
    "start, 100 generations less 1, s": Bar(bar=2.0, better="lower"),
    "start, 100 corrected generations less 1, s": Bar(bar=2.0, better="lower"),
    "input, 100 generations / 1": Bar(bar=0.95, better="higher"),
    "input, 100 corrected generations / 1": Bar(bar=0.90, better="higher"),
}

_EXAMPLES = 8_000
_BATCH = 32
_SHUFFLE_BUFFER = 1_000
# Of a generation: tracks of others whose listens it corrects.
_CORRECTIONS = 1_000


def measure() -> dict[str, float]:
    """The values of `BARS`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        info = make_dataset(folder / "whole", num_shards=1, examples_a_shard=_EXAMPLES)
        (shard,) = info.splits["train"].shards
        with (folder / "whole" / shard.file).open("rb") as file:
            framed = [records.frame(each) for each in records.read_records(file, name=shard.file)]
        for name, count in (("1", 1), ("100", 100), ("100 corrected", 100)):
            grow_by_parts(folder / name, info, framed, count=count)
        correct(folder / "100 corrected")
        names = ("1", "100", "100 corrected")
        starts = {name: [] for name in names}
        for _ in range(9):
            for name in names:
                starts[name].append(seconds_to_a_batch(str(folder / name)))
        for name, seconds in starts.items():
            print(f"{name}: first batch after {statistics.median(seconds):.2f} s", flush=True)
        speeds = in_turns(
            {name: lambda name=name: speed(str(folder / name)) for name in names}, rounds=31
        )
    found = {}
    for name, words in (("100", "100 generations"), ("100 corrected", "100 corrected generations")):
        more = [a - b for a, b in zip(starts[name], starts["1"], strict=True)]
        found[f"start, {words} less 1, s"] = statistics.median(more)
        found[f"input, {words} / 1"] = ratio(speeds[name], speeds["1"])
    return found


def correct(dataset_dir: pathlib.Path) -> None:
    """Makes each generation correct the listens of tracks, most of which are in the dataset."""
    numbers = generations.numbers_in(generations.sizes_below(str(dataset_dir)))
    for manifest in generations.load(str(dataset_dir), numbers):
        folder = pathlib.Path(generations.folder_of(str(dataset_dir), manifest.generation))
        looks = {
            track: Correction(track, generations.text_of(1_760_000_000 + track), track)
            for track in range(manifest.generation, 10 * _CORRECTIONS, 10)
        }
        text = relabelling.corrections_text(looks)
        (folder / relabelling.CORRECTIONS_FILE).write_bytes(text)
        (folder / generations.MANIFEST_FILE).write_text(with_corrections(manifest, text).to_json())


def with_corrections(manifest: Manifest, text: bytes) -> Manifest:
    unchanged = {split: {} for split in SPLITS}
    values = vars(manifest) | {
        "source": manifest.source | {"corrections": len(text.splitlines())},
        "corrected": {"sha256": hashlib.sha256(text).hexdigest(), "class_counts": unchanged},
    }
    return Manifest(**values)


def batches(info: DatasetInfo, folder: str):
    return reader.batches(
        info,
        folder,
        "train",
        batch_size=_BATCH,
        names=("label",),
        shuffle_buffer=_SHUFFLE_BUFFER,
        seed=1,
    )


def seconds_to_a_batch(folder: str) -> float:
    """From a folder that nothing is known of to the first batch of a training."""
    started = time.monotonic()
    with damaged_records.open_dataset(folder, skip_damaged=False) as opened:
        for _ in batches(opened.info, opened.folder).take(1):
            pass
    return time.monotonic() - started


def speed(folder: str) -> float:
    """Examples a second of a whole pass."""
    info = dataset_reader.load_dataset_info(folder)
    return examples_a_second(batches(info, folder), _BATCH)


if __name__ == "__main__":
    print(measure())
