"""Writes our own figures into README and docs, between markers, from what the commands left.

The picture of `make real` goes to docs/pictures.

python -m tools.fill_results [--demo_dir=demo] [--real=build/real/real.md]

A block is what stands between `<!-- NAME: … -->` and `<!-- /NAME -->`. A block whose source is not
there stays as it is.
"""

import json
import pathlib
import re
import shutil
from typing import Any

from absl import flags

from common import command, tables
from common.errors import require

_DEMO_DIR = flags.DEFINE_string("demo_dir", "demo", "What `make demo` left.")
_REAL = flags.DEFINE_string("real", "build/real/real.md", "The table that `make real` wrote.")

REAL_PICTURE = pathlib.Path("docs/pictures/real.png")
PAGES = ("README.md", "docs/reproducing-the-poster.md")
# The poster's networks and test accuracies, in percent.
POSTER = (
    ("2 convolutions, mono", 42),
    ("4 convolutions, mono", 51),
    ("4 convolutions, RGB", 53),
    ("6 convolutions, RGB", 61),
)
DEMOS_NETWORK = "6 convolutions, RGB"
OURS = ("audio alone", "audio and metadata")
BESIDE_OURS = ("majority", "genre alone", "VGGish, frozen", "metadata alone")


def demo_block(demo_dir: pathlib.Path) -> str | None:
    """Returns the end of the demo's output, without the rows that only name a file of it."""
    path = demo_dir / "summary.txt"
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    return "\n".join(
        [
            "```text",
            *(line for line in lines if "  demo/" not in line or "prediction" in line),
            "```",
        ]
    )


def results_block(demo_dir: pathlib.Path) -> str | None:
    """Returns the table of the poster's figures and those of the demo's network."""
    path = demo_dir / "model" / "evaluation.json"
    if not path.exists():
        return None
    evaluation: dict[str, Any] = json.loads(path.read_text())
    low, high = evaluation["accuracy_ci95"]
    ours = (
        f"{tables.percent(evaluation['accuracy'])} "
        f"({tables.percent(low)} to {tables.percent(high)}); "
        f"majority class {tables.percent(evaluation['baselines']['majority'])}"
    )
    lines = [
        "| network | the poster, fma_small | ours, miniature library (`make demo`) |",
        "|---|---|---|",
        *(
            f"| {name} | {accuracy} % | {ours if name == DEMOS_NETWORK else '–'} |"
            for name, accuracy in POSTER
        ),
    ]
    return "\n".join(lines)


def real_block(path: pathlib.Path) -> str | None:
    """Returns the tables of `make real`, their headings one level below the page's."""
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8").strip()
    require("|" in text, f"{path}: no table in it; run `make real` again")
    picture = (
        "![Accuracy, macro F1, log loss and Spearman of each, with intervals](pictures/real.png)"
    )
    return re.sub(r"^#+ ", "### ", text, flags=re.MULTILINE) + f"\n\n{picture}"


def real_summary_block(path: pathlib.Path) -> str | None:
    """Returns the accuracies of `real.json`, a column a protocol."""
    if not path.exists():
        return None
    protocols: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    titles = [protocol["title"].lower() for protocol in protocols]
    lines = [f"| real FMA clips | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    for rows in zip(*(protocol["rows"] for protocol in protocols), strict=True):
        name = rows[0]["name"]
        if name not in (*OURS, *BESIDE_OURS):
            continue
        accuracies = []
        for row in rows:
            low, high = row["accuracy_ci95"]
            accuracies.append(
                f"{tables.percent(row['accuracy'])} "
                f"({tables.percent(low)} to {tables.percent(high)})"
            )
        ours = f"**ours: {name}**" if name in OURS else name
        lines.append(f"| {ours} | {' | '.join(accuracies)} |")
    return "\n".join(lines)


def fill(text: str, name: str, content: str) -> str:
    """Returns a page with this block's content put in anew; the page itself where it has none."""
    pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)


def main(_: list[str]) -> None:
    demo_dir, real = pathlib.Path(_DEMO_DIR.value), pathlib.Path(_REAL.value)
    blocks = {
        "demo": demo_block(demo_dir),
        "results": results_block(demo_dir),
        "real": real_block(real),
        "real-summary": real_summary_block(real.with_suffix(".json")),
    }
    require(any(blocks.values()), f"{demo_dir}: neither a demo nor real results; run `make demo`")
    for page in map(pathlib.Path, PAGES):
        text = page.read_text(encoding="utf-8")
        for name, content in blocks.items():
            if content is not None:
                text = fill(text, name, content)
        page.write_text(text, encoding="utf-8")
        print(page)
    if (picture := real.with_suffix(".png")).exists():
        shutil.copyfile(picture, REAL_PICTURE)
        print(REAL_PICTURE)


if __name__ == "__main__":
    command.run(main)
