"""Our own figures in README and docs: written by a command, from files of a demo."""

import json
import re

from tests.support.paths import ROOT
from tools import fill_results

PAGE = """before
<!-- results: written by x -->
old
<!-- /results -->
after
<!-- real: from y -->
<!-- /real -->
"""


def test_a_block_is_written_anew_and_nothing_else():
    once = fill_results.fill(PAGE, "results", "| new \\1 |")
    assert once == PAGE.replace("old", "| new \\1 |")
    assert fill_results.fill(once, "results", "| new \\1 |") == once
    filled = fill_results.fill(PAGE, "real", "table")
    assert filled == PAGE.replace("<!-- real: from y -->\n", "<!-- real: from y -->\ntable\n")
    assert fill_results.fill(PAGE, "demo", "x") == PAGE
    other = "<!-- real-summary: from z -->\nkept\n<!-- /real-summary -->\n"
    assert fill_results.fill(other + PAGE, "real", "table") == other + filled


def test_figures_are_those_of_the_evaluation(tmp_path):
    (tmp_path / "model").mkdir()
    evaluation = {"accuracy": 0.8, "accuracy_ci95": [0.7, 0.9], "baselines": {"majority": 0.5}}
    (tmp_path / "model" / "evaluation.json").write_text(json.dumps(evaluation))
    table = fill_results.results_block(tmp_path)
    assert "| 61 % | 80.0 % (70.0 % to 90.0 %); majority class 50.0 % |" in table
    assert table.count("| – |") == 3
    assert fill_results.demo_block(tmp_path) is None
    (tmp_path / "summary.txt").write_text(
        "  test accuracy  80 %\n  report  demo/model/report.html\n"
    )
    assert fill_results.demo_block(tmp_path) == "```text\n  test accuracy  80 %\n```"


def test_the_tables_of_real_music_are_taken_whole(tmp_path):
    (tmp_path / "real.md").write_text("## Tracks\n\n| a |\n|---|\n\n## Artists\n\n| b |\n")
    assert fill_results.real_block(tmp_path / "real.md") == (
        "### Tracks\n\n| a |\n|---|\n\n### Artists\n\n| b |\n\n![Accuracy, macro F1, log loss and "
        "Spearman of each, with intervals](pictures/real.png)"
    )
    assert fill_results.real_block(tmp_path / "none.md") is None


def test_the_accuracies_of_real_music_have_a_column_a_protocol(tmp_path):
    def protocol(title, accuracy):
        interval = [accuracy - 0.1, accuracy + 0.1]
        names = ("majority", "mel statistics", "audio alone")
        rows = [dict(name=name, accuracy=accuracy, accuracy_ci95=interval) for name in names]
        return {"title": title, "rows": rows}

    path = tmp_path / "real.json"
    path.write_text(json.dumps([protocol("Tracks", 0.5), protocol("Artists", 0.25)]))
    assert fill_results.real_summary_block(path).splitlines() == [
        "| real FMA clips | tracks | artists |",
        "|---|---|---|",
        "| majority | 50.0 % (40.0 % to 60.0 %) | 25.0 % (15.0 % to 35.0 %) |",
        "| **ours: audio alone** | 50.0 % (40.0 % to 60.0 %) | 25.0 % (15.0 % to 35.0 %) |",
    ]
    assert fill_results.real_summary_block(tmp_path / "none.json") is None


def test_every_block_of_the_pages_is_known():
    for page in fill_results.PAGES:
        text = (ROOT / page).read_text()
        for name in ("demo", "results", "real", "real-summary"):
            assert text.count(f"<!-- {name}:") == text.count(f"<!-- /{name} -->") <= 1


def test_readme_and_pictures_stay_small():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    pictures = list((ROOT / "docs" / "pictures").glob("*"))
    assert sum(path.stat().st_size for path in pictures) <= 1_500_000


def test_every_dependency_has_its_reason_in_the_readme():
    readme = (ROOT / "README.md").read_text().lower()
    named = re.findall(r'"([A-Za-z][\w-]*)(?:\[\w+\])?[><]=?', (ROOT / "setup.py").read_text())
    named = {name.lower() for name in named if not name.startswith("types-")}
    assert len(named) > 30
    assert not {name for name in named if name not in readme}
