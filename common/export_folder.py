"""The folder of the versions of a model, local or gs://.

    <number>/            a version that is served; TensorFlow Serving takes the highest
    .candidate-<id>/     what a trainer exported; nothing that serves looks at it
    .refused-<id>/       a candidate that did not pass, with the reasons in verification.json
    .withdrawn-<number>/ a version that is served no more, since somebody renamed it to this

`serving.verify --candidate` turns the second into the first or the third by renaming it. A number
is never given twice, so whoever keeps answers by version can tell what gave them: a version is
withdrawn, not deleted, while it is the highest.
"""

import json
import os
from typing import Any

from common import files
from common.errors import UserFacingError, require
from common.hashing import stable_hash
from common.model_info import FILE_NAME, ModelInfo

CANDIDATE, REFUSED, WITHDRAWN = ".candidate-", ".refused-", ".withdrawn-"
# What lies in a version beside the SavedModel.
_EXTRA = "assets.extra"
INFO_FILE = f"{_EXTRA}/{FILE_NAME}"
CARD_FILE = f"{_EXTRA}/model_card.md"
REFERENCES_FILE = f"{_EXTRA}/reference_answers.json"
WARM_UP_FILE = f"{_EXTRA}/tf_serving_warmup_requests"
REPORT_FILE = f"{_EXTRA}/verification.json"
_MODEL_FILE = "saved_model.pb"


def versions(export_dir: str) -> list[int]:
    """Returns the numbers of the versions that are whole, rising; none if there is no folder."""
    return sorted(
        int(name)
        for name in files.folders_in(export_dir)
        if name.isascii() and name.isdecimal() and holds_model(files.join(export_dir, name))
    )


def numbered(export_dir: str) -> list[str]:
    """Returns the names of the versions that are served or were, by their numbers, rising."""
    names = {}
    for name in files.folders_in(export_dir):
        number = name.removeprefix(WITHDRAWN)
        if number.isascii() and number.isdecimal() and holds_model(files.join(export_dir, name)):
            names[int(number)] = name
    return [names[number] for number in sorted(names)]


def newest_version(export_dir: str) -> int:
    """Returns the highest version, which TensorFlow Serving serves; UserFacingError without one."""
    found = versions(export_dir)
    if not found:
        problem = "no exported model; --export_dir is what trainer.train made"
        if holds_model(export_dir):
            problem = f"a version; --export_dir is the folder it lies in, {export_dir}/.."
        raise UserFacingError(f"{export_dir}: {problem}")
    return found[-1]


def candidate_of(model_dir: str) -> str:
    """Returns the name of what the training run in a folder exports, the same each time."""
    place = model_dir if files.is_remote(model_dir) else os.path.abspath(model_dir)
    return f"{CANDIDATE}{stable_hash(place, salt='export'):016x}"


def release(export_dir: str, candidate: str) -> str:
    """Gives a candidate the number after the highest ever given; returns the version's path."""
    while True:
        names = [*files.folders_in(export_dir), *files.names_in(export_dir)]
        numbers = [name.removeprefix(WITHDRAWN) for name in names]
        taken = [int(number) for number in numbers if number.isdecimal()]
        version = files.join(export_dir, str(1 + max(taken, default=0)))
        try:
            files.move_folder(files.join(export_dir, candidate), version, last=_MODEL_FILE)
        except FileExistsError:
            continue  # another candidate got that number first
        return version


def refuse(export_dir: str, candidate: str) -> str:
    """Sets a candidate aside, in the place of one of its name before it; returns its new path."""
    aside = files.join(export_dir, candidate.replace(CANDIDATE, REFUSED, 1))
    # A training whose export was refused exports by the same name when it is run again; and a kill
    # may have left a part of it, where folders are copied.
    files.delete_folder(aside)
    files.move_folder(files.join(export_dir, candidate), aside, last=_MODEL_FILE)
    return aside


def reconsider(export_dir: str, refused: str) -> str:
    """Makes what was set aside a candidate again; returns its name."""
    candidate = refused.replace(REFUSED, CANDIDATE, 1)
    source, destination = files.join(export_dir, refused), files.join(export_dir, candidate)
    files.move_folder(source, destination, last=_MODEL_FILE)
    return candidate


def write_report(version_dir: str, report: dict[str, Any]) -> None:
    """Keeps what the verification of a version or candidate has found."""
    write_extra(version_dir, REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())


def write_extra(version_dir: str, file: str, data: bytes) -> None:
    """Writes a file beside the SavedModel of a version or candidate, such as `INFO_FILE`."""
    folder, _, name = files.join(version_dir, file).rpartition("/")
    files.make_folder(folder)  # whatever is missing of a candidate
    files.write_atomically(folder, name, data)


def check_candidate(export_dir: str, candidate: str) -> None:
    """Raises UserFacingError unless it is the name of a candidate there."""
    require(
        candidate.startswith(CANDIDATE) and "/" not in candidate,
        f"{candidate}: no candidate's name; they start with {CANDIDATE}",
    )
    path = files.join(export_dir, candidate)
    require(
        files.exists(path) or files.has_files(path),  # a bucket has no folders
        f"{export_dir}: no {candidate} in it",
    )


def load_info(version_dir: str) -> ModelInfo:
    """Reads the model_info.json of a version; UserFacingError where it has none."""
    path = files.join(version_dir, INFO_FILE)
    try:
        return ModelInfo.from_json(files.read_bytes(path), name=path)
    except FileNotFoundError:
        raise UserFacingError(f"{version_dir}: not a whole export (no {FILE_NAME})") from None


def info_values(version_dir: str) -> dict[str, Any]:
    """Returns all that the model_info.json of a version says, plain; raises as `load_info`."""
    load_info(version_dir)
    values: dict[str, Any] = json.loads(files.read_bytes(files.join(version_dir, INFO_FILE)))
    return values


def holds_model(folder: str) -> bool:
    """Returns whether a SavedModel lies in a folder."""
    return files.exists(files.join(folder, _MODEL_FILE))
