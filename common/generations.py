"""The generations of a dataset that grows: what a manifest says, and what a list of them holds.

    <dataset>/                      generation 0: config, thresholds, statistics, and its shards
    <dataset>/generations/000001/   shards, rejected.jsonl, catalogue.csv and, last, manifest.json

A folder without a manifest is unfinished, and nobody reads it. What has one never changes: whatever
comes later is a further generation. One made of several others names them in `replaces`; from the
moment its manifest is there, a reader takes it in their place, and one that is pinned to the old
list goes on with that for as long as their files are there.
"""

import concurrent.futures
import dataclasses
import datetime
import functools
import hashlib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from common import dataset_info, files
from common.dataset_config import SPLITS
from common.dataset_info import DatasetInfo, Shard, Split
from common.errors import UserFacingError
from common.inputs import InputStatistics

FOLDER = "generations"
MANIFEST_FILE = "manifest.json"
CATALOGUE_FILE = "catalogue.csv"
FORMAT_VERSION = 1

# Small files, of which a bucket takes many requests at once.
_READ_AT_ONCE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a generation holds and where it came from.

    Attributes:
        generation: its number, from 1 on.
        base_fingerprint: of generation 0, which decides its config and thresholds.
        fingerprint: of its own config and records, as of a dataset.
        splits: as in `dataset_info.json`; the files of its shards lie in its own folder.
        rejected: {reason: how many of its tracks and announcements could not be used}.
        missing_audio: how many of its tracks had no file when it was made.
        window: (start, end) of the event time, end excluded, as RFC 3339; None of a generation
            that has no tracks.
        source: `uri`, and `offsets` {part of the source: [from, to)} that it is the first to take
            account of; where it was made of others that came from elsewhere, `others` as well, a
            list of `uri` and `offsets`. `waiting`, `messages` and `corrections`: how many lines a
            file of this name has beside it.
        late: how many of its tracks came after another generation of the same window, or a later.
        counts: `announced`, `tracks` and what else was counted.
        new_artists: {split: how many of its artists are in no generation before it}.
        split_check: as in `dataset_info.json`, counted over it and all before it: groups that are
            in two splits for the first time.
        replaces: the generations that it was made of, and those that these were made of.
        versions: of the libraries that samples and pictures pass through; several, with commas,
            where the generations that it was made of differ.
        statistics: those of the training split, where no generation before it has any.
        corrected: of one with a `corrections.jsonl`, the `sha256` of that and `class_counts`
            {split: {class: how many more or fewer examples it has by that}}.
    """

    generation: int
    base_fingerprint: str
    fingerprint: str
    splits: dict[str, Split]
    rejected: dict[str, int]
    missing_audio: int
    window: tuple[str, str] | None
    source: dict[str, Any]
    late: int
    counts: dict[str, int]
    new_artists: dict[str, int]
    split_check: dict[str, Any]
    replaces: tuple[int, ...] = ()
    versions: dict[str, str]
    statistics: InputStatistics | None = None
    corrected: dict[str, Any] | None = None

    @property
    def num_examples(self) -> int:
        return sum(split.num_examples for split in self.splits.values())

    @property
    def num_records(self) -> int:
        return sum(split.num_records for split in self.splits.values())

    @property
    def spans(self) -> dict[str, dict[str, list[int]]]:
        """Returns {uri of a source: {part: [from, to)}}."""
        every = [self.source, *self.source.get("others", [])]
        return {each["uri"]: each["offsets"] for each in every}

    def to_json(self) -> str:
        values = {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)
        values["splits"] = {name: split.to_dict() for name, split in self.splits.items()}
        for optional in ("statistics", "corrected"):
            if values[optional] is None:
                del values[optional]
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = MANIFEST_FILE) -> "Manifest":
        """Parses the text of a manifest, called `name` in messages.

        Raises:
            UserFacingError: it is not one, or of a format that this version does not read; names
                the field.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserFacingError(f"{name}: not a {MANIFEST_FILE} ({error})") from None
        if not isinstance(values, dict):
            raise UserFacingError(f"{name}: not a {MANIFEST_FILE} (no object)")
        if (version := values.pop("format_version", None)) != FORMAT_VERSION:
            raise UserFacingError(f"{name}: format {version}, this version reads {FORMAT_VERSION}")
        _check_fields(values, name)
        splits = {
            split: Split(**found | {"shards": tuple(Shard(**shard) for shard in found["shards"])})
            for split, found in values["splits"].items()
        }
        statistics = values.get("statistics")
        try:
            read = None if statistics is None else InputStatistics.from_dict(statistics)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserFacingError(f"{name}: statistics: not such ({error!r})") from None
        window = values["window"]
        return cls(
            **values
            | {
                "splits": splits,
                "statistics": read,
                "window": None if window is None else tuple(window),
                "replaces": tuple(values["replaces"]),
            }
        )


