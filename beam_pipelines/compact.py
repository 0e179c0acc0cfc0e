r"""Merges the generations of a dataset into one, which readers take in their place.

python -m beam_pipelines.compact --dataset_dir=dataset
python -m beam_pipelines.compact --dataset_dir=dataset --remove_replaced

It needs no audio and no engine. What was merged stays for those who began with it, until
--remove_replaced deletes it. docs/streaming.md tells the rest.
"""

from absl import flags

from beam_pipelines.stream import compaction, run
from common import command, dataset_reader, lock
from common.errors import require

_DATASET_DIR = flags.DEFINE_string("dataset_dir", None, "The dataset that grows.", required=True)
_REMOVE_REPLACED = flags.DEFINE_bool(
    "remove_replaced",
    False,
    "Merge nothing; delete the generations that another one replaced. A training that began with "
    "them can't go on.",
)
_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)


def main(argv: list[str]) -> None:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --dataset_dir=dataset")
    dataset_dir = _DATASET_DIR.value.rstrip("/")
    dataset_reader.first_info(dataset_dir)  # else the lock would make a folder
    with lock.hold(dataset_dir, force=_FORCE_UNLOCK.value):
        if _REMOVE_REPLACED.value:
            numbers, num_bytes = compaction.remove_replaced(dataset_dir)
            print(f"removed {num_bytes:,} bytes of {len(numbers):,} replaced generations")
            return
        manifest = compaction.compact(dataset_dir)
        print(run.in_words(manifest))
        print(
            f"it replaces {len(manifest.replaces):,} generations, whose files stay until "
            "--remove_replaced"
        )


if __name__ == "__main__":
    command.run(main)
