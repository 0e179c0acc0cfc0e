"""Writes our own figures into README and docs, between markers, from what the commands left.

python -m tools.fill_results [--demo_dir=demo] [--real=build/real/real.md]

A block is what stands between `<!-- NAME: … -->` and `<!-- /NAME -->`. A block whose source is not
there stays as it is.
"""

import json
import pathlib
import re
from typing import Any

from absl import flags

from common import command, tables
from common.errors import require

_DEMO_DIR = flags.DEFINE_string("demo_dir", "demo", "What `make demo` left.")
_REAL = flags.DEFINE_string("real", "build/real/real.md", "The table that `make real` wrote.")

PAGES = ("README.md", "docs/reproducing-the-poster.md")
# The poster's networks and test accuracies, in percent.
POSTER = (
    ("2 convolutions, mono", 42),
    ("4 convolutions, mono", 51),
    ("4 convolutions, RGB", 53),
    ("6 convolutions, RGB", 61),
)
DEMOS_NETWORK = "6 convolutions, RGB"


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
    return re.sub(r"^#+ ", "### ", text, flags=re.MULTILINE)


def fill(text: str, name: str, content: str) -> str:
    """Returns a page with this block's content put in anew; the page itself where it has none."""
    pattern = rf"(<!-- {name}\b[^>]*-->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)


def main(_: list[str]) -> None:
    demo_dir = pathlib.Path(_DEMO_DIR.value)
    blocks = {
        "demo": demo_block(demo_dir),
        "results": results_block(demo_dir),
        "real": real_block(pathlib.Path(_REAL.value)),
    }
    require(any(blocks.values()), f"{demo_dir}: neither a demo nor real results; run `make demo`")
    for page in map(pathlib.Path, PAGES):
        text = page.read_text(encoding="utf-8")
        for name, content in blocks.items():
            if content is not None:
                text = fill(text, name, content)
        page.write_text(text, encoding="utf-8")
        print(page)


if __name__ == "__main__":
    command.run(main)
