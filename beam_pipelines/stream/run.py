"""One run: what has been announced since the last manifest becomes generations."""

import functools
import os
from collections import Counter
from collections.abc import Iterator

from beam_pipelines.stream import announcements, known, metrics, plan, sources, written_generation
from beam_pipelines.stream.announcements import Announcement, Unusable
from beam_pipelines.written_shard import RejectedTrack
from common import files, generations
from common.generations import Manifest
from common.inputs import Inputs


def run(
    source: sources.Source,
    output_dir: str,
    run_job: written_generation.RunJob,
    *,
    audio_dir: str,
    rules: plan.Rules,
    now: int,
    watch: metrics.Watch | None = None,
    there: known.Known | None = None,
) -> Iterator[Manifest]:
    """Yields the manifest of each generation as it is written.

    Its first generation accounts for all that was read, and lists what its others are to write, so
    a run that is killed anywhere has lost nothing and done nothing twice.

    Args:
        source: of the announcements.
        output_dir: folder of the dataset.
        run_job: runs the dataset job on an engine.
        audio_dir: what the paths of announcements are relative to.
        rules: how they are gathered.
        now: seconds since 1970.
        watch: hears what becomes of it.
        there: what is known of the dataset, where nobody else has changed it since, and is kept up
            to date; read anew unless given.

    Raises:
        UserFacingError: the source can't be read, or the dataset is damaged or can't grow.
    """
    there = known.load(output_dir, uri=source.uri) if there is None else there
    config = written_generation.config_of(there.first)
    read = _read(source, there, config.inputs, now)
    made = plan.make(
        there.waiting,
        read.new,
        rules=rules,
        listens=there.listens,
        newest_end=there.newest_end,
        now=now,
        has_audio=functools.cache(functools.partial(has_audio, audio_dir=audio_dir)),
        announced_at=functools.cache(functools.partial(known.announced_at, output_dir, there)),
    )
    watch = metrics.Watch() if watch is None else watch
    watch.read(there, read.count, made.waiting)
    if not (made.news or read.dead or source.is_urgent):
        return
    later = [entry for part in made.parts[1:] for entry in part.entries]
    offsets = {"uri": source.uri, "offsets": dict(source.spans)}
    for index, part in enumerate(made.parts or [None]):
        is_first = index == 0
        manifest = written_generation.write(
            output_dir,
            part,
            there,
            run_job,
            audio_dir=audio_dir,
            dead=[*read.dead, *made.dead] if is_first else (),
            source=offsets if is_first else {"uri": source.uri, "offsets": {}},
            counts={"announced": read.count, **source.counts, **made.counts} if is_first else {},
            waiting=[*made.waiting, *later] if is_first else None,
            messages=source.messages if is_first else (),
        )
        there.account(
            manifest,
            generations.folder_of(output_dir, manifest.generation),
            uri=source.uri,
            tracks=() if part is None else {row.announcement.track_id for row in part.rows},
        )
        if is_first:
            there.remember(source.messages)
            source.accounted_for()
        watch.wrote(manifest, () if part is None else part.rows)
        yield manifest


class _Read:
    """What was read of a source: announcements, those that can't be used, and how many in all."""

    def __init__(self) -> None:
        self.new: list[Announcement] = []
        self.dead: list[RejectedTrack] = []
        self.count = 0


def _read(source: sources.Source, there: known.Known, inputs: Inputs, now: int) -> _Read:
    read = _Read()
    for line in source.lines(there.position, there.messages):
        read.count += 1
        try:
            read.new.append(announcements.parse(line.data, inputs=inputs, now=now))
        except Unusable as error:
            read.dead.append(
                RejectedTrack(
                    track_id=error.track_id,
                    path="",
                    reason=error.reason,
                    message=f"{line.where}: {error}",
                )
            )
    return read


def has_audio(path: str, *, audio_dir: str) -> bool:
    """Returns whether there is something at the path of an announcement now.

    Raises:
        Unusable: it leads out of the folder, by its words or by a symbolic link.
    """
    announcements.check_path(path)
    whole = files.join(audio_dir, path)
    if not files.is_remote(audio_dir):
        root = os.path.realpath(audio_dir)
        if os.path.commonpath([root, os.path.realpath(whole)]) != root:
            raise Unusable(announcements.OUTSIDE, "path: a link that leads out of --audio_dir")
    return files.has_file(whole)


def in_words(manifest: Manifest) -> str:
    """Returns a line about a generation."""
    words = [f"generation {manifest.generation:06d}"]
    if manifest.window is not None:
        words.append(f"announced from {manifest.window[0]} to {manifest.window[1]}")
    words.append(f"{manifest.num_examples:,} examples of {manifest.counts['tracks']:,} tracks")
    if unlabelled := manifest.num_records - manifest.num_examples:
        words.append(f"{unlabelled:,} without a label")
    if manifest.late:
        words.append(f"{manifest.late:,} late")
    reasons: Counter[str] = Counter(manifest.rejected)
    words += [f"{count:,} {reason}" for reason, count in sorted(reasons.items())]
    words += [
        f"{manifest.counts[name]:,} {name}"
        for name in ("duplicates", "merged", "labels", "corrections", "expired")
        if manifest.counts.get(name)
    ]
    if manifest.source.get("waiting"):
        words.append(f"{manifest.source['waiting']:,} waiting")
    return ": ".join([words[0], ", ".join(words[1:])])
