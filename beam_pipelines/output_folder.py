"""What lies in the folder of a dataset while it is made, and when it is done.

{split}.tfrecord-*     whole shards; each has its name only when all of it is written
.done-{shard}.json     what went into a shard, written after it: it need not be made again
.plan.json             what the dataset is made of, so that a run can resume
.writing-*             what is being written
rejected.jsonl         every clip that could not be used
dataset_info.json      written last; then the hidden files are deleted
dataset_card*          of `inspect_dataset --card`; goes when the dataset is replaced
"""

import enum
import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from beam_pipelines.written_shard import WrittenShard
from common import dataset_info, files
from common.config import differences
from common.dataset_config import SPLITS, DatasetConfig
from common.errors import UserFacingError

CARD_FILE = "dataset_card.md"
_PLAN_FILE = ".plan.json"
_DONE_PREFIX = ".done-"


class Mode(enum.Enum):
    """What a run does with what is in the folder."""

    NEW = "new"  # nothing of a dataset is there, or it is to be replaced
    RESUME = "resume"  # an unfinished run of the same dataset: the shards that are done are kept
    RETRY = "retry"  # what was rejected, missing or damaged is tried again, and the rest copied
    FINISHED = "finished"  # there is nothing to do


class Work(NamedTuple):
    """What a run is to do.

    Attributes:
        mode: with what is in the folder.
        attempt: 0 of a new dataset, and one more each time that its rejected clips are tried again.
            A shard is done only for the attempt that made it, so a run that is killed while it
            tries again resumes that.
        why: in words, where it is not what was asked for.
    """

    mode: Mode
    attempt: int = 0
    why: str = ""


def identity(
    config: DatasetConfig, catalog_sha256: str, versions: dict[str, str]
) -> dict[str, Any]:
    """Returns what a dataset is made of, but for the audio, of which more may come later."""
    return {"config": config.to_dict(), "catalog_sha256": catalog_sha256, "versions": versions}


def work(output_dir: str, mine: dict[str, Any], *, overwrite: bool, retry_rejected: bool) -> Work:
    """Returns what a run of the dataset `mine` (its identity) is to do.

    Raises:
        UserFacingError: the folder holds another dataset, there is none whose rejected clips
            could be tried again, or a file in it is damaged.
    """
    if overwrite:
        return Work(Mode.NEW)
    sizes = files.sizes_in(output_dir)
    plan = _read_json(output_dir, _PLAN_FILE) or {}
    info = None
    if dataset_info.FILE_NAME in sizes:
        info = dataset_info.DatasetInfo.from_json(
            files.read_bytes(files.join(output_dir, dataset_info.FILE_NAME)),
            name=files.join(output_dir, dataset_info.FILE_NAME),
        )
    if info is None and not plan:
        if retry_rejected:
            raise UserFacingError(
                f"{output_dir}: no dataset whose rejected clips could be tried again"
            )
        if any(map(_is_shard, sizes)):
            raise UserFacingError(
                f"{output_dir}: shards of unknown origin ({dataset_info.FILE_NAME} is missing); "
                "take another --output_dir, or --overwrite replaces them"
            )
        return Work(Mode.NEW)
    theirs = plan
    if info is not None:
        theirs = identity(info.config, info.catalog_sha256, info.versions)
    found = differences({key: theirs.get(key) for key in mine}, mine)
    if found:
        raise UserFacingError(
            f"{output_dir} holds another dataset: {'; '.join(found)}; take another --output_dir, "
            "or --overwrite replaces it"
        )
    attempt = plan.get("attempt", 0)
    if info is None:
        # A run that was stopped before its end resumes, whatever its attempt.
        if retry_rejected and plan.get("ended"):
            return Work(Mode.RETRY, attempt + 1)
        return Work(Mode.RESUME, attempt)
    if retry_rejected:
        return Work(Mode.RETRY, attempt + 1)
    damaged = [
        shard.file
        for split in info.splits.values()
        for shard in split.shards
        if sizes.get(shard.file) != shard.bytes
    ]
    if dataset_info.REJECTED_FILE not in sizes:
        damaged.append(dataset_info.REJECTED_FILE)
    if damaged:
        more = f" and {len(damaged) - 3:,} more" if len(damaged) > 3 else ""
        why = f"missing or cut, and made again: {', '.join(damaged[:3])}{more}"
        return Work(Mode.RETRY, attempt + 1, why)
    return Work(Mode.FINISHED)


