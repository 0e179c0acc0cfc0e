"""What a dataset that grows knows by its manifests and catalogues: nothing else is remembered."""

import csv
import dataclasses
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from beam_pipelines.splits_and_shards import split_of_track
from beam_pipelines.stream.plan import Waiting
from beam_pipelines.written_shard import RejectedTrack
from common import (
    catalogue,
    dataset_info,
    dataset_reader,
    files,
    generations,
    rejection,
    relabelling,
)
from common.dataset_config import SPLITS, DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from common.generations import Manifest
from common.relabelling import Correction

WAITING_FILE = "waiting.jsonl"
# Ids of messages that a run has read, where a source has no offsets, and how many are remembered,
# the newest: twice those of the largest run.
MESSAGES_FILE = "messages.jsonl"
MOST_MESSAGES = 200_000
NO_AUDIO = "no_audio"
# Why a row of a generation's catalogue has no record.
NO_RECORD = {*rejection.REASONS, NO_AUDIO}


@dataclasses.dataclass
class Known:
    """What is known before a run, kept up to date by it.

    It holds some hundred bytes for each track that is written.

    Attributes:
        first: the description of generation 0.
        manifests: those that a reader takes.
        next_number: of the next generation.
        position: {part of the source: how far it is accounted for}.
        messages: ids of what is accounted for of a source that has no offsets: the newest
            MOST_MESSAGES, oldest first. As a dict, whose keys have an order.
        newest_end: of the windows that are written, in seconds since 1970.
        waiting: announcements that are no records yet.
        listens: {track: listens} of all that is written, as corrected; −1 where unknown.
        splits: {track: its split} of the same.
        corrections: {track: the newest} of what no compaction has written yet.
        artists: {artist: the splits that it is in, a bit for each}.
    """

    first: DatasetInfo
    manifests: list[Manifest]
    next_number: int = 1
    position: dict[str, int] = dataclasses.field(default_factory=dict)
    messages: dict[str, None] = dataclasses.field(default_factory=dict)
    newest_end: float = 0.0
    waiting: list[Waiting] = dataclasses.field(default_factory=list)
    listens: dict[int, int] = dataclasses.field(default_factory=dict)
    splits: dict[int, str] = dataclasses.field(default_factory=dict)
    artists: dict[int, int] = dataclasses.field(default_factory=dict)
    corrections: dict[int, Correction] = dataclasses.field(default_factory=dict)

    @property
    def has_statistics(self) -> bool:
        given = [self.first.statistics, *(manifest.statistics for manifest in self.manifests)]
        return any(each is not None for each in given)

    def add(self, written: "Written") -> tuple[dict[str, int], int]:
        """Takes up what is written.

        Returns:
            {split: how many of its artists are new in it}, and how many of them are thereby in two
            splits for the first time.
        """
        self.listens |= written.listens
        self.splits |= written.splits
        new, leaking = dict.fromkeys(SPLITS, 0), 0
        for split, artists in written.artists.items():
            bit = 1 << SPLITS.index(split)
            for artist in artists:
                before = self.artists.get(artist, 0)
                self.artists[artist] = before | bit
                new[split] += not before & bit
                leaking += before not in (0, bit) and before.bit_count() == 1
        return new, leaking

    def account(
        self, manifest: Manifest, folder: str, *, uri: str, tracks: Collection[int]
    ) -> None:
        """Takes up how far a generation accounts for a source, and what waits after it.

        Args:
            manifest: its own.
            folder: its own.
            uri: the source whose position is asked for.
            tracks: of its catalogue.
        """
        for part, (_, end) in manifest.spans.get(uri, {}).items():
            self.position[part] = max(self.position.get(part, 0), end)
        self.waiting = waiting_after(self.waiting, manifest, folder, tracks)

    def remember(self, messages: Iterable[str]) -> None:
        """Takes up ids of messages, the newest last; forgets the oldest beyond MOST_MESSAGES."""
        self.messages |= dict.fromkeys(messages)
        too_many = max(0, len(self.messages) - MOST_MESSAGES)
        for message in list(itertools.islice(self.messages, too_many)):
            del self.messages[message]

    def correct(self, corrections: Mapping[int, Correction]) -> None:
        """Takes up newer listens of tracks that are written."""
        self.corrections |= corrections
        self.listens |= {track: each.listens for track, each in corrections.items()}