# ---- strict reading


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_window(value: object) -> bool:
    if value is None:
        return True
    if not (isinstance(value, list) and len(value) == 2):
        return False
    try:
        start, end = map(seconds_of, value)
    except (ValueError, TypeError, AttributeError):
        return False
    return start < end


def _is_source(value: object) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("uri"), str)):
        return False
    offsets, others = value.get("offsets"), value.get("others", [])
    if not isinstance(others, list):
        return False
    if not all(_is_source(other) and "others" not in other for other in others):
        return False
    return isinstance(offsets, dict) and all(
        isinstance(span, list)
        and len(span) == 2
        and all(map(_is_count, span))
        and span == sorted(span)
        for span in offsets.values()
    )


def _is_replaces(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and number > 0 for number in value)


def _is_corrected(value: object) -> bool:
    if not (isinstance(value, dict) and value.keys() == {"sha256", "class_counts"}):
        return False
    counts = value["class_counts"]
    return (
        _is_digest(value["sha256"])
        and isinstance(counts, dict)
        and counts.keys() == set(SPLITS)
        and all(
            isinstance(of_split, dict) and all(type(count) is int for count in of_split.values())
            for of_split in counts.values()
        )
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "generation": (lambda value: _is_count(value) and value != 0, "a number from 1 on"),
    "base_fingerprint": (_is_digest, "a SHA-256"),
    "fingerprint": (_is_digest, "a SHA-256"),
    "splits": (lambda value: isinstance(value, dict), "an object"),
    "rejected": (_is_counts, "an object of counts"),
    "missing_audio": (_is_count, "a count"),
    "window": (_is_window, "two dates of RFC 3339 that rise, or null"),
    "source": (_is_source, "an object with uri and offsets {name: [from, to]}"),
    "late": (_is_count, "a count"),
    "counts": (_is_counts, "an object of counts"),
    "new_artists": (_is_counts, "an object of counts"),
    "split_check": (lambda value: isinstance(value, dict), "an object"),
    "replaces": (_is_replaces, "a list of generations"),
    "versions": (_is_texts, "an object of texts"),
}
_SPLIT_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "num_examples": (_is_count, "a count"),
    "class_counts": (_is_counts, "an object of counts"),
    "num_artists": (_is_count, "a count"),
    "shards": (lambda value: isinstance(value, list), "a list"),
}
_SHARD_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    # It is opened below the generation's folder and nowhere else.
    "file": (
        lambda value: isinstance(value, str) and re.fullmatch(r"\w[\w.-]*", value) is not None,
        "the name of a file",
    ),
    "num_examples": (_is_count, "a count"),
    "bytes": (_is_count, "a count"),
    "sha256": (_is_digest, "a SHA-256"),
}
_UNLABELLED = (_is_count, "a count")
_CORRECTED = (_is_corrected, "an object with sha256 and class_counts {split: {class: number}}")


def _check_fields(values: dict[str, Any], name: str) -> None:
    _check(values, _FIELDS, name, optional={"statistics": None, "corrected": _CORRECTED})
    if values["splits"].keys() != set(SPLITS):
        raise UserFacingError(f"{name}: splits: not {', '.join(SPLITS)}")
    for split, found in values["splits"].items():
        where = f"{name}: splits.{split}"
        _check(found, _SPLIT_FIELDS, where)
        for index, shard in enumerate(found["shards"]):
            optional = {"unlabelled": _UNLABELLED}
            shard_name = f"{where}.shards[{index}]"
            _check(shard, _SHARD_FIELDS, shard_name, optional=optional)
            if shard.get("unlabelled", 0) > shard["num_examples"]:
                raise UserFacingError(f"{shard_name}.unlabelled: more than it has")
        labelled = sum(s["num_examples"] - s.get("unlabelled", 0) for s in found["shards"])
        if labelled != found["num_examples"]:
            raise UserFacingError(f"{where}.num_examples: not what its shards have")
    for field in ("groups_in_two_splits", "artists_in_two_splits"):
        if not _is_count(values["split_check"].get(field)):
            raise UserFacingError(f"{name}: split_check.{field}: not a count")


