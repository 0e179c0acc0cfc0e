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

from common.errors import UserFacingError, require
from common.model_info import FILE_NAME, ModelInfo

CANDIDATE, REFUSED, WITHDRAWN = ".candidate-", ".refused-", ".withdrawn-"
REPORT = "assets.extra/verification.json"


def versions(export_dir: str) -> list[int]:
    """The numbers of the versions that are whole, rising; none if there is no folder."""
    return sorted(
        int(name)
        for name in _names_in(export_dir)
        if name.isascii() and name.isdecimal() and holds_model(join(export_dir, name))
    )


def newest_version(export_dir: str) -> int:
    """The highest version, which is what TensorFlow Serving serves; UserFacingError without any."""
    found = versions(export_dir)
    if not found:
        problem = "no exported model; --export_dir is what trainer.train made"
        if holds_model(export_dir):
            problem = f"a version; --export_dir is the folder it lies in, {export_dir}/.."
        raise UserFacingError(f"{export_dir}: {problem}")
    return found[-1]


def release(export_dir: str, candidate: str) -> str:
    """Gives a candidate the number after the highest there ever was; the path of the version."""
    while True:
        names = [name.removeprefix(WITHDRAWN) for name in _names_in(export_dir)]
        taken = [int(name) for name in names if name.isdecimal()]
        version = join(export_dir, str(1 + max(taken, default=0)))
        try:
            _rename(join(export_dir, candidate), version)
        except OSError:
            if not holds_model(version):
                raise
            continue  # another candidate got that number first
        return version


def refuse(export_dir: str, candidate: str) -> str:
    """Sets a candidate aside; its path from then on."""
    aside = join(export_dir, candidate.replace(CANDIDATE, REFUSED, 1))
    _rename(join(export_dir, candidate), aside)
    return aside


def write_report(version_dir: str, report: dict[str, Any]) -> None:
    """Keeps what the verification of a version or candidate has found."""
    path = join(version_dir, REPORT)
    if not _is_remote(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)  # whatever is missing of a candidate
    write_text(path, json.dumps(report, indent=2) + "\n")


def check_candidate(export_dir: str, candidate: str) -> None:
    """Raises UserFacingError unless it is the name of a candidate there."""
    require(
        candidate.startswith(CANDIDATE) and "/" not in candidate,
        f"{candidate}: no candidate's name; they start with {CANDIDATE}",
    )
    require(exists(join(export_dir, candidate)), f"{export_dir}: no {candidate} in it")


def load_info(version_dir: str) -> ModelInfo:
    """The model_info.json of a version; UserFacingError where it has none."""
    path = join(version_dir, f"assets.extra/{FILE_NAME}")
    try:
        return ModelInfo.from_json(read_bytes(path), name=path)
    except FileNotFoundError:
        raise UserFacingError(f"{version_dir}: not a whole export (no {FILE_NAME})") from None


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def holds_model(folder: str) -> bool:
    return exists(join(folder, "saved_model.pb"))


def exists(path: str) -> bool:
    return _gfile().exists(path) if _is_remote(path) else os.path.exists(path)


def read_text(path: str) -> str:
    """The text of a file; FileNotFoundError where there is none."""
    return read_bytes(path).decode()


def read_bytes(path: str) -> bytes:
    """The whole of a file.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
    """
    if not _is_remote(path):
        with open(path, "rb") as file:
            return file.read()
    if not exists(path):
        raise FileNotFoundError(path)
    with _gfile().GFile(path, "rb") as file:
        return file.read()


def write_text(path: str, text: str) -> None:
    if not _is_remote(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        with _gfile().GFile(path, "w") as file:
            file.write(text)


def _names_in(folder: str) -> list[str]:
    if _is_remote(folder):
        gfile = _gfile()
        names = gfile.listdir(folder) if gfile.isdir(folder) else []
        return [name.rstrip("/") for name in names]
    return os.listdir(folder) if os.path.isdir(folder) else []


def _rename(source: str, target: str) -> None:
    if _is_remote(source):
        _gfile().rename(source, target)
    else:
        os.rename(source, target)


def _is_remote(path: str) -> bool:
    return "://" in path


def _gfile():
    import tensorflow as tf  # here, since a mistake in a local path should not wait for it

    return tf.io.gfile
