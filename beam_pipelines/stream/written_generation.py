"""Writes a generation: catalogue, by the dataset job its shards, dead letters, manifest.

A generation is a dataset of its own, made by the same job as any other, so all that holds of that
holds here: the same bytes for the same rows, and a run that was killed goes on where it was. Only
the manifest, which is written last, makes it part of the dataset.
"""

import dataclasses
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_pipelines import dataset_job, output_folder
from beam_pipelines.stream import announcements, known, plan
from beam_pipelines.stream.known import Known
from beam_pipelines.written_shard import RejectedTrack
from common import dataset_reader, files, generations, labels, rejection, relabelling
from common.dataset_config import SPLITS, DatasetConfig
from common.dataset_info import DatasetInfo, Split
from common.errors import UserFacingError
from common.generations import Manifest
from common.relabelling import Correction

RunJob = Callable[[dataset_job.Job], Any]


def config_of(first: DatasetInfo) -> DatasetConfig:
    """Returns the config of further generations: that of generation 0, with its thresholds.

    Raises:
        UserFacingError: its labels, splits or inputs need all rows at once.
    """
    config = first.config
    for field, possible in {"split_by": ("artist", "track"), "popularity": ("listens",)}.items():
        if (value := getattr(config, field)) not in possible:
            raise UserFacingError(
                f"config.{field}: {value} needs all tracks at once, so such a dataset can't grow; "
                f"{' or '.join(possible)} can"
            )
    for history in config.inputs.histories:
        raise UserFacingError(
            f"config.inputs.{history}: needs all tracks at once, so such a dataset can't grow"
        )
    return dataclasses.replace(config, thresholds=first.thresholds, quantiles=())


def begin_dataset(output_dir: str, config: DatasetConfig) -> None:
    """Writes a generation 0 without records, which decides config and thresholds of the others.

    Raises:
        UserFacingError: the thresholds are to be quantiles, or the folder holds something else.
    """
    if config.quantiles:
        raise UserFacingError(
            "config.quantiles: need all tracks at once; give config.thresholds, or begin with "
            "beam_pipelines.build_dataset"
        )
    info = _without_records(config)
    config_of(info)
    made_of = output_folder.identity(config, "", info.versions)
    work = output_folder.work(output_dir, made_of, overwrite=False, retry_rejected=False)
    if work.mode is not output_folder.Mode.NEW:
        raise UserFacingError(
            f"{output_dir}: an unfinished dataset; run beam_pipelines.build_dataset to its end, or "
            "take another --output_dir"
        )
    files.make_folder(output_dir)
    output_folder.write_rejected(output_dir, [])
    output_folder.write_info(output_dir, info)


def write(
    output_dir: str,
    part: plan.Part | None,
    there: Known,
    run_job: RunJob,
    *,
    audio_dir: str,
    dead: Sequence[RejectedTrack] = (),
    source: Mapping[str, Any],
    counts: Mapping[str, int],
    waiting: Sequence[plan.Waiting] | None = None,
    messages: Sequence[str] = (),
) -> Manifest:
    """Writes the next generation and takes it up in what is known.

    Args:
        output_dir: folder of the dataset.
        part: its rows and looks; None of one that has only dead letters and what waits.
        there: what is known before it.
        run_job: runs the dataset job on an engine.
        audio_dir: what the paths of the rows are relative to.
        dead: announcements that can't be used.
        source: of the manifest.
        counts: of the manifest, but for `tracks`.
        waiting: what waits after the run, of the first generation of a run.
        messages: ids of what it accounts for of a source that has no offsets.

    Raises:
        UserFacingError: another run has written it meanwhile.
    """
    number, config = there.next_number, config_of(there.first)
    folder = generations.folder_of(output_dir, number)
    files.make_folder(folder)
    rows = () if part is None else part.rows
    text = announcements.catalogue_text(
        {
            "track_id": str(row.announcement.track_id),
            "announced_at": row.announcement.announced_at,
            **row.announcement.cells,
        }
        for row in rows
    )
    info = made(folder, text if rows else None, config, run_job, audio_dir=audio_dir)
    written = known.written_in(info, folder)
    lines = _lines(folder, rows, written.listens, dead, missing=info.missing_audio)
    output_folder.write_rejected(folder, [(line.track_id, line.to_json()) for line in lines])
    if waiting is not None:
        files.write_atomically(folder, known.WAITING_FILE, known.waiting_text(list(waiting)))
        source = {**source, "waiting": len(waiting)}
    if messages:
        named = [{"uri": source["uri"], "id": message} for message in messages]
        files.write_atomically(folder, known.MESSAGES_FILE, known.messages_text(named))
        source = {**source, "messages": len(messages)}
    write_unlabelled(folder, info)
    has_statistics = there.has_statistics
    new_artists, leaking = there.add(written)
    corrected = None
    corrections = _corrections(() if part is None else part.looks, there)
    if corrections:
        text = relabelling.corrections_text(corrections)
        files.write_atomically(folder, relabelling.CORRECTIONS_FILE, text)
        source = {**source, "corrections": len(corrections)}
        corrected = {
            "sha256": hashlib.sha256(text).hexdigest(),
            "class_counts": _changes(corrections, output_dir, there),
        }
        there.correct(corrections)
    by_artist = config.split_by == "artist"
    manifest = Manifest(
        generation=number,
        base_fingerprint=there.first.fingerprint,
        fingerprint=info.fingerprint,
        splits=info.splits,
        rejected=dict(sorted(Counter(line.reason for line in lines).items())),
        missing_audio=info.missing_audio,
        window=_texts(part.window) if part is not None and rows else None,
        source=dict(source),
        late=sum(bool(row.late) for row in rows),
        counts={**counts, "tracks": len(rows)},
        new_artists=new_artists,
        split_check={
            "by": config.split_by,
            "groups_in_two_splits": leaking
            if by_artist
            else info.split_check["groups_in_two_splits"],
            "artists_in_two_splits": leaking,
        },
        versions=info.versions,
        statistics=info.statistics
        if not has_statistics and info.splits["train"].num_records
        else None,
        corrected=corrected,
    )
    write_manifest(folder, manifest)
    there.manifests.append(manifest)
    there.next_number = number + 1
    if part is not None and rows:
        there.newest_end = max(there.newest_end, part.window[1])
    return manifest


