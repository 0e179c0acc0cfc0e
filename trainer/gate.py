r"""Compares an export with the one that is served, and says whether it should take its place.

python -m trainer.gate --champion=export/3 --challenger=export/4 --dataset_dir=dataset

Releases nothing, and changes neither export. Exit code 0 where the challenger would be released, 3
where it is refused, 1 where they can't be compared.
"""

from absl import flags

from common import command, files
from common.dataset_config import SPLITS
from common.errors import require

_CHAMPION = flags.DEFINE_string("champion", None, "The version that is served.", required=True)
_CHALLENGER = flags.DEFINE_string(
    "challenger", None, "The version or candidate that may take its place.", required=True
)
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "The dataset that both are asked about.", required=True
)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "Its split, which neither was trained on.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "build/gate", "Where gate.json and gate.html are written."
)
_MARGIN_LOG_LOSS = flags.DEFINE_float(
    "margin_log_loss", 0.02, "By how much its log loss may be worse, in nats."
)
_MARGIN_MACRO_F1 = flags.DEFINE_float(
    "margin_macro_f1", 0.03, "By how much its macro F1, 0 to 1, may be worse."
)
_OVERRIDE = flags.DEFINE_string(
    "override", None, "Why it is to be released even if it is refused; gate.json records it."
)
_BY = flags.DEFINE_string("by", None, "Who overrides the gate; whoever is logged in unless given.")

REFUSED_EXIT_CODE = 3


def main(argv: list[str]) -> int:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --challenger=export/4")
    reason = _OVERRIDE.value
    require(
        reason is None or bool(reason.strip()), "--override is empty; it is the reason, in words"
    )
    require(reason is not None or _BY.value is None, "--by belongs to --override=REASON")
    output_dir = _OUTPUT_DIR.value.rstrip("/")
    from trainer.evaluation import comparison, gate_report
    from trainer.run import compared_exports, gate

    margins = comparison.Margins(log_loss=_MARGIN_LOG_LOSS.value, macro_f1=_MARGIN_MACRO_F1.value)
    compared = compared_exports.open_both(
        _CHAMPION.value.rstrip("/"),
        _CHALLENGER.value.rstrip("/"),
        dataset_dir=_DATASET_DIR.value.rstrip("/"),
        split=_SPLIT.value,
    )
    override = None if reason is None else gate.override_now(reason=reason, by=_BY.value)
    files.make_folder(output_dir)
    files.check_writable(output_dir)
    report = gate.compare(compared, margins=margins, override=override)
    gate.write(report, output_dir)
    print(gate_report.table(report))
    print(f"written: {files.join(output_dir, gate_report.JSON_FILE)}, {gate_report.PAGE_FILE}")
    print("(a dry run: this command compares, and releases nothing)")
    return 0 if report.would_be_released else REFUSED_EXIT_CODE


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
