"""`dataset_info.json`: what a dataset holds and how it was made, in a file that appears last."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from common import chroma, labels, tempo
from common.catalogue import UNKNOWN
from common.config import misfit
from common.corrections import Corrections
from common.dataset_config import SPLITS, DatasetConfig
from common.errors import UserFacingError, require
from common.inputs import InputStatistics

# What the label was cut from, where that is not the listens.
POPULARITY = "popularity"

FILE_NAME = "dataset_info.json"
REJECTED_FILE = "rejected.jsonl"
FORMAT_VERSION = 1

# What a shard may be called: nothing hidden, in no folder but that of a generation.
_SHARD = re.compile(r"(generations/[0-9]{6}/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One TFRecord file: its name, how many records and bytes it has, and their SHA-256.

    Attributes:
        unlabelled: how many of its records have no label, and are passed over; only in a dataset
            that grows.
    """

    file: str
    num_examples: int
    bytes: int
    sha256: str
    unlabelled: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A split: its shards in order, and what is in them.

    Attributes:
        num_examples: the records that have a label, which are those that are read.
        class_counts: of these.
        num_artists: of all records.
    """

    num_examples: int
    class_counts: dict[str, int]
    num_artists: int
    shards: tuple[Shard, ...]

    @property
    def num_records(self) -> int:
        return sum(shard.num_examples for shard in self.shards)

    @property
    def unlabelled(self) -> int:
        return sum(shard.unlabelled for shard in self.shards)

    @classmethod
    def of_shards(cls, shards: Sequence[Shard]) -> "Split":
        """Returns a split of these shards; of its classes and artists nothing is counted."""
        shards = tuple(shards)
        num_examples = sum(shard.num_examples - shard.unlabelled for shard in shards)
        return cls(num_examples=num_examples, class_counts={}, num_artists=0, shards=shards)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, without what is unlabelled where nothing is."""
        values = dataclasses.asdict(self)
        for shard in values["shards"]:
            if not shard["unlabelled"]:
                del shard["unlabelled"]
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Everything that a reader of the dataset needs to know, and what did not get into it.

    Attributes:
        fingerprint: SHA-256 of the config and of the records, so of all that changes their bytes.
        features: {name: {`dtype`, `shape`}} of each record; `optional` is true of what a record
            leaves out where it is unknown.
        thresholds: between the classes, in listens or what else the config's popularity is, as
            given or found at its quantiles.
        rejected: how many clips were rejected, by reason; `rejected.jsonl` lists them.
        missing_audio: how many rows of the subset had no file in the audio folder.
        split_check: `by`, and counted in what was written `groups_in_two_splits` and, whatever
            the split was by, `artists_in_two_splits`.
        statistics: of the training split; None of a dataset from before there were any.
        generations: those that it is the list of, from 0 on; () of a dataset that has no others,
            whose file does not have the field.
        corrections: the listens that became known after the records of this list were written;
            None where there are none. They are in no file of this form.
    """

    format_version: int
    fingerprint: str
    config: DatasetConfig
    features: dict[str, dict[str, Any]]
    class_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    splits: dict[str, Split]
    rejected: dict[str, int]
    missing_audio: int
    split_check: dict[str, Any]
    catalog_sha256: str
    versions: dict[str, str]
    statistics: InputStatistics | None = None
    generations: tuple[int, ...] = ()
    corrections: Corrections | None = None

    @property
    def num_examples(self) -> int:
        return sum(split.num_examples for split in self.splits.values())

    @property
    def unlabelled(self) -> int:
        return sum(split.unlabelled for split in self.splits.values())

    def newest(self, record: Mapping[str, Any]) -> dict[str, int]:
        """Returns the newest `listens` of a record's track and their `label`, −1 where unknown."""
        listens = UNKNOWN
        if self.corrections is not None:
            listens = self.corrections.listens_of(record["track_id"])
        if listens == UNKNOWN:
            return {"listens": record["listens"], "label": record["label"]}
        return {"listens": listens, "label": labels.label_of(listens, self.thresholds)}

    @classmethod
    def of(
        cls,
        config: DatasetConfig,
        splits: dict[str, Split],
        *,
        thresholds: tuple[float, ...] | None = None,
        rejected: dict[str, int] | None = None,
        missing_audio: int = 0,
        torn_groups: int = 0,
        torn_artists: int = 0,
        catalog_sha256: str = "",
        versions: dict[str, str] | None = None,
        statistics: InputStatistics | None = None,
    ) -> "DatasetInfo":
        """Describes the splits that a config led to.

        Args:
            config, splits: what the dataset is.
            thresholds: those of the config unless given.
            rejected: clips by reason; none unless given.
            missing_audio: rows without a file.
            torn_groups, torn_artists: how many are in two splits, of what the split is by and of
                artists.
            catalog_sha256: of the catalogue, where there is one.
            versions: of libraries.
            statistics: of the training split.
        """
        return cls(
            format_version=FORMAT_VERSION,
            fingerprint=fingerprint(config, splits),
            config=config,
            features=features(config),
            class_names=config.class_names,
            thresholds=config.thresholds if thresholds is None else thresholds,
            splits=splits,
            rejected=rejected or {},
            missing_audio=missing_audio,
            split_check={
                "by": config.split_by,
                "groups_in_two_splits": torn_groups,
                "artists_in_two_splits": torn_artists,
            },
            catalog_sha256=catalog_sha256,
            versions=versions or {},
            statistics=statistics,
        )

    def to_json(self) -> str:
        values = dataclasses.asdict(dataclasses.replace(self, corrections=None))
        del values["corrections"]
        values["config"] = self.config.to_dict()
        values["splits"] = {name: split.to_dict() for name, split in self.splits.items()}
        if self.statistics is None:
            del values["statistics"]
        if not self.generations:
            del values["generations"]
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = FILE_NAME) -> "DatasetInfo":
        """Parses the text of a `dataset_info.json`, called `name` in messages.

        Raises:
            UserFacingError: it is not one, or of a format that this version does not read.
        """
        try:
            values = json.loads(text)
            require(
                values["format_version"] == FORMAT_VERSION,
                f"format {values['format_version']!r:.100}, this version reads "
                f"{FORMAT_VERSION}; build the dataset again",
            )
            values["config"] = DatasetConfig.from_dict(values["config"])
            for field in ("class_names", "thresholds"):
                require(isinstance(values[field], list), f"{field}: not a list")
                values[field] = tuple(values[field])
            require("corrections" not in values, "corrections: unknown")
            values["generations"] = tuple(values.get("generations", ()))
            values["splits"] = {
                split: Split(**v | {"shards": tuple(Shard(**shard) for shard in v["shards"])})
                for split, v in values["splits"].items()
            }
            if values.get("statistics") is not None:
                values["statistics"] = InputStatistics.from_dict(values["statistics"])
            info = cls(**values)
            info._check()
        except UserFacingError as error:
            raise UserFacingError(f"{name}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserFacingError(f"{name}: not a {FILE_NAME} ({error!r:.200})") from None
        return info

    def _check(self) -> None:
        """Raises UserFacingError for a value of another type, or a shard of another folder."""
        wrong = misfit(self, DatasetInfo, name="")
        require(wrong is None, f"{str(wrong)[1:]}: not a value of a {FILE_NAME}")
        for name in SPLITS:
            require(name in self.splits, f"splits.{name}: is missing")
        for feature, described in self.features.items():
            shape = described.get("shape")
            require(
                isinstance(described.get("dtype"), str)
                and isinstance(shape, list)
                and all(type(size) is int and size > 0 for size in shape),
                f"features.{feature}: not a dtype and a shape",
            )
        for split in self.splits.values():
            for shard in split.shards:
                # Whoever made the dataset must not choose what else is read.
                require(
                    _SHARD.fullmatch(shard.file) is not None,
                    f"{shard.file!r:.100}: not the name of a file in this folder",
                )
                require(
                    shard.unlabelled <= shard.num_examples,
                    f"{shard.file}: more unlabelled records than it has",
                )


def fingerprint(config: DatasetConfig, splits: dict[str, Split]) -> str:
    """Returns the SHA-256 of the config and of the records."""
    shards = {name: [shard.sha256 for shard in split.shards] for name, split in splits.items()}
    parts = [FORMAT_VERSION, config.to_dict(), shards]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def features(config: DatasetConfig) -> dict[str, dict[str, Any]]:
    """Returns the `features` of a dataset of this config."""
    scalars = {
        "label": "int64",
        "listens": "int64",
        "track_id": "int64",
        "artist_id": "int64",
        "genre": "bytes",
        "date_created": "int64",
    }
    inputs = config.inputs
    optional = {
        **dict.fromkeys(inputs.category_features.values(), "bytes"),
        **dict.fromkeys(inputs.number_features.values(), "float32"),
        **dict.fromkeys(inputs.text_features.values(), "bytes"),
    }
    if config.popularity != "listens":
        optional[POPULARITY] = "float32"
    optional |= {num_tracks: "int64" for num_tracks, _ in inputs.histories.values()}
    heard: dict[str, tuple[int, ...]] = {"spectrogram": config.spectrogram.shape}
    if inputs.chroma:
        heard["chroma"] = chroma.shape(config.spectrogram)
    if inputs.tempo:
        heard["tempo"] = tempo.shape()
    return {
        **{name: {"dtype": "uint8", "shape": list(shape)} for name, shape in heard.items()},
        **{name: {"dtype": dtype, "shape": []} for name, dtype in scalars.items()},
        **{
            name: {"dtype": dtype, "shape": [], "optional": True}
            for name, dtype in optional.items()
            if name not in scalars
        },
    }
