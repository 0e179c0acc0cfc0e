"""What is seen of `demo_stream`: lines in the terminal, and `state.json` for its page.

All of it is read from the files that the commands leave, as anybody could.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from common import dataset_reader, files, generations, labels, tables
from common.generations import Manifest

# Whoever waits sees a line after so many seconds.
SILENCE = 4.0
STATE_FILE = "state.json"
_LINES_ON_THE_PAGE = 12
_COLORS = {"music": 36, "stream": 33, "follow": 35, "serving": 32}


# ---- what the files say


def manifests(live: pathlib.Path) -> list[Manifest]:
    """Returns those of the generations that are there."""
    dataset = str(live / "dataset")
    return generations.load(dataset, generations.numbers_in(generations.sizes_below(dataset)))


def updates(live: pathlib.Path) -> list[dict[str, Any]]:
    """Returns what the files of each update say, as far as it has come, in their order."""
    found = []
    for folder in sorted((live / "following" / "updates").glob("*")):
        update: dict[str, Any] = {"folder": str(folder.relative_to(live))}
        for name in ("plan", "before", "update"):
            with contextlib.suppress(FileNotFoundError):
                update |= json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if "update" in update:
            found.append(update)
    return found


def has_followed(live: pathlib.Path, *, announced: int) -> bool:
    """Returns whether so many announcements are in generations, all of which were followed."""
    there = manifests(live)
    followed = {
        number for each in updates(live) if "outcome" in each for number in each["generations"]
    }
    return (
        sum(manifest.counts.get("announced", 0) for manifest in there) >= announced
        and {manifest.generation for manifest in there} <= followed
    )


def doing(live: pathlib.Path) -> str:
    """Says what is under way, or what all wait for."""
    *_, last = updates(live)
    if "outcome" not in last:
        return f"update {last['update']} is {outcome(last)}"
    if any(each.generation not in last["generations"] for each in manifests(live)):
        return "the next update begins"
    return "the next generation is announced"


def outcome(update: dict[str, Any]) -> str:
    """Says what came of an update, or how far it is."""
    if "outcome" not in update:
        return "training" if "prequential" in update else "testing"
    if update["outcome"] == "released":
        return f"released as version {update['export']}"
    return ": ".join([update["outcome"], "; ".join(update["reasons"])]).removesuffix(": ")


def accuracy_before(update: dict[str, Any]) -> float | None:
    """Returns how often the model was right about clips that it had not been trained on yet."""
    lines = update.get("prequential", [])
    return float(lines[-1]["models"]["follow"]["accuracy"]) if lines else None


def clips_of(manifest: Manifest) -> int:
    return sum(split.num_examples for split in manifest.splits.values())


def told(live: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (who, a line) for all that has happened."""
    for manifest in manifests(live):
        rejected = "".join(f", {count} {why}" for why, count in sorted(manifest.rejected.items()))
        yield "stream", f"generation {manifest.generation}: {clips_of(manifest)} clips{rejected}"
    for update in updates(live):
        name = f"update {update['update']}"
        if update["new"]:
            yield "follow", f"{name} begins: the model is tested on generation {update['new'][-1]}"
        for line in update.get("prequential", ()):
            accuracy = tables.percent(line["models"]["follow"]["accuracy"])
            yield (
                "follow",
                f"{name}: right about {accuracy} of {line['num_examples']} clips that it never "
                "heard; now it trains on them",
            )
        if "outcome" in update:
            yield "follow", f"{name}: {outcome(update)}"


def table(live: pathlib.Path) -> str:
    """Returns the lines that say what was released, and what was not."""
    rows = [("update", "generation", "before training on it", "on the test split", "outcome")]
    for update in updates(live):
        evaluation = live / update["folder"] / "evaluation.json"
        accuracy = json.loads(evaluation.read_text())["accuracy"] if evaluation.exists() else None
        rows.append(
            (
                str(update["update"]),
                str(update["generations"][-1]),
                tables.percent(accuracy_before(update), unknown="–"),
                tables.percent(accuracy, unknown="–"),
                outcome(update),
            )
        )
    *columns, outcomes = zip(*rows, strict=True)
    lines = tables.aligned(list(zip(*columns, strict=True)))
    return "\n".join(f"  {line}  {end}" for line, end in zip(lines, outcomes, strict=True))


