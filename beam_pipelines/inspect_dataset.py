r"""Shows what a dataset holds: counts, a contact sheet of its pictures, whether it is whole.

python -m beam_pipelines.inspect_dataset --dataset_dir=dataset --output=sheet.png --verify
"""

from collections import Counter

from absl import flags

from beam_pipelines import command, dataset_reader, report, storage
from beam_pipelines.command import InputError

_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Where to write a contact sheet, a PNG.")
_VERIFY = flags.DEFINE_bool("verify", False, "Check every shard's SHA-256 and number of records.")

_EXAMPLES_OF_A_CLASS = 5


def main(_: list[str]) -> None:
    dataset_dir = _DATASET_DIR.value.rstrip("/")
    info = dataset_reader.load_info(dataset_dir)
    print(report.table(info))
    if _VERIFY.value:
        found = dataset_reader.damage(info, dataset_dir)
        if found:
            raise InputError("; ".join(found))
        num_shards = sum(len(split.shards) for split in info.splits.values())
        print(f"verified: {num_shards} shards, every checksum and count as described")
    genres, shown = Counter(), {label: [] for label in range(len(info.class_names))}
    for _, example in dataset_reader.read_examples(info, dataset_dir):
        genres[example["genre"].decode() or "unknown"] += 1
        if len(shown[example["label"]]) < _EXAMPLES_OF_A_CLASS:
            shown[example["label"]].append(example)
    print("genres: " + ", ".join(f"{genre} {count:,}" for genre, count in genres.most_common()))
    if _OUTPUT.value:
        folder, _, name = _OUTPUT.value.rpartition("/")
        try:
            storage.write_atomically(folder or ".", name, report.contact_sheet(info, shown))
        except OSError as error:
            raise InputError(f"{_OUTPUT.value}: can't be written ({error.strerror})") from None
        print(f"contact sheet: {_OUTPUT.value}")


if __name__ == "__main__":
    command.run(main)