def _check(
    values: object,
    fields: Mapping[str, tuple[Callable[[object], bool], str]],
    name: str,
    *,
    optional: Mapping[str, tuple[Callable[[object], bool], str] | None] = types.MappingProxyType(
        {}
    ),
) -> None:
    """Checks fields; of optional ones those that are there, unless that is done elsewhere."""
    if not isinstance(values, dict):
        raise UserFacingError(f"{name}: not an object")
    for field in sorted(values.keys() - fields.keys() - optional.keys()):
        raise UserFacingError(f"{name}: {field}: unknown")
    for field in fields:
        if field not in values:
            raise UserFacingError(f"{name}: {field}: missing")
    there = {field: rule for field, rule in optional.items() if rule and field in values}
    for field, (holds, words) in {**fields, **there}.items():
        if not holds(values[field]):
            raise UserFacingError(f"{name}: {field}: {values[field]!r:.100} is not {words}")


# ---- event time


@functools.lru_cache(1_024)  # much is announced at once
def seconds_of(text: str) -> float:
    """Returns seconds since 1970 of a date of RFC 3339, which names its zone; ValueError."""
    # Python 3.10 knows no Z, and no fractions but of 3 or 6 digits.
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", text, re.ASCII
    )
    if found is None:
        raise ValueError("not a date of RFC 3339")
    day, time, fraction, zone = found.groups()
    zone = "+00:00" if zone in "Zz" else zone
    moment = datetime.datetime.fromisoformat(f"{day}T{time}{zone}")
    return moment.timestamp() + float(fraction or 0)


def text_of(seconds: int) -> str:
    """Returns whole seconds since 1970 as RFC 3339, in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- the list


def folder_of(dataset_dir: str, generation: int) -> str:
    return files.join(dataset_dir, f"{FOLDER}/{generation:06d}")


def below(generation: int, file: str) -> str:
    """Returns the path of a generation's file below the dataset's folder."""
    return f"{FOLDER}/{generation:06d}/{file}"


def generation_of(shard_file: str) -> int:
    """Returns the generation that a shard is of, by its path below the dataset's folder."""
    below = shard_file.split("/")
    return int(below[1]) if below[0] == FOLDER else 0


def sizes_below(dataset_dir: str) -> dict[str, int]:
    """Returns {path below the dataset's folder: bytes} of all files of generations from 1 on."""
    folder = dataset_dir.rstrip("/")
    return {
        state.path.removeprefix(f"{folder}/"): state.size
        for state in files.states_below(files.join(folder, FOLDER))
    }


def numbers_in(sizes: Iterable[str]) -> list[int]:
    """Returns the generations whose manifests are among the paths of `sizes_below`."""
    pattern = re.compile(rf"{FOLDER}/(\d{{6,}})/{re.escape(MANIFEST_FILE)}")
    return sorted(int(found[1]) for found in map(pattern.fullmatch, sizes) if found)


def load(dataset_dir: str, numbers: Iterable[int]) -> list[Manifest]:
    """Reads the manifests of generations, in the order of their numbers.

    Raises:
        UserFacingError: one is missing, is damaged, or is that of another.
    """

    def read(number: int) -> Manifest:
        path = files.join(folder_of(dataset_dir, number), MANIFEST_FILE)
        try:
            manifest = Manifest.from_json(files.read_bytes(path), name=path)
        except FileNotFoundError:
            raise UserFacingError(f"{path}: missing; generation {number} is gone") from None
        if manifest.generation != number:
            raise UserFacingError(f"{path}: generation: {manifest.generation}, not {number}")
        return manifest

    with concurrent.futures.ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        return list(pool.map(read, sorted(numbers)))


