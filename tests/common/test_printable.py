"""Names that strangers gave, where they are shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.printable import MAX_LETTERS, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hip-Hop", "Hip-Hop"),
        ("Música / 音楽", "Música / 音楽"),
        ("a\x00b\x07\x1b[31mc\r\nd", r"a\x00b\x07\x1b[31mc\r\nd"),
        ("\u202edrawkcab\u2066", r"\u202edrawkcab\u2066"),
        ("\udcff\U000e0001", r"\udcff\U000e0001"),
        ("", ""),
        ("x" * 60, "x" * 60),
        ("x" * 1_000_000, "x" * 60 + "…"),
    ],
)
def test_what_is_shown(text, shown):
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=200))
def test_nothing_that_a_terminal_obeys_comes_through(text):
    shown = printable(text)
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(shown) <= 10 * MAX_LETTERS + 1
    shown.encode()