def _corrections(looks: Sequence[plan.Waiting], there: Known) -> dict[int, Correction]:
    """Returns {track: correction} of the looks at tracks that have records.

    The job may have rejected a track of the same run: what was announced of it later waits, and is
    then an announcement as any other.
    """
    found = {}
    for look in looks:
        announcement, listens = look.announcement, look.announcement.listens
        if announcement.track_id in there.listens and listens is not None:
            found[announcement.track_id] = Correction(
                announcement.track_id, announcement.announced_at, listens
            )
    return found


def _changes(
    corrections: Mapping[int, Correction], output_dir: str, there: Known
) -> dict[str, dict[str, int]]:
    """Returns {split: {class: how many more or fewer examples it has}} by corrections."""
    config, thresholds = there.first.config, there.first.thresholds
    changes = {split: dict.fromkeys(config.class_names, 0) for split in SPLITS}
    counts = known.records_of_tracks(corrections, output_dir, there)
    for track, correction in corrections.items():
        for listens, sign in ((there.listens[track], -1), (correction.listens, 1)):
            label = labels.label_of(listens, thresholds)
            if label >= 0:
                changes[there.splits[track]][config.class_names[label]] += sign * counts[track]
    return changes


def write_unlabelled(folder: str, info: DatasetInfo) -> None:
    """Lists the records of a generation that have no label, where there are such."""
    if found := known.unlabelled_in(info, folder):
        text = relabelling.unlabelled_text(found)
        files.write_atomically(folder, relabelling.UNLABELLED_FILE, text)


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Makes a generation part of its dataset; UserFacingError if it is that already."""
    path, data = files.join(folder, generations.MANIFEST_FILE), manifest.to_json().encode()
    if files.is_remote(folder):
        if files.replace_version(path, data, 0) is not None:
            return
    elif not files.exists(path):  # the lock of the dataset keeps other runs out
        files.write_atomically(folder, generations.MANIFEST_FILE, data)
        return
    raise UserFacingError(f"{path}: another run has written it; run the command again")


def _texts(window: tuple[int, int]) -> tuple[str, str]:
    start, end = map(generations.text_of, window)
    return start, end


def _without_records(config: DatasetConfig) -> DatasetInfo:
    """Returns the description of a dataset that has no catalogue and no shards."""
    counts = dict.fromkeys(config.class_names, 0)
    empty = Split(num_examples=0, class_counts=counts, num_artists=0, shards=())
    splits = dict.fromkeys(SPLITS, empty)
    return DatasetInfo.of(config, splits, versions=dataset_job.library_versions())


def made(
    folder: str, text: bytes | None, config: DatasetConfig, run_job: RunJob, *, audio_dir: str
) -> DatasetInfo:
    """Runs the job over a catalogue of this text, None of no rows, and returns what it wrote."""
    if text is None:
        # A run that was killed may have left what another would have written here.
        files.delete(folder, files.names_in(folder))
        return _without_records(config)
    files.write_atomically(folder, generations.CATALOGUE_FILE, text)
    path = files.join(folder, generations.CATALOGUE_FILE)
    catalog_sha256 = files.sha256(path)
    made_of = output_folder.identity(config, catalog_sha256, dataset_job.library_versions())
    try:
        work = output_folder.work(folder, made_of, overwrite=False, retry_rejected=False)
    except UserFacingError:  # of other rows, by a run that was killed
        work = output_folder.Work(output_folder.Mode.NEW)
    if work.mode is not output_folder.Mode.FINISHED:
        run_job(
            dataset_job.Job(
                config=config,
                tracks_csv=path,
                catalog_sha256=catalog_sha256,
                audio_dir=audio_dir,
                output_dir=folder,
                work=work,
                run_id=uuid.uuid4().hex,
                max_reject_fraction=1.0,
                is_generation=True,
            )
        )
    return dataset_reader.load_dataset_info(folder)


def _lines(
    folder: str,
    rows: Sequence[plan.Waiting],
    written: Mapping[int, int],
    dead: Sequence[RejectedTrack],
    *,
    missing: int,
) -> list[RejectedTrack]:
    """Returns the lines of `rejected.jsonl`: the job's, and those of announcements."""
    # Of a run that was killed, others may be there already.
    lines = [line for line in known.lines_of(folder) if line.reason in rejection.REASONS]
    if missing:
        rejected = {line.track_id for line in lines}
        for row in rows:
            track = row.announcement
            if track.track_id not in written and track.track_id not in rejected:
                message = f"no such file in time, announced at {track.announced_at}"
                lines.append(
                    RejectedTrack(
                        track_id=track.track_id,
                        path=track.path,
                        reason=known.NO_AUDIO,
                        message=message,
                    )
                )
    return [*lines, *dead]
