"""The comparison of two exports from their folders to the files of its report."""

import json
from typing import Any

from common import command, files
from trainer.evaluation import comparison, gate_report
from trainer.evaluation.comparison import Margins
from trainer.evaluation.gate_report import GateReport
from trainer.run import compared_exports
from trainer.run.compared_exports import ComparedExports


def compare(
    compared: ComparedExports, *, margins: Margins, override: str | None = None
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