@dataclasses.dataclass
class Written:
    """The tracks that are in a generation.

    Attributes:
        listens: {track: listens}, −1 where unknown.
        splits: {track: its split}.
        artists: {split: its known artists}.
    """

    listens: dict[int, int] = dataclasses.field(default_factory=dict)
    splits: dict[int, str] = dataclasses.field(default_factory=dict)
    artists: dict[str, set[int]] = dataclasses.field(
        default_factory=lambda: {split: set() for split in SPLITS}
    )

    def add(self, track: int, *, listens: int, split: str, artist: int) -> None:
        self.listens[track], self.splits[track] = listens, split
        if artist != catalogue.UNKNOWN:
            self.artists[split].add(artist)


def written_in(info: DatasetInfo, folder: str) -> Written:
    """Reads the records of a dataset or generation; UserFacingError where one is damaged."""
    found = Written()
    for name, split in info.splits.items():
        for shard in split.shards:
            for values in dataset_reader.read_shard(shard, folder):
                track, listens = int(values["track_id"]), int(values["listens"])
                found.add(track, listens=listens, split=name, artist=int(values["artist_id"]))
    return found


def unlabelled_in(info: DatasetInfo, folder: str) -> dict[str, list[int]]:
    """Returns {shard: tracks of its records that have no label}, of shards with such records."""
    return {
        shard.file: [
            values["track_id"]
            for values in dataset_reader.read_shard(shard, folder)
            if values["label"] == catalogue.UNKNOWN
        ]
        for split in info.splits.values()
        for shard in split.shards
        if shard.unlabelled
    }


def load(dataset_dir: str, *, uri: str) -> Known:
    """Reads what is known of a dataset.

    Args:
        dataset_dir: its folder.
        uri: the source whose position is asked for.

    Raises:
        UserFacingError: something in it is damaged.
    """
    first = dataset_reader.first_info(dataset_dir)
    numbers = generations.numbers_in(generations.sizes_below(dataset_dir))
    every = generations.load(dataset_dir, numbers)
    known = Known(first, generations.current(every, name=dataset_dir))
    known.next_number = max(numbers, default=0) + 1
    known.add(written_in(first, dataset_dir))
    for manifest in known.manifests:
        folder = generations.folder_of(dataset_dir, manifest.generation)
        if manifest.window is not None:
            known.newest_end = max(known.newest_end, generations.seconds_of(manifest.window[1]))
        rows = [] if manifest.window is None else list(rows_of(folder))
        if rows:
            known.add(_written_by(rows, folder, first.config))
        known.account(manifest, folder, uri=uri, tracks={row.track_id for row in rows})
        take_newest(known.corrections, relabelling.corrections_of(manifest, folder))
    # One may have been announced, and listed, before its track was written.
    for track, correction in known.corrections.items():
        if track in known.listens:
            known.listens[track] = correction.listens
    newest: list[str] = []
    for manifest in reversed(known.manifests):
        folder = generations.folder_of(dataset_dir, manifest.generation)
        messages = messages_of(manifest, folder)
        newest += [each["id"] for each in reversed(messages) if each["uri"] == uri]
        if len(newest) >= MOST_MESSAGES:
            break
    known.remember(reversed(newest))
    return known


def announced_at(dataset_dir: str, there: Known) -> dict[int, float]:
    """Returns {track: when its listens were announced, in seconds since 1970}, where known."""
    found: dict[int, float] = {}
    for manifest in there.manifests:
        if manifest.window is not None:
            for track, cells in cells_of(
                generations.folder_of(dataset_dir, manifest.generation)
            ).items():
                found[track] = generations.seconds_of(cells["announced_at"])
    return found | {track: each.age[0] for track, each in there.corrections.items()}


def take_newest(corrections: dict[int, Correction], others: Iterable[Correction]) -> None:
    """Takes up others where they are newer."""
    for other in others:
        before = corrections.get(other.track_id, other)
        corrections[other.track_id] = max(before, other, key=lambda each: each.age)


def messages_of(manifest: Manifest, folder: str) -> list[dict[str, str]]:
    """Returns `uri` and `id` of the messages that a generation accounts for, the newest last.

    Raises:
        UserFacingError: their list is missing or damaged.
    """
    if not manifest.source.get("messages"):
        return []
    return _entries(
        files.join(folder, MESSAGES_FILE),
        lambda values: {"uri": str(values["uri"]), "id": str(values["id"])},
    )


