"""Makes one generation of all that are there but generation 0, out of their files alone.

The dataset job runs over the catalogues of all of them, in this process, with their records where
it would decode audio, so the shards are those that it would make of the same rows, and the audio
may be gone. Each generation's shards are sorted by shuffle key: they are merged as they are read,
and one shard of each generation is held at a time, with some hundred bytes for each track. A track
whose listens were corrected since has a record with these, and their label.
"""

import contextlib
import dataclasses
import hashlib
import heapq
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from beam_pipelines import dataset_job, output_folder
from beam_pipelines.shard_writer import ShardWriter
from beam_pipelines.stream import announcements, known, written_generation
from beam_pipelines.stream.plan import Waiting
from beam_pipelines.written_shard import RejectedTrack
from common import (
    dataset_info,
    dataset_reader,
    files,
    generations,
    hashing,
    labels,
    records,
    rejection,
    relabelling,
)
from common.catalogue import Track
from common.dataset_config import SPLITS, DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from common.generations import Manifest
from common.relabelling import Correction

# The records of a track, after what they are sorted by: shuffle key and id.
_Records = tuple[int, int, list[bytes]]


def compact(dataset_dir: str) -> Manifest:
    """Writes a generation that readers take in the place of those that it is made of.

    These stay as they are. A run that is killed has changed nothing for readers, and the next one
    keeps the shards that are done.

    Raises:
        UserFacingError: there are fewer than two to merge and none to correct, or one is damaged.
    """
    first = dataset_reader.first_info(dataset_dir)
    numbers = generations.numbers_in(generations.sizes_below(dataset_dir))
    parts = generations.current(generations.load(dataset_dir, numbers), name=dataset_dir)
    generations.info_of_list(first, parts, name=dataset_dir)  # they are of this dataset
    held = _held(dataset_dir, parts)
    require(
        len(parts) > 1 or bool(held.corrected),
        f"{dataset_dir}: nothing to merge; it has {len(parts) or 'no'} generation"
        f"{'s' * (not parts)} beside generation 0",
    )
    config, number = written_generation.config_of(first), max(numbers) + 1
    folder = generations.folder_of(dataset_dir, number)

    def run_job(job: dataset_job.Job) -> None:
        _run(job, lambda split: _merged(dataset_dir, parts, split, config), held)

    files.make_folder(folder)
    rows = [held.rows[track] for track in sorted(held.rows)]
    text = announcements.catalogue_text(rows) if rows else None
    info = written_generation.made(folder, text, config, run_job, audio_dir="")
    num_records = sum(part.num_records for part in parts)
    merged = sum(split.num_records for split in info.splits.values())
    if merged != num_records:
        raise UserFacingError(
            f"{dataset_dir}: damaged; its generations have {num_records:,} records, and "
            f"{merged:,} of tracks that are in their catalogues"
        )
    written_generation.write_unlabelled(folder, info)
    lines = [*held.no_record.values(), *held.dead]
    output_folder.write_rejected(folder, [(line.track_id, line.to_json()) for line in lines])
    files.write_atomically(folder, known.WAITING_FILE, known.waiting_text(held.waiting))
    messages = held.messages[-known.MOST_MESSAGES :]
    if messages:
        files.write_atomically(folder, known.MESSAGES_FILE, known.messages_text(messages))
    corrected = None
    if held.corrections:
        corrections = relabelling.corrections_text(held.corrections)
        files.write_atomically(folder, relabelling.CORRECTIONS_FILE, corrections)
        corrected = {
            "sha256": hashlib.sha256(corrections).hexdigest(),
            "class_counts": _changes_of_others(parts, info),
        }
    counts = {"superseded": held.superseded} if held.superseded else {}
    takes_statistics = first.statistics is None and info.splits["train"].num_records
    manifest = Manifest(
        generation=number,
        base_fingerprint=first.fingerprint,
        fingerprint=info.fingerprint,
        splits=info.splits,
        rejected=dict(sorted(Counter(line.reason for line in lines).items())),
        missing_audio=info.missing_audio,
        window=_window_of(parts),
        source={
            **_source_of(parts),
            "waiting": len(held.waiting),
            **({"messages": len(messages)} if messages else {}),
            **({"corrections": len(held.corrections)} if held.corrections else {}),
        },
        late=sum(part.late for part in parts),
        counts=_sums([*(part.counts for part in parts), counts]) | {"tracks": len(rows)},
        new_artists=_sums([part.new_artists for part in parts]),
        # Groups that are in two splits for the first time, so none is counted twice.
        split_check={
            "by": config.split_by,
            **{
                field: sum(part.split_check[field] for part in parts)
                for field in ("groups_in_two_splits", "artists_in_two_splits")
            },
        },
        replaces=tuple(sorted({n for part in parts for n in (part.generation, *part.replaces)})),
        versions=_versions_of(parts),
        statistics=info.statistics if takes_statistics else None,
        corrected=corrected,
    )
    written_generation.write_manifest(folder, manifest)
    return manifest


