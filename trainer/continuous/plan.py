"""What an update is to do, decided once: `plan.json`, the first file of its folder.

<model_dir>/updates/000007/
  plan.json       the generations, what it starts from; whoever goes on after a kill does this
  before.json     what the models said of the new clips before any was trained on, and drift
  replay-….tfrecord, mix.json    the old clips that it trains on beside the new ones
  training.json, checkpoints/, best/, evaluation.json, report.html   as of any training
  gate.json, gate.html
  override.json   who has released what was set aside, when and why
  update.json     what came of it; written last: only now is the update done
"""

import dataclasses
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from common import files, generations
from common.errors import UserFacingError
from common.generations import Manifest

FOLDER = "updates"
PLAN_FILE, DONE_FILE = "plan.json", "update.json"

# What comes of an update.
RELEASED = "released"
SET_ASIDE = "set aside"
DRY_RUN = "dry run"
NOT_VERIFIED = "not verified"
DIVERGED = "diverged"
NOTHING = "nothing to train on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of an update.

    Attributes:
        update: its number, from 1 on.
        id: a name that no other update has; its candidate and `model_info.json` have it too.
        generations: the list that it is pinned to, from 0 on.
        new: those of them that no update before has trained on, rising; () of a first training,
            which takes all of them.
        starts_from: the export whose weights it begins with, below --export_dir; None for new ones.
        served: the version that was the newest when it began, None where there was none.
        first: the export that followed first and was never trained on; None before there is one.
    """

    update: int
    id: str
    generations: tuple[int, ...]
    new: tuple[int, ...]
    starts_from: str | None
    served: str | None
    first: str | None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Plan":
        lists = {name: tuple(values[name]) for name in ("generations", "new")}
        return cls(**values | lists)


def folder_of(model_dir: str, update: int) -> str:
    return files.join(model_dir, f"{FOLDER}/{update:06d}")


def numbers_in(model_dir: str) -> list[int]:
    """Returns the updates that have begun, rising."""
    names = files.folders_in(files.join(model_dir, FOLDER))
    return sorted(int(name) for name in names if re.fullmatch(r"\d{6,}", name))


def read(folder: str, name: str) -> dict[str, Any] | None:
    """Returns what a file of an update says, None without it; UserFacingError if it is damaged."""
    path = files.join(folder, name)
    try:
        values: dict[str, Any] = json.loads(files.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserFacingError(f"{path}: damaged ({error}); bring it back") from None
    return values


def write(folder: str, name: str, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files.write_atomically(folder, name, text.encode())


def begun(model_dir: str, update: int) -> Plan | None:
    """Returns the plan of an update, None before it has begun."""
    values = read(folder_of(model_dir, update), PLAN_FILE)
    return None if values is None else Plan.from_dict(values)


def finished(model_dir: str) -> list[dict[str, Any]]:
    """Returns what came of each update that is done, in their order.

    Raises:
        UserFacingError: one is missing, so that nobody knows what has been trained on.
    """
    found = []
    numbers = numbers_in(model_dir)
    for number, update in enumerate(numbers, start=1):
        done = read(folder_of(model_dir, update), DONE_FILE)
        is_last = number == len(numbers)
        if update != number or (done is None and not is_last):
            raise UserFacingError(
                f"{folder_of(model_dir, number)}: the update is missing or not done, and later "
                "ones are there; bring it back"
            )
        if done is not None:
            found.append(done)
    return found


def next_generations(
    manifests: Sequence[Manifest], seen: Collection[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the list of what has been trained on, as it is read now, and what is new.

    A generation that others were merged into is not new if all of these have been seen; they are
    then read from it. If some have not, they are taken themselves while they are there.

    Args:
        manifests: of all generations that are there, by number.
        seen: the generations that have been trained on, and those that they replace.
    """
    there = {manifest.generation for manifest in manifests}
    known = set(seen)
    new = []
    for manifest in manifests:
        number, parts = manifest.generation, set(manifest.replaces)
        if number in known:
            continue
        if parts and parts <= known:
            known.add(number)
        elif not parts or not (parts - known) <= there:
            new.append(number)
    covered = {
        part for manifest in manifests if manifest.generation in known for part in manifest.replaces
    }
    old = [number for number in sorted(there & known) if number not in covered]
    return (0, *old), tuple(new)


def seen_of(manifests: Sequence[Manifest], trained_on: Collection[int]) -> set[int]:
    """Returns the generations that were trained on and all that they replace."""
    replaced = {
        part
        for manifest in manifests
        if manifest.generation in trained_on
        for part in manifest.replaces
    }
    return set(trained_on) | replaced


def manifests_there(dataset_dir: str) -> list[Manifest]:
    """Reads the manifests of all generations that are there, also of those replaced by others."""
    return generations.load(
        dataset_dir, generations.numbers_in(generations.sizes_below(dataset_dir))
    )
