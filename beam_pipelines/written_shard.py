"""What the writer of a shard hands on: what is in it, what is not, and which groups it holds."""

import dataclasses
import json
from typing import Any

from common.catalogue import Track
from common.rejection import ClipError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RejectedTrack:
    """A line of `rejected.jsonl`: a track that could not be used, and why.

    Attributes:
        track_id: of the catalogue.
        path: of its audio, as the catalogue has it.
        reason: one of `rejection.REASONS`.
        message: the reason in words.
    """

    track_id: int
    path: str
    reason: str
    message: str

    @classmethod
    def of(cls, track: Track, error: ClipError) -> "RejectedTrack":
        return cls(
            track_id=track.track_id, path=track.path, reason=error.reason, message=str(error)
        )

    def to_json(self) -> str:
        """Returns the line, in ASCII: a file's name need not be UTF-8."""
        return json.dumps(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardSummary:
    """What a shard holds, in numbers.

    Attributes:
        split: `train`, `validation` or `test`.
        file: its name.
        num_examples: how many records it has.
        bytes: its size.
        sha256: of the file, as hexadecimal digits.
        label_counts: how many records each class has.
        num_tracks: how many tracks they are of.
        missing_audio: how many tracks had no audio file.
        rejected: {reason: how many tracks were rejected for it}.
    """

    split: str
    file: str
    num_examples: int
    bytes: int
    sha256: str
    label_counts: tuple[int, ...]
    num_tracks: int
    missing_audio: int
    rejected: dict[str, int]

    def packed(self) -> dict[str, Any]:
        """Returns plain values, which Beam encodes by itself."""
        return dataclasses.asdict(self)

    @classmethod
    def unpacked(cls, values: dict[str, Any]) -> "ShardSummary":
        """Returns the summary of `packed`, or of its JSON."""
        return cls(**values | {"label_counts": tuple(values["label_counts"])})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WrittenShard:
    """A shard that is written.

    Attributes:
        summary: what it holds.
        rejected: the tracks that could not be used.
        groups: (kind, id) of each artist that is in it, and of each group that the split is by.
        statistics: of a shard of the training split, `ShardStatistics.to_json`.
    """

    summary: ShardSummary
    rejected: tuple[RejectedTrack, ...]
    groups: tuple[tuple[str, int], ...]
    statistics: str | None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WrittenShard":
        """Returns the shard of `to_dict`; KeyError, TypeError or ValueError if it is none."""
        return cls(
            summary=ShardSummary.unpacked(values["summary"]),
            rejected=tuple(RejectedTrack(**line) for line in values["rejected"]),
            groups=tuple((kind, number) for kind, number in values["groups"]),
            statistics=values["statistics"],
        )