# ---- what the generations say


class _Held:
    """What is in the generations beside their records.

    Attributes:
        rows: {track: {column: text}}, the newest of each track.
        no_record: {track: why it has none}.
        dead: what else is in the lists of rejected tracks.
        superseded: how many lines are about a track that was taken later.
        waiting: what waits after them.
        corrected: tracks whose rows have other listens than their records.
        corrections: {track: the newest} of those that have no row here, as of generation 0.
        messages: what they account for of sources that have no offsets, the newest last.
    """

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, str]] = {}
        self.no_record: dict[int, RejectedTrack] = {}
        self.dead: list[RejectedTrack] = []
        self.superseded = 0
        self.waiting: list[Waiting] = []
        self.corrected: set[int] = set()
        self.corrections: dict[int, Correction] = {}
        self.messages: list[dict[str, str]] = []


def _held(dataset_dir: str, parts: Sequence[Manifest]) -> _Held:
    held = _Held()
    for part in parts:
        folder = generations.folder_of(dataset_dir, part.generation)
        rows = {} if part.window is None else known.cells_of(folder)
        lines = known.lines_of(folder)
        path = files.join(folder, dataset_info.REJECTED_FILE)
        require(
            Counter(line.reason for line in lines) == Counter(part.rejected),
            f"{path}: not the lines that {generations.MANIFEST_FILE} counts; bring it back",
        )
        for track in rows:  # one without a record may be announced again
            held.superseded += held.no_record.pop(track, None) is not None
        held.rows |= rows
        for line in lines:
            if line.reason in known.NO_RECORD:
                held.no_record[line.track_id] = line
            else:
                held.dead.append(line)
        held.waiting = known.waiting_after(held.waiting, part, folder, rows)
        held.messages += known.messages_of(part, folder)
        known.take_newest(held.corrections, relabelling.corrections_of(part, folder))
    for track in held.corrections.keys() & (held.rows.keys() - held.no_record.keys()):
        correction, row = held.corrections.pop(track), held.rows[track]
        if (
            not row["listens"]
            or correction.age > Correction(track, row["announced_at"], int(row["listens"])).age
        ):
            held.corrected.add(track)
            row["announced_at"] = correction.announced_at
            row["listens"] = str(correction.listens)
    return held


def _changes_of_others(parts: Sequence[Manifest], info: DatasetInfo) -> dict[str, dict[str, int]]:
    """Returns the changes to class counts that are left: those of tracks of generation 0.

    Args:
        parts: what is merged.
        info: of what they became, whose records have the others.
    """
    changes = {}
    for split, written in info.splits.items():
        counts = [part.splits[split].class_counts for part in parts]
        counts += [p.corrected["class_counts"][split] for p in parts if p.corrected is not None]
        changes[split] = {
            name: sum(each.get(name, 0) for each in counts) - count
            for name, count in written.class_counts.items()
        }
    return changes


def _window_of(parts: Sequence[Manifest]) -> tuple[str, str] | None:
    windows = [part.window for part in parts if part.window is not None]
    if not windows:
        return None
    starts, ends = zip(*windows, strict=True)
    return min(starts, key=generations.seconds_of), max(ends, key=generations.seconds_of)


def _source_of(parts: Sequence[Manifest]) -> dict[str, Any]:
    """Returns all that the generations took account of; the newest one's source goes first."""
    spans: dict[str, dict[str, list[int]]] = {}
    for part in parts:
        for uri, offsets in part.spans.items():
            mine = spans.setdefault(uri, {})
            for name, (begin, end) in offsets.items():
                before = mine.get(name, [begin, end])
                mine[name] = [min(before[0], begin), max(before[1], end)]
    newest = parts[-1].source["uri"]
    every = [
        {"uri": uri, "offsets": spans[uri]} for uri in sorted(spans, key=lambda u: u != newest)
    ]
    return every[0] | ({"others": every[1:]} if every[1:] else {})


def _versions_of(parts: Sequence[Manifest]) -> dict[str, str]:
    names = sorted({name for part in parts for name in part.versions})
    return {
        name: ", ".join(
            # Of one that is made of others, each of theirs.
            sorted({v for part in parts for v in part.versions.get(name, "").split(", ") if v})
        )
        for name in names
    }


