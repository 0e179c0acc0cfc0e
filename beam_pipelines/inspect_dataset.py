r"""Shows what a dataset holds: counts, a contact sheet, a data card, whether it is whole.

python -m beam_pipelines.inspect_dataset --dataset_dir=dataset --output=sheet.png \
    --card=dataset --verify
"""

import os
from collections.abc import Callable

from absl import flags

from beam_pipelines.card import contents, summary
from common import command, dataset_reader, files
from common.errors import UserFacingError, require

_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Where to write a contact sheet, a PNG.")
_CARD = flags.DEFINE_string(
    "card",
    None,
    "Where to write a data card and its pictures: a folder, such as the dataset's own, or a path "
    "that ends in .md.",
)
_VERIFY = flags.DEFINE_bool("verify", False, "Check every shard's SHA-256 and number of records.")


def write(path: str, writer: Callable[[str], str]) -> str:
    """Calls `writer` with a path; UserFacingError if it can't write there."""
    try:
        return writer(path)
    except OSError as error:
        raise UserFacingError(f"{path}: can't be written ({error.strerror or error})") from None


def main(argv: list[str]) -> None:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --verify")
    dataset_dir = _DATASET_DIR.value.rstrip("/")
    info = dataset_reader.load_dataset_info(dataset_dir, check_shards_of=())
    print(summary.table(info))
    if _VERIFY.value:
        found = dataset_reader.damage(info, dataset_dir)
        if found:
            raise UserFacingError("; ".join(found))
        num_shards = sum(len(split.shards) for split in info.splits.values())
        print(f"verified: {num_shards} shards, every checksum and count as described")
    held = contents.read(info, dataset_dir)
    print(f"\n{summary.contents_table(held, info)}")
    if not (_OUTPUT.value or _CARD.value):
        return
    # Loads matplotlib, which the tables do without.
    from beam_pipelines.card import data_card, plots

    def sheet(path: str) -> str:
        folder, name = os.path.split(path)
        files.write_atomically(folder or ".", name, plots.contact_sheet(info, held))
        return path

    print()
    if _OUTPUT.value:
        print(f"contact sheet: {write(_OUTPUT.value, sheet)}")
    if _CARD.value:
        path = write(_CARD.value, lambda path: data_card.write(info, held, path))
        print(f"data card: {path}")


if __name__ == "__main__":
    command.run(main)