def current(manifests: Sequence[Manifest], *, name: str) -> list[Manifest]:
    """Returns those that a reader takes: all but those that another one replaces.

    Args:
        manifests: of all generations that are there.
        name: of the dataset, for messages.

    Raises:
        UserFacingError: one is neither there nor replaced.
    """
    replaced = {number for manifest in manifests for number in manifest.replaces}
    there = {manifest.generation for manifest in manifests}
    for number in range(1, max(there, default=0) + 1):
        if number not in there and number not in replaced:
            raise UserFacingError(f"{name}: generation {number} is missing; bring its folder back")
    return [manifest for manifest in manifests if manifest.generation not in replaced]


def info_of_list(first: DatasetInfo, manifests: Sequence[Manifest], *, name: str) -> DatasetInfo:
    """Returns the description of a list of generations as of one dataset.

    The paths of its shards are relative to the dataset's folder. Config, thresholds and versions
    are those of generation 0. Statistics are the first that there are. The class counts are those
    of the newest listens; examples, and what is unlabelled, are counted as they were written, until
    `relabelling.joined` has read which have a label by now.

    Args:
        first: the description of generation 0.
        manifests: of the others.
        name: of the dataset, for messages.

    Raises:
        UserFacingError: generation 0 is not the one that the others were added to, or their counts
            can't be true.
    """
    if not manifests:
        return first
    for manifest in manifests:
        if manifest.base_fingerprint != first.fingerprint:
            raise UserFacingError(
                f"{name}: generation {manifest.generation} was added to another dataset than the "
                f"one in {dataset_info.FILE_NAME}, which must have been made anew since; bring "
                "that one back"
            )
    splits = {}
    for split, own in first.splits.items():
        parts = [
            own,
            *(_split_below(manifest, split) for manifest in manifests),
        ]
        counts = [part.class_counts for part in parts]
        counts += [m.corrected["class_counts"][split] for m in manifests if m.corrected is not None]
        splits[split] = Split(
            num_examples=sum(part.num_examples for part in parts),
            class_counts={
                label: sum(each.get(label, 0) for each in counts) for label in first.class_names
            },
            num_artists=sum(part.num_artists for part in parts),
            shards=tuple(shard for part in parts for shard in part.shards),
        )
        if min(splits[split].class_counts.values(), default=0) < 0:
            raise UserFacingError(
                f"{name}: damaged; corrected.class_counts of its manifests take more examples of a "
                f"class than the split {split} has"
            )
    checks = [first.split_check, *(manifest.split_check for manifest in manifests)]
    reasons = list(first.rejected)
    reasons += sorted({reason for m in manifests for reason in m.rejected} - set(reasons))
    every = [first.rejected, *(manifest.rejected for manifest in manifests)]
    given = [first.statistics, *(manifest.statistics for manifest in manifests)]
    return dataclasses.replace(
        first,
        fingerprint=fingerprint(first, manifests),
        splits=splits,
        rejected={reason: sum(part.get(reason, 0) for part in every) for reason in reasons},
        missing_audio=first.missing_audio + sum(m.missing_audio for m in manifests),
        split_check={
            "by": first.split_check["by"],
            **{
                field: sum(check[field] for check in checks)
                for field in ("groups_in_two_splits", "artists_in_two_splits")
            },
        },
        statistics=next((each for each in given if each is not None), None),
        generations=(0, *(manifest.generation for manifest in manifests)),
    )


def _split_below(manifest: Manifest, name: str) -> Split:
    """Returns a split of a generation with its shards as paths below the dataset's folder."""
    split = manifest.splits[name]
    return dataclasses.replace(
        split,
        num_artists=manifest.new_artists.get(name, 0),
        shards=tuple(
            dataclasses.replace(shard, file=below(manifest.generation, shard.file))
            for shard in split.shards
        ),
    )


def fingerprint(first: DatasetInfo, manifests: Sequence[Manifest]) -> str:
    """Returns one SHA-256 for a list of generations."""
    parts: list[list[Any]] = [[0, first.fingerprint]]
    for manifest in manifests:
        corrected = [] if manifest.corrected is None else [manifest.corrected["sha256"]]
        parts.append([manifest.generation, manifest.fingerprint, *corrected])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
