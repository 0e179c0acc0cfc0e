"""A person releases what an update has set aside, which is recorded wherever the release is.

First `override.json` in the update's folder says who, when and why. The candidate takes the record
with it, in its `gate.json` and `model_info.json`, is verified as any other, and gets the next
number; last `update.json` says so. Whoever goes on after a kill begins behind what is there.
"""

import dataclasses
import json
from typing import Any

from common import export_folder, files
from common.errors import UserFacingError, require
from trainer.continuous import candidate, plan
from trainer.evaluation import gate_report
from trainer.evaluation.gate_report import Override
from trainer.model import export

_FILE = "override.json"
# What may be released by a person: what was verified, or stopped at the gate before it was.
_RELEASABLE = (plan.SET_ASIDE, plan.DRY_RUN)


def release(
    update: int, override: Override, *, dataset_dir: str, model_dir: str, export_dir: str
) -> dict[str, Any]:
    """Releases the candidate of an update as the next version.

    Returns:
        what `update.json` says from now on.

    Raises:
        UserFacingError: there is no such update, nothing of it is set aside, or it is not verified.
    """
    done = plan.finished(model_dir)
    require(
        0 < update <= len(done),
        f"--release={update}: no such update is done in {model_dir}; there are {len(done)}",
    )
    require(
        len(plan.numbers_in(model_dir)) == len(done),
        f"--release={update}: the update after {len(done)} has begun, perhaps with what is to be "
        "released; let trainer.follow end it first",
    )
    outcome, exported = done[update - 1]["outcome"], done[update - 1]["export"]
    require(
        outcome in _RELEASABLE,
        f"--release={update}: nothing that may be released; its outcome is {outcome}"
        + (f" as version {exported}" if outcome == plan.RELEASED else ""),
    )
    folder = plan.folder_of(model_dir, update)
    plan.write(folder, _FILE, dataclasses.asdict(override))
    return _finish(done[update - 1], dataset_dir=dataset_dir, folder=folder, export_dir=export_dir)


def finish_begun(*, dataset_dir: str, model_dir: str, export_dir: str) -> None:
    """Releases what a person has asked for before a kill."""
    for done in plan.finished(model_dir):
        folder = plan.folder_of(model_dir, done["update"])
        if done["outcome"] in _RELEASABLE and files.exists(files.join(folder, _FILE)):
            _finish(done, dataset_dir=dataset_dir, folder=folder, export_dir=export_dir)


def _finish(
    done: dict[str, Any], *, dataset_dir: str, folder: str, export_dir: str
) -> dict[str, Any]:
    override = plan.read(folder, _FILE)
    assert override is not None  # written by `release`
    version = candidate.version_of(export_dir, done["id"], served=done["served"])
    if version is None:
        try:
            name = _as_candidate(done["id"], export_dir)
            _record(files.join(export_dir, name), override)
            path = export.verify_and_release(name, export_dir, dataset_dir)
        except UserFacingError:
            files.delete(folder, [_FILE])  # the decision is off, not to be taken up again
            raise
        version = path.rpartition("/")[2]
    done = done | {"outcome": plan.RELEASED, "export": version, "override": override}
    plan.write(folder, plan.DONE_FILE, done)
    return done


def _as_candidate(update_id: str, export_dir: str) -> str:
    """Makes what was set aside a candidate again, unless a run that was killed has."""
    name, aside = candidate.name_of(update_id), candidate.aside_of(update_id)
    if export_folder.holds_model(files.join(export_dir, name)):
        return name
    require(
        export_folder.holds_model(files.join(export_dir, aside)),
        f"{files.join(export_dir, aside)}: what was set aside is gone",
    )
    files.delete_folder(files.join(export_dir, name))  # where folders are copied, a part of it
    return export_folder.reconsider(export_dir, aside)


def _record(path: str, override: dict[str, Any]) -> None:
    """Says in an export by whom, when and why it is released."""
    described = export_folder.info_values(path) | {"override": override}
    text = json.dumps(described, indent=2) + "\n"
    export_folder.write_extra(path, export_folder.INFO_FILE, text.encode())
    judged = files.join(path, f"assets.extra/{gate_report.JSON_FILE}")
    if files.exists(judged):  # of a first model there is none
        found = json.loads(files.read_bytes(judged))
        found |= {"override": override, "would_be_released": True}
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        export_folder.write_extra(path, f"assets.extra/{gate_report.JSON_FILE}", text.encode())