def prepare(output_dir: str, run: Work, plan: dict[str, Any], *, run_id: str) -> None:
    """Makes the folder ready for the shards of a run.

    Args:
        output_dir: the folder.
        run: what it is to do.
        plan: the identity of the dataset, and how much there is to do.
        run_id: of this run. A runner may prepare it a second time, when shards are done already.
    """
    files.make_folder(output_dir)
    sizes = files.sizes_in(output_dir)
    try:
        before = _read_json(output_dir, _PLAN_FILE) or {}
    except UserFacingError:  # a damaged one is to be replaced
        before = {}
    if before.get("run_id") == run_id:
        return
    # The plan comes before anything is deleted, so that a kill in between leaves a folder that
    # tells what it is; then the description goes, without which the folder is unfinished.
    ended = run.mode is Mode.RESUME and before.get("ended", False)
    plan = plan | {"attempt": run.attempt, "run_id": run_id, "ended": ended}
    files.write_atomically(output_dir, _PLAN_FILE, json.dumps(plan).encode())
    files.delete(output_dir, [name for name in sizes if name == dataset_info.FILE_NAME])
    if run.mode is Mode.NEW:
        files.delete(output_dir, [name for name in sizes if _is_shard(name)])
    if run.mode is not Mode.RESUME:
        files.delete(output_dir, [name for name in sizes if name.startswith(_DONE_PREFIX)])
    files.delete(output_dir, [n for n in sizes if _is_temporary(n) or _is_card(n)])


def end_unfinished(output_dir: str) -> None:
    """Notes that a run came to its end and its dataset was not taken."""
    plan = _read_json(output_dir, _PLAN_FILE) or {}
    files.write_atomically(output_dir, _PLAN_FILE, json.dumps(plan | {"ended": True}).encode())


def clear(output_dir: str, info: dataset_info.DatasetInfo) -> None:
    """Deletes what is only needed while a dataset is made, and shards of another before it."""
    mine = {shard.file for split in info.splits.values() for shard in split.shards}

    def goes(name: str) -> bool:
        is_note = name.startswith(_DONE_PREFIX) or name == _PLAN_FILE
        return is_note or _is_temporary(name) or (_is_shard(name) and name not in mine)

    files.delete(output_dir, [name for name in files.names_in(output_dir) if goes(name)])


def _is_temporary(name: str) -> bool:
    return name.startswith(files.TEMPORARY_PREFIX)


def _is_card(name: str) -> bool:
    return re.fullmatch(r"dataset_card(-\w+\.png|\.md)", name) is not None


def _is_shard(name: str) -> bool:
    return re.fullmatch(rf"({'|'.join(SPLITS)})\.tfrecord-\d{{5}}-of-\d{{5}}", name) is not None


def progress(output_dir: str) -> tuple[int, dict[str, Any]] | None:
    """Returns how many shards are done and the plan, None before there is one."""
    plan = _read_json(output_dir, _PLAN_FILE)
    if plan is None:
        return None
    return sum(name.startswith(_DONE_PREFIX) for name in files.names_in(output_dir)), plan


def run_at_work(output_dir: str) -> str | None:
    """Returns the id of the run that is to write the shards now, None where there is none."""
    run_id = (_read_json(output_dir, _PLAN_FILE) or {}).get("run_id")
    return None if run_id is None else str(run_id)


def done_in(output_dir: str) -> list[str]:
    """Returns the shards that a note says are done."""
    notes = (re.fullmatch(rf"{_DONE_PREFIX}(.+)\.json", n) for n in files.names_in(output_dir))
    return [note[1] for note in notes if note is not None]


def digest(*parts: Any) -> str:
    """Returns the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_done(output_dir: str, shard: str, made_of: str) -> WrittenShard | None:
    """Returns what went into a shard, if it is done, whole and made of the same (a digest)."""
    try:
        note = _read_json(output_dir, f"{_DONE_PREFIX}{shard}.json")
        if note is None or note["made_of"] != made_of:
            return None
        written = WrittenShard.from_dict(note)
    except (UserFacingError, KeyError, TypeError):  # it is only a note of what can be done again
        return None
    whole = files.size_of(files.join(output_dir, shard)) == written.summary.bytes
    return written if whole else None


def write_done(output_dir: str, written: WrittenShard, made_of: str) -> None:
    """Notes that a shard is whole, and what it was made of."""
    note = json.dumps({"made_of": made_of} | written.to_dict())
    files.write_atomically(output_dir, f"{_DONE_PREFIX}{written.summary.file}.json", note.encode())


def forget_done(output_dir: str, shard: str) -> None:
    """Deletes the note that a shard is done."""
    files.delete(output_dir, [f"{_DONE_PREFIX}{shard}.json"])


def write_rejected(output_dir: str, rejected: Iterable[tuple[int, str]]) -> None:
    """Writes the list of rejected clips, (id, line of JSON) each, sorted by id."""
    with files.atomic_file(output_dir, dataset_info.REJECTED_FILE) as file:
        for _, line in sorted(rejected):
            file.write(line.encode() + b"\n")


def write_info(output_dir: str, info: dataset_info.DatasetInfo) -> None:
    """Finishes a dataset."""
    files.write_atomically(output_dir, dataset_info.FILE_NAME, info.to_json().encode())
    clear(output_dir, info)


def _read_json(output_dir: str, name: str) -> dict[str, Any] | None:
    """Reads a file of JSON, None where there is none; UserFacingError where it is damaged."""
    path = files.join(output_dir, name)
    try:
        values: dict[str, Any] = json.loads(files.read_bytes(path))
        return values
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserFacingError(f"{path}: damaged ({error}); --overwrite begins anew") from None