def messages_text(messages: Iterable[Mapping[str, str]]) -> bytes:
    """Returns the contents of a `messages.jsonl`, in ASCII."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def waiting_after(
    before: list[Waiting], manifest: Manifest, folder: str, tracks: Collection[int]
) -> list[Waiting]:
    """Returns what waits after a generation.

    Args:
        before: what waits before it.
        manifest: its own.
        folder: its own.
        tracks: of its catalogue.

    Raises:
        UserFacingError: its list is missing or damaged.
    """
    waiting = before
    if "waiting" in manifest.source:
        waiting = _entries(files.join(folder, WAITING_FILE), Waiting.from_dict)
    if manifest.replaces:
        # What waits after all that it was made of, whose rejected tracks may be announced again.
        return waiting
    # The first generation of a run lists what its others are still to write.
    done = {(c.track_id, c.announced_at) for c in relabelling.corrections_of(manifest, folder)}
    if any(entry.announcement.track_id in tracks for entry in waiting):
        done |= {(track, cells["announced_at"]) for track, cells in cells_of(folder).items()}
    return [
        entry
        for entry in waiting
        if (entry.announcement.track_id, entry.announcement.announced_at) not in done
    ]


def rows_of(folder: str) -> Iterator[catalogue.Track]:
    """Yields the rows that a generation was made of; UserFacingError if the file is damaged."""
    path = files.join(folder, generations.CATALOGUE_FILE)
    try:
        with files.open_to_read(path) as file:
            yield from catalogue.read_tracks(file, name=path, subset="full", may_lack_listens=True)
    except FileNotFoundError:
        raise UserFacingError(f"{path}: missing; bring it back") from None


def cells_of(folder: str) -> dict[int, dict[str, str]]:
    """Returns the rows of a generation's catalogue, with all their columns, by track."""
    ids = [row.track_id for row in rows_of(folder)]  # checks it
    path = files.join(folder, generations.CATALOGUE_FILE)
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""))
    return dict(zip(ids, rows, strict=True))


def lines_of(folder: str) -> list[RejectedTrack]:
    """Reads the `rejected.jsonl` of a generation; UserFacingError if it is damaged."""
    path = files.join(folder, dataset_info.REJECTED_FILE)
    try:
        return [RejectedTrack(**json.loads(line)) for line in files.read_bytes(path).splitlines()]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise UserFacingError(f"{path}: damaged ({error!r:.100})") from None


def _written_by(rows: list[catalogue.Track], folder: str, config: DatasetConfig) -> Written:
    """Returns what is written of a catalogue's rows: those that are not listed as rejected."""
    rejected = {line.track_id for line in lines_of(folder) if line.reason in NO_RECORD}
    found = Written()
    for row in rows:
        if row.track_id not in rejected:
            split = split_of_track(row, config)
            found.add(row.track_id, listens=row.listens, split=split, artist=row.artist_id)
    return found


def records_of_tracks(tracks: Collection[int], dataset_dir: str, there: Known) -> dict[int, int]:
    """Returns {track: how many records it has}, of tracks that are written.

    Where a track may have several, shards are read until all are found, the newest first.
    """
    if there.first.config.clips_per_track == 1:
        return dict.fromkeys(tracks, 1)
    found: Counter[int] = Counter()
    parts = [(m.splits, generations.folder_of(dataset_dir, m.generation)) for m in there.manifests]
    for splits, folder in [*reversed(parts), (there.first.splits, dataset_dir)]:
        left = set(tracks) - found.keys()
        for split in {there.splits[track] for track in left}:
            for shard in splits[split].shards:
                for values in dataset_reader.read_shard(shard, folder):
                    if values["track_id"] in left:
                        found[values["track_id"]] += 1
    return dict(found)


def _entries(path: str, parse: Callable[[Any], relabelling.Entry]) -> list[relabelling.Entry]:
    return list(relabelling.entries(relabelling.read(path), parse, name=path))


def waiting_text(waiting: list[Waiting]) -> bytes:
    """Returns the contents of a `waiting.jsonl`, in ASCII."""
    return b"".join(json.dumps(dataclasses.asdict(w)).encode() + b"\n" for w in waiting)