# ---- what is shown


class View:
    """Shows what happens in the folder `live` from now on.

    Args:
        live: with the folders `dataset` and `following`.
        app: the URL of the server.
        songs: how many will be announced.
    """

    def __init__(self, live: pathlib.Path, *, app: str, songs: int):
        self._live, self._app, self._songs = live, app, songs
        self._began = self._spoke = time.monotonic()
        self._known = set(told(live))
        self._lines: list[dict[str, str]] = []
        self._answer: dict[str, Any] = {}
        self._announced, self._version = 0, ""
        info = dataset_reader.load_dataset_info(str(live / "dataset"), check_shards_of=())
        self._class_names, self._thresholds = info.class_names, info.thresholds

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def announced(
        self, count: int, *, newest: str, listens: int, answer: dict[str, Any] | None
    ) -> None:
        """Tells that `count` songs have been announced, and what the model says of the newest.

        Args:
            count: of all so far.
            newest: what the newest is called.
            listens: of it.
            answer: of the server; None where it gave none.
        """
        self._announced = count
        line = f"{count} of {self._songs} songs announced, now {newest}"
        if answer is not None:
            label, version = answer["label"], answer["version"]
            truth = self._class_names[labels.label_of(listens, self._thresholds)]
            share = f"{100 * answer['probabilities'][label]:.0f} %"
            line += f"; version {version} says {label} ({share}), in truth {truth}"
            self._answer = {
                "song": newest,
                "label": label,
                "share": share,
                "version": version,
                "truth": truth,
            }
        self._say("music", line)

    def look(self, version: str) -> None:
        """Tells what is new, and that all live where nothing is.

        Args:
            version: of the model that answers; empty where none does yet.
        """
        if version and version != self._version:
            self._version = version
            self._say("serving", f"version {version} answers")
        for who, text in told(self._live):
            if (who, text) not in self._known:
                self._known.add((who, text))
                self._say(who, text)
        if time.monotonic() - self._spoke > SILENCE:
            self._print("…", doing(self._live), passing=True)
        files.write_atomically(str(self._live), STATE_FILE, json.dumps(self._state()).encode())

    def _say(self, who: str, text: str) -> None:
        self._print(who, text)
        self._lines.append({"at": f"{self.seconds():.0f} s", "who": who, "text": text})

    def _print(self, who: str, text: str, *, passing: bool = False) -> None:
        """Prints a line, which the next one takes the place of if it is passing."""
        name, begin, end = f"{who:<7}", "", "\n"
        if sys.stdout.isatty():
            begin, end = "\r\x1b[K", "" if passing else "\n"
            if "NO_COLOR" not in os.environ:
                name = f"\x1b[{_COLORS.get(who, 2)}m{name}\x1b[0m"
        print(f"{begin}{self.seconds():5.0f} s  {name}  {text}", end=end, flush=True)
        self._spoke = time.monotonic()

    def _state(self) -> dict[str, Any]:
        there = manifests(self._live)
        return {
            "announced": self._announced,
            "songs": self._songs,
            "generations": len(there),
            "clips": sum(map(clips_of, there)),
            "version": self._version,
            "app": self._app,
            "answer": self._answer,
            "updates": [
                {
                    "number": update["update"],
                    "generation": update["generations"][-1],
                    "accuracy": tables.percent(accuracy_before(update), unknown="–"),
                    "outcome": outcome(update),
                    "kind": update.get("outcome", "running"),
                    "pages": [
                        f"{update['folder']}/{name}"
                        for name in ("report.html", "gate.html")
                        if (self._live / update["folder"] / name).exists()
                    ],
                }
                for update in updates(self._live)
            ],
            "lines": self._lines[-_LINES_ON_THE_PAGE:],
        }
