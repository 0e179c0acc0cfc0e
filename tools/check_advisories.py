r"""Asks PyPI which advisories there are for the versions in constraints.txt.

python -m tools.check_advisories            # all of them
python -m tools.check_advisories jinja2     # some

Ends with 1 where there is an advisory that was not withdrawn, and with 2 where the source does not
answer for some version, of which nothing is known then: mirrors of PyPI often have no advisories.
The source is PyPI's JSON API (https://docs.pypi.org/api/json/), whose advisories are those of
https://github.com/pypa/advisory-database.
"""

import dataclasses
import http.client
import json
import pathlib
import re
import sys
import urllib.error
import urllib.request
from typing import Any

from absl import app, flags

_CONSTRAINTS = flags.DEFINE_string("constraints", "constraints.txt", "The pinned versions.")
_SOURCE = flags.DEFINE_string("source", "https://pypi.org/pypi", "Of the JSON API.")
_SECONDS = flags.DEFINE_float("seconds", 20.0, "How long one answer may take.")

# An answer lists the files of a version; tensorflow's has some 100 kB.
_LONGEST_ANSWER = 20_000_000
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)")
# If the first so many get no answer, the rest is not asked.
_GIVE_UP_AFTER = 3


@dataclasses.dataclass(frozen=True)
class Advisory:
    """What is known of a version: names such as CVE-2024-1, a line of text, where it is mended."""

    names: tuple[str, ...]
    summary: str
    fixed_in: tuple[str, ...]


class NoAnswer(Exception):
    """The source says nothing of a version."""


def pins(text: str) -> list[tuple[str, str]]:
    """Returns (name, version) of each line of a constraints file, in order, once each."""
    found = [match.groups() for line in text.splitlines() if (match := _PIN.match(line.strip()))]
    return list(dict.fromkeys((name.lower(), version) for name, version in found))


def advisories(name: str, version: str, *, source: str, seconds: float) -> list[Advisory]:
    """Returns what is known of a version.

    Raises:
        NoAnswer: the source can't be reached, or its answer has no advisories in it.
    """
    try:
        with urllib.request.urlopen(f"{source}/{name}/{version}/json", timeout=seconds) as answer:
            values = json.loads(answer.read(_LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        raise NoAnswer(f"HTTP {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswer(str(getattr(error, "reason", error))) from None
    listed = values.get("vulnerabilities") if isinstance(values, dict) else None
    if not isinstance(listed, list):
        raise NoAnswer("an answer without advisories")
    try:
        return [_advisory(each) for each in listed if not each.get("withdrawn")]
    except (AttributeError, TypeError) as error:
        raise NoAnswer(f"an answer that can't be read ({error})") from None


def _advisory(values: dict[str, Any]) -> Advisory:
    names = [*(values.get("aliases") or []), values.get("id") or "no name"]
    summary = values.get("summary") or values.get("details") or ""
    return Advisory(
        names=tuple(dict.fromkeys(map(str, names))),
        summary=" ".join(str(summary).split())[:200],
        fixed_in=tuple(map(str, values.get("fixed_in") or ())),
    )


def main(argv: list[str]) -> int:
    wanted = {name.lower() for name in argv[1:]}
    pinned = pins(pathlib.Path(_CONSTRAINTS.value).read_text())
    pinned = [pin for pin in pinned if not wanted or pin[0] in wanted]
    if unknown := sorted(wanted - {name for name, _ in pinned}):
        print(f"error: {', '.join(unknown)}: not in {_CONSTRAINTS.value}", file=sys.stderr)
        return 1
    known = unanswered = 0
    for place, (name, version) in enumerate(pinned):
        try:
            found = advisories(name, version, source=_SOURCE.value, seconds=_SECONDS.value)
        except NoAnswer as error:
            print(f"{name} {version}: not known ({error})")
            unanswered += 1
            if unanswered == place + 1 == _GIVE_UP_AFTER:
                unanswered += len(pinned) - place - 1
                break
            continue
        for advisory in found:
            mended = ", ".join(advisory.fixed_in) or "no version yet"
            names = ", ".join(advisory.names)
            print(f"{name} {version}: {names}: {advisory.summary} (mended in {mended})")
        known += len(found)
    print(f"{len(pinned)} versions: {known} advisories, nothing known of {unanswered} versions")
    if unanswered:
        print(f"error: {_SOURCE.value} does not answer for {unanswered}", file=sys.stderr)
    return 1 if known else 2 if unanswered else 0


if __name__ == "__main__":
    app.run(main)
