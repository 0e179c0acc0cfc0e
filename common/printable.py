"""Escapes untrusted names, so that a terminal, a page or a picture can show them."""

import unicodedata

MAX_LETTERS = 60
# Control characters, marks that turn the direction of a text, halves of a character, private ones.
_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, *, at_most: int = MAX_LETTERS) -> str:
    """Returns a text in one line: what is no letter, sign or space escaped, the rest of it cut.

    Args:
        text: any.
        at_most: its first so many characters are shown, and `…` for those after them.
    """
    shown = "".join(map(_escaped, text[:at_most]))
    return shown if len(text) <= at_most else f"{shown}…"


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) not in _ESCAPED:
        return letter
    return letter.encode("unicode_escape", errors="surrogatepass").decode()
