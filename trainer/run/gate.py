"""The comparison of two exports from their folders to the files of its report."""

import getpass
import json
import time
from typing import Any

from common import command, files, generations
from common.errors import UserFacingError, require
from trainer.evaluation import comparison, gate_report
from trainer.evaluation.comparison import Margins
from trainer.evaluation.gate_report import GateReport, Override
from trainer.run import compared_exports
from trainer.run.compared_exports import ComparedExports


def override_now(*, reason: str, by: str | None) -> Override:
    """Returns a decision that is made now.

    Args:
        reason: of --override or --reason.
        by: who makes it; whoever is logged in unless given.

    Raises:
        UserFacingError: the reason is empty, or the login has no name.
    """
    require(bool(reason.strip()), "the reason of the override is empty; say it in words")
    if not by:
        try:
            by = getpass.getuser()
        except (OSError, KeyError):
            raise UserFacingError("--by: this login has no name; say who you are") from None
    return Override(reason=reason, by=by, at=generations.text_of(int(time.time())))


def compare(
    compared: ComparedExports, *, margins: Margins, override: Override | None = None
) -> GateReport:
    """Asks champion and challenger about every clip of the split, and judges the challenger.

    Raises:
        UserFacingError: an export can't be asked, or its answers are no probabilities; a record is
            damaged.
    """
    with command.kept_back_stderr():
        # Here, since a mistake in a flag should not wait for TensorFlow.
        from trainer.run import exported_answers

        champion, challenger = exported_answers.ask_both(compared)
    verdict = comparison.judge(
        champion,
        challenger,
        split=compared.split,
        margins=margins,
        newest=compared_exports.rows_of_newest(compared.info, compared.split),
    )
    return GateReport(
        champion=_described(compared.champion),
        challenger=_described(compared.challenger),
        dataset={
            "path": compared.dataset_dir,
            "fingerprint": compared.info.fingerprint,
            "generations": list(compared.info.generations),
        },
        split=compared.split,
        margins=margins,
        verdict=verdict,
        notes=compared.notes,
        override=override,
    )


def contents(report: GateReport) -> dict[str, bytes]:
    """Returns {name: bytes} of the page and, last, `gate.json`."""
    text = json.dumps(gate_report.to_dict(report), indent=2, ensure_ascii=False) + "\n"
    return {
        gate_report.PAGE_FILE: gate_report.page(report).encode(),
        gate_report.JSON_FILE: text.encode(),
    }


def write(report: GateReport, folder: str) -> None:
    """Writes the page and `gate.json` into a folder."""
    for name, data in contents(report).items():
        files.write_atomically(folder, name, data)


def _described(export: Any) -> dict[str, Any]:
    return {
        "path": export.path,
        "dataset_fingerprint": export.info.dataset_fingerprint,
        "dataset_generations": list(export.info.dataset_generations),
    }
