"""SECURITY.md promises nothing that no test stands for."""

import ast
import re

import pytest

from tests.support.paths import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "SECURITY.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| who or what")
]


def named_in(row: list[str]) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_line_names_its_tests(row):
    assert len(row) == 4
    found = named_in(row)
    assert found
    for path, name in found:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_who_hand_something_in_are_there():
    named = " ".join(row[0] for row in ROWS)
    for who in ("catalogue", "announces", "audio", "dataset", "export", "client", "a command"):
        assert who in named
