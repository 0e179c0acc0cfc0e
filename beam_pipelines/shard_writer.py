"""Writes the shards of a dataset: each whole or not at all, and each only once.

`Songs` makes the records of a track out of its audio; `ShardWriter` writes those of a shard's
tracks and notes what is in it, so that a run which comes to it again finds it done.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from apache_beam.metrics import Metrics

from beam_pipelines import clip_record, output_folder, splits_and_shards
from beam_pipelines.decoder_process import Decoded, Decoder
from beam_pipelines.written_shard import RejectedTrack, ShardSummary, WrittenShard
from common import clips, files, input_statistics, labels, records, rejection, song_parts
from common.catalogue import Track
from common.dataset_config import DatasetConfig
from common.errors import is_want_of_the_machine
from common.pieces import NotAtHand, Pieces

# The largest file that is taken: what a worker has room for, and 40 minutes of a CD are.
MAX_BYTES = 400_000_000
# How long a disk may take to give it.
READ_SECONDS = 120.0

RecordsOf = Callable[[Track, tuple[float, ...], Track | None], list[bytes]]


def _always() -> None:
    """Lets each shard have its name."""


class ShardWriter:
    """Writes shards into a folder.

    Args:
        config: of the dataset.
        folder: of the shards.
        records_of: returns the records of a track, given the thresholds of its class and the
            track that it is likely to be asked for next; FileNotFoundError if it has no audio, or
            `rejection.ClipError`.
        attempt: as of `output_folder.Work`.
        before_naming: is called when a shard is written and has not got its name yet; if it
            raises, there is no shard.
    """

    def __init__(
        self,
        config: DatasetConfig,
        folder: str,
        records_of: RecordsOf,
        *,
        attempt: int,
        before_naming: Callable[[], None] = _always,
    ):
        self._config, self._folder, self._records_of = config, folder, records_of
        self._attempt, self._before_naming = attempt, before_naming

    def written(
        self, name: str, tracks: Sequence[Track], thresholds: tuple[float, ...]
    ) -> WrittenShard:
        """Returns what is in a shard, which it writes unless an earlier run has."""
        made_of = digest_of(self._config, tracks, thresholds, attempt=self._attempt)
        written = output_folder.read_done(self._folder, name, made_of)
        if written is None:
            written = self._write(name, tracks, thresholds)
            output_folder.write_done(self._folder, written, made_of)
            Metrics.counter("shards", "written").inc()
        else:
            Metrics.counter("shards", "kept from an earlier run").inc()
        return written

    def _write(
        self, name: str, tracks: Sequence[Track], thresholds: tuple[float, ...]
    ) -> WrittenShard:
        kept = self._records_there(name) if self._attempt else {}
        label_counts: Counter[int] = Counter()
        written: list[Track] = []
        rejected: list[RejectedTrack] = []
        missing_audio = num_bytes = 0
        sha256 = hashlib.sha256()
        config, split = self._config, name.partition(".")[0]
        gatherer = input_statistics.Gatherer(
            config.inputs,
            height=config.spectrogram.num_mels,
            num_shards=splits_and_shards.num_shards_of(name),
        )
        with files.atomic_file(self._folder, name) as file:
            new_tracks = [track for track in tracks if track.track_id not in kept]
            following = dict(itertools.pairwise(new_tracks))
            for track in tracks:
                try:
                    new = kept.get(track.track_id) or self._records_of(
                        track, thresholds, following.get(track)
                    )
                except FileNotFoundError:
                    missing_audio += 1
                    Metrics.counter("tracks", "without audio").inc()
                    continue
                except rejection.ClipError as error:
                    rejected.append(RejectedTrack.of(track, error))
                    Metrics.counter("tracks rejected", error.reason).inc()
                    continue
                for record in new:
                    framed = records.frame(record)
                    file.write(framed)
                    sha256.update(framed)
                    num_bytes += len(framed)
                    if split == "train":
                        gatherer.add(records.decode_example(record))
                label_counts[labels.label_of(track.value, thresholds)] += len(new)
                written.append(track)
                for feature in clip_record.unknown_inputs(track, config.inputs):
                    Metrics.counter("tracks with unknown inputs", feature).inc()
            self._before_naming()
        num_classes = len(config.class_names)
        return WrittenShard(
            summary=ShardSummary(
                split=split,
                file=name,
                num_examples=sum(label_counts.values()),
                bytes=num_bytes,
                sha256=sha256.hexdigest(),
                label_counts=tuple(label_counts[label] for label in range(num_classes)),
                num_tracks=len(written),
                missing_audio=missing_audio,
                rejected=dict(Counter(line.reason for line in rejected)),
            ),
            rejected=tuple(rejected),
            groups=groups_of(written, config.split_by),
            statistics=gatherer.result().to_json() if split == "train" else None,
        )

    def _records_there(self, name: str) -> dict[int, list[bytes]]:
        """Reads a shard that is there already: its records by track, none if it is not whole."""
        by_track: dict[int, list[bytes]] = {}
        try:
            with files.open_to_read(files.join(self._folder, name)) as file:
                for record in records.read_records(file, name=name):
                    track_id = int(records.decode_example(record)["track_id"])
                    by_track.setdefault(track_id, []).append(record)
        except (FileNotFoundError, records.DamagedRecord):
            Metrics.counter("shards", "missing or damaged").inc()
            return {}
        return by_track


def digest_of(
    config: DatasetConfig, tracks: Sequence[Track], thresholds: tuple[float, ...], *, attempt: int
) -> str:
    """Returns what a shard is made of, but for the audio, as a digest."""
    return output_folder.digest(config.to_dict(), thresholds, tracks, attempt)


def groups_of(tracks: Sequence[Track], split_by: str) -> tuple[tuple[str, int], ...]:
    """Returns (kind, id) of each artist of the tracks, and of what else a split keeps together."""
    groups = {("artist", track.artist_id) for track in tracks if track.artist_id >= 0}
    if split_by == "track":
        groups |= {("track", track.track_id) for track in tracks}
    if split_by == "date":
        groups |= {("date", splits_and_shards.day_of(track.date_created)) for track in tracks}
    return tuple(sorted(groups))


class Songs:
    """The audio of a folder, of which it makes records.

    Args:
        config: of the dataset.
        audio_dir: what the paths of tracks are relative to.
        decoder: a process that is started; others may use it too.
    """

    def __init__(self, config: DatasetConfig, audio_dir: str, decoder: Decoder):
        self._audio_dir, self._decoder = audio_dir, decoder
        self._choose = clips.choose_records(config)
        self._sample_rate = config.spectrogram.sample_rate
        # Whether they are so long that few bytes of each are wanted, as of the last one.
        self._are_long = False
        # The song that is read ahead: its path, and what reads it.
        self._ahead: tuple[str, files.Reading[Pieces]] | None = None

    def records_of(
        self, track: Track, thresholds: tuple[float, ...], following: Track | None = None
    ) -> list[bytes]:
        """Returns the records of a track; FileNotFoundError or ClipError if it has none.

        Args:
            track: its row of the catalogue.
            thresholds: of the classes.
            following: the track that is asked for next, whose audio is read while this one's is
                decoded.
        """
        path = files.join(self._audio_dir, track.path)
        reading, self._ahead = self._reading(path), None
        pieces = self._read(path, reading)
        if following is not None:
            next_path = files.join(self._audio_dir, following.path)
            self._ahead = next_path, self._begin_reading(next_path, self._wanted)
        try:
            decoded = self._decoded(track, pieces, thresholds)
        except NotAtHand:  # what has been read is not what its first bytes promise
            pieces = self._read(path, self._begin_reading(path, _all))
            decoded = self._decoded(track, pieces, thresholds)
        Metrics.counter("tracks", "decoded").inc()
        if decoded.how == song_parts.ALONE:
            Metrics.counter("tracks decoded", "in part").inc()
        if decoded.how == song_parts.IN_DOUBT:
            Metrics.counter("tracks decoded", "as a whole, since a part was in doubt").inc()
        Metrics.counter("clips", "made").inc(len(decoded.records))
        Metrics.counter("audio", "seconds").inc(round(decoded.audio_seconds))
        Metrics.distribution("milliseconds a track", "decode").update(decoded.decode_ms)
        Metrics.distribution("milliseconds a track", "picture").update(decoded.picture_ms)
        found: list[bytes] = decoded.records
        return found

    def _reading(self, path: str) -> files.Reading[Pieces]:
        """Returns the read of a song, which goes on already if it was the following one."""
        if self._ahead is not None and self._ahead[0] == path:
            return self._ahead[1]
        return self._begin_reading(path, self._wanted)

    def _begin_reading(
        self, path: str, wanted: Callable[[Pieces], tuple[int, int] | None]
    ) -> files.Reading[Pieces]:
        return files.begin_reading(
            path, wanted, at_most=MAX_BYTES, seconds=READ_SECONDS, is_long=self._are_long
        )

    def _read(self, path: str, reading: files.Reading[Pieces]) -> Pieces:
        """Returns what was wanted of a file; FileNotFoundError or ClipError if it can't be read."""
        try:
            pieces = reading.result()
        except FileNotFoundError:
            raise
        except OSError as error:
            if is_want_of_the_machine(error) or (files.is_remote(path) and files.may_pass(error)):
                raise  # it is not the clip's fault, and the runner tries again
            raise rejection.ClipError("undecodable", f"can't be read: {error.strerror}") from None
        if files.is_remote(path):
            self._are_long = not song_parts.needs_all(
                pieces, self._choose, sample_rate=self._sample_rate
            )
        Metrics.counter("audio", "bytes read").inc(pieces.num_bytes)
        Metrics.counter("audio", "bytes not read").inc(max(0, pieces.size - pieces.num_bytes))
        return pieces

    def _wanted(self, pieces: Pieces) -> tuple[int, int] | None:
        return song_parts.bytes_wanted(pieces, self._choose, sample_rate=self._sample_rate)

    def _decoded(self, track: Track, pieces: Pieces, thresholds: tuple[float, ...]) -> Decoded:
        data = pieces.all() if pieces.is_whole else pieces
        decoded: Decoded = self._decoder.decode(track, data, thresholds=thresholds)
        return decoded


def _all(pieces: Pieces) -> tuple[int, int] | None:
    """Wants all bytes of a file."""
    return None if pieces.is_whole else (0, pieces.size)