def _sums(every: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in every:
        total.update(counts)
    return dict(total)


# ---- their records


def _merged(
    dataset_dir: str, parts: Sequence[Manifest], split: str, config: DatasetConfig
) -> Iterator[_Records]:
    """Yields the records of a split of all generations, in the order of the shuffle keys."""
    return heapq.merge(*(_records_in(dataset_dir, part, split, config) for part in parts))


def _records_in(
    dataset_dir: str, part: Manifest, split: str, config: DatasetConfig
) -> Iterator[_Records]:
    folder = generations.folder_of(dataset_dir, part.generation)
    for shard in part.splits[split].shards:
        path = files.join(folder, shard.file)
        try:
            # Whole, so that it is compared before it is used, and no file stays open.
            data = files.read_bytes(path)
        except FileNotFoundError:
            raise UserFacingError(f"{path}: the shard is missing") from None
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise UserFacingError(
                f"{path}: its SHA-256 is not the one in {generations.MANIFEST_FILE}; bring it back"
            )
        read = records.read_records(io.BytesIO(data), name=path)
        for track_id, found in itertools.groupby(read, key=_track_of):
            key = hashing.stable_hash(str(track_id), salt=f"{config.salt}/order")
            yield key, track_id, list(found)


def _track_of(record: bytes) -> int:
    return int(records.decode_example(record)["track_id"])


class _Copied:
    """The records of tracks that are there; they come in the order of their shuffle keys."""

    def __init__(self, merged: Iterator[_Records], held: _Held):
        self._merged, self._held = merged, held

    def records_of(
        self, track: Track, thresholds: tuple[float, ...], _following: Track | None = None
    ) -> list[bytes]:
        line = self._held.no_record.get(track.track_id)
        if line is not None and line.reason == known.NO_AUDIO:
            raise FileNotFoundError
        if line is not None:
            raise rejection.ClipError(line.reason, line.message)
        # Before it are those of shards that an earlier run has done.
        for _, track_id, found in self._merged:
            if track_id == track.track_id:
                if track_id not in self._held.corrected:
                    return found
                return [_corrected(record, track, thresholds) for record in found]
        raise UserFacingError(
            f"track {track.track_id}: has neither a record nor a line in "
            f"{dataset_info.REJECTED_FILE}; a generation is damaged"
        )


def _corrected(record: bytes, track: Track, thresholds: tuple[float, ...]) -> bytes:
    """Returns a record with the listens of a row, and their label."""
    label = labels.label_of(track.value, thresholds)
    values = records.decode_example(record)
    return records.encode_example({**values, "listens": track.listens, "label": label})


def _run(
    job: dataset_job.Job,
    merged: Callable[[str], Iterator[_Records]],
    held: _Held,
) -> None:
    """Does what the dataset job does, with the records of each split for the audio."""
    config = job.config
    writers = {
        split: ShardWriter(
            config,
            job.output_dir,
            _Copied(merged(split), held).records_of,
            attempt=job.work.attempt,
        )
        for split in SPLITS
    }
    written = [
        writers[name.partition(".")[0]].written(name, tracks, config.thresholds)
        for name, tracks in dataset_job.tracks_by_shard(job).items()
    ]
    dataset_job.finish(job, config.thresholds, dataset_job.totals_of(written))


# ---- what is replaced


def remove_replaced(dataset_dir: str) -> tuple[list[int], int]:
    """Deletes the generations that another one is taken in the place of.

    Their manifests go first, so none is ever taken that is not whole.

    Returns:
        Their numbers, and how many bytes they had.

    Raises:
        UserFacingError: one that is taken in their place is damaged; nothing is deleted.
    """
    first = dataset_reader.first_info(dataset_dir)
    sizes = generations.sizes_below(dataset_dir)
    every = generations.load(dataset_dir, generations.numbers_in(sizes))
    taken = [part for part in generations.current(every, name=dataset_dir) if part.replaces]
    generations.info_of_list(first, taken, name=dataset_dir)
    names: dict[int, list[str]] = {number: [] for part in taken for number in part.replaces}
    num_bytes = 0
    for path, size in sizes.items():
        found = re.fullmatch(rf"{generations.FOLDER}/(\d{{6,}})/(.+)", path)
        if found is not None and int(found[1]) in names:
            names[int(found[1])].append(found[2])
            num_bytes += size
    names_there = {number: mine for number, mine in names.items() if mine}
    if names_there:
        _require_whole(dataset_dir, first, taken)
    for number, mine in sorted(names_there.items()):
        folder = generations.folder_of(dataset_dir, number)
        files.delete(folder, sorted(mine, key=lambda name: name != generations.MANIFEST_FILE))
    if not files.is_remote(dataset_dir):
        for number in names:
            with contextlib.suppress(OSError):  # it is gone, or holds something else
                os.rmdir(generations.folder_of(dataset_dir, number))
    return sorted(names_there), num_bytes


def _require_whole(dataset_dir: str, first: DatasetInfo, taken: Sequence[Manifest]) -> None:
    for part in taken:
        folder = generations.folder_of(dataset_dir, part.generation)
        found = dataset_reader.damage(dataclasses.replace(first, splits=part.splits), folder)
        require(not found, f"{folder}: nothing is removed, since {'; '.join(found)}")
