"""What lies in the folder of a dataset while it is made, and when it is done.

{split}.tfrecord-*     whole shards; each has its name only when all of it is written
.done-{shard}.json     what went into a shard, written after it: it need not be made again
.plan.json             what the dataset is made of, so that a run can go on
.tmp-*                 what is being written
rejected.jsonl         every clip that could not be used
dataset_info.json      written last; then the hidden files are deleted
dataset_card*          of `inspect_dataset --card`; goes when the dataset is replaced
"""

import enum
import hashlib
import json
import re
from typing import Any

from beam_pipelines import dataset_info, storage
from beam_pipelines.command import InputError, differences
from beam_pipelines.dataset_config import SPLITS, DatasetConfig

REJECTED_FILE = "rejected.jsonl"
CARD_FILE = "dataset_card.md"
_PLAN_FILE = ".plan.json"
_DONE_PREFIX = ".done-"


class Mode(enum.Enum):
    """What a run does with what is in the folder."""

    NEW = "new"  # nothing of a dataset is there, or it is to be replaced
    GO_ON = "go on"  # an unfinished run of the same dataset: its whole shards are kept
    RETRY = "retry"  # a finished dataset, whose rejected and missing clips are tried again
    FINISHED = "finished"  # there is nothing to do


def identity(config: DatasetConfig, catalog_sha256: str, versions: dict[str, str]) -> dict:
    """What a dataset is made of; audio is not part of it, so that more of it can come later."""
    return {"config": config.to_dict(), "catalog_sha256": catalog_sha256, "versions": versions}


def mode(output_dir: str, mine: dict, *, overwrite: bool, retry_rejected: bool) -> Mode:
    """What a run of the dataset `mine` (its identity) is to do.

    Raises:
        InputError: the folder holds another dataset, or there is none whose rejected clips could
            be tried again.
    """
    if overwrite:
        return Mode.NEW
    info = _read_json(output_dir, dataset_info.FILE_NAME)
    theirs = info or _read_json(output_dir, _PLAN_FILE)
    if theirs is None:
        if retry_rejected:
            raise InputError(f"{output_dir}: no dataset whose rejected clips could be tried again")
        if any(map(_is_shard, storage.names_in(output_dir))):
            raise InputError(
                f"{output_dir}: shards of unknown origin ({dataset_info.FILE_NAME} is missing); "
                "take another --output_dir, or --overwrite replaces them"
            )
        return Mode.NEW
    found = differences({key: theirs[key] for key in mine}, mine)
    if found:
        raise InputError(
            f"{output_dir} holds another dataset: {'; '.join(found)}; take another --output_dir, "
            "or --overwrite replaces it"
        )
    if info is None:
        return Mode.GO_ON
    return Mode.RETRY if retry_rejected else Mode.FINISHED


def prepare(output_dir: str, run_mode: Mode, plan: dict[str, Any]) -> None:
    """Makes the folder ready for the shards of a run; `plan` is the identity and more."""
    storage.make_folder(output_dir)
    names = storage.names_in(output_dir)
    # The description goes first: without it the folder is unfinished.
    storage.delete(output_dir, [name for name in names if name == dataset_info.FILE_NAME])
    if run_mode is Mode.NEW:
        storage.delete(output_dir, [name for name in names if _is_shard(name)])
    if run_mode is not Mode.GO_ON:
        storage.delete(output_dir, [name for name in names if name.startswith(_DONE_PREFIX)])
    storage.delete(output_dir, [n for n in names if _is_temporary(n) or _is_card(n)])
    storage.write_atomically(output_dir, _PLAN_FILE, json.dumps(plan).encode())


def clear_hidden(output_dir: str) -> None:
    """Deletes what is only needed while a dataset is made."""
    names = storage.names_in(output_dir)
    hidden = [n for n in names if _is_temporary(n) or n.startswith(_DONE_PREFIX) or n == _PLAN_FILE]
    storage.delete(output_dir, hidden)


def _is_temporary(name: str) -> bool:
    return name.startswith(storage.TEMPORARY_PREFIX)


def _is_card(name: str) -> bool:
    return re.fullmatch(r"dataset_card(-\w+\.png|\.md)", name) is not None


def _is_shard(name: str) -> bool:
    return re.fullmatch(rf"({'|'.join(SPLITS)})\.tfrecord-\d{{5}}-of-\d{{5}}", name) is not None


def progress(output_dir: str) -> tuple[int, dict[str, Any]] | None:
    """How many shards are done and the plan, None before there is one."""
    plan = _read_json(output_dir, _PLAN_FILE)
    if plan is None:
        return None
    return sum(name.startswith(_DONE_PREFIX) for name in storage.names_in(output_dir)), plan


def digest(*parts: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_done(output_dir: str, shard: str, made_of: str) -> dict[str, Any] | None:
    """What went into a shard, if it is done and was made of the same (a digest)."""
    done = _read_json(output_dir, f"{_DONE_PREFIX}{shard}.json")
    if done is None or done["made_of"] != made_of:
        return None
    return done if storage.exists(storage.join(output_dir, shard)) else None


def write_done(output_dir: str, shard: str, done: dict[str, Any]) -> None:
    storage.write_atomically(output_dir, f"{_DONE_PREFIX}{shard}.json", json.dumps(done).encode())


def write_rejected(output_dir: str, rejected: list[tuple[int, str]]) -> None:
    """Writes the list of rejected clips, (id, line of JSON) each, sorted by id."""
    with storage.atomic_file(output_dir, REJECTED_FILE) as file:
        for _, line in sorted(rejected):
            file.write(line.encode() + b"\n")


def write_info(output_dir: str, info: dataset_info.DatasetInfo) -> None:
    """Finishes a dataset."""
    storage.write_atomically(output_dir, dataset_info.FILE_NAME, info.to_json().encode())
    clear_hidden(output_dir)


def _read_json(output_dir: str, name: str) -> dict[str, Any] | None:
    try:
        return json.loads(storage.read_bytes(storage.join(output_dir, name)))
    except FileNotFoundError:
        return None
