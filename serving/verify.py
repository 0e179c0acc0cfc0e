r"""Asks an exported model in every way, and compares the answers with each other and with the job.

python -m serving.verify --export_dir=export --dataset_dir=dataset --audio_dir=fma_small

Prints the largest differences; exits with 1 where one is above 1e-3. Without --candidate it is the
newest version that is asked; with it, a candidate, which gets its number if it passes (with
--norelease it stays one) and is set aside if it does not. Without --audio_dir the songs are left
out.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from common import (
    catalogue,
    clips,
    command,
    dataset_info,
    dataset_reader,
    export_folder,
    files,
    rejection,
)
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, one_line, require
from common.model_info import ModelInfo
from serving.model.exported_model import ExportedModel
from serving.model.verification import LIMIT, Check, Record, Verifier, guarded

_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where trainer.train put the export.", required=True
)
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "The dataset that the model was trained on.", required=True
)
_AUDIO_DIR = flags.DEFINE_string("audio_dir", None, "The audio that the dataset was made of.")
_TRACKS_CSV = flags.DEFINE_string(
    "tracks_csv", None, "The catalogue of the dataset; needed where the audio is not laid out as "
    "FMA's is, 000/000002.mp3 for track 2."
)  # fmt: skip
_FEATURES_CSV = flags.DEFINE_list(
    "features_csv", [], "The further tables that the dataset was built with, in the same order; "
    "needed with --tracks_csv, which is proven to be the dataset's."
)  # fmt: skip
_RECORDS = flags.DEFINE_integer(
    "records", 16, "Records of each split that are compared.", lower_bound=1
)
_CANDIDATE = flags.DEFINE_string(
    "candidate", None, "The name of a candidate in --export_dir, to be released if it passes."
)
_RELEASE = flags.DEFINE_bool("release", True, "Release a --candidate that passes.")


class Songs(NamedTuple):
    """The songs below --audio_dir, and the records made of them.

    Attributes:
        pairs: a window float32 [num_samples] and the record that the job made of it.
        missing: how many tracks have no file there.
        rejected: how many files that the job rejected were tried again.
        taken: those of them that are not rejected now for the same reason, in words.
    """

    pairs: list[tuple[np.ndarray, Record]]
    missing: int
    rejected: int
    taken: list[str]


def read_records(info: DatasetInfo, dataset_dir: str, count: int) -> list[Record]:
    """Reads the first `count` records of each split; UserFacingError where a shard is damaged."""
    import tensorflow as tf

    height, width = info.config.spectrogram.shape
    records = []
    for split in info.splits.values():
        paths = [files.join(dataset_dir, shard.file) for shard in split.shards]
        if not split.num_examples:
            continue
        try:
            for serialized in tf.data.TFRecordDataset(paths).take(count).as_numpy_iterator():
                feature = tf.train.Example.FromString(serialized).features.feature
                (picture,) = feature["spectrogram"].bytes_list.value
                (track_id,) = feature["track_id"].int64_list.value
                pixels = np.frombuffer(picture, np.uint8).reshape(height, width)
                records.append(Record(track_id, pixels, serialized))
        except tf.errors.OpError as error:
            raise UserFacingError(f"{dataset_dir}: {one_line(error, at_most=200)}") from None
    return records


def read_songs(
    info: DatasetInfo,
    records: list[Record],
    *,
    dataset_dir: str,
    audio_dir: str,
    tracks_csv: str | None,
    features_csv: Sequence[str],
) -> Songs:
    """Decodes the songs of records, and those that the job rejected."""

    paths = paths_of(tracks_csv, features_csv, info) if tracks_csv else {}
    by_track: dict[int, list[Record]] = {}
    for record in records:
        by_track.setdefault(record.track_id, []).append(record)
    pairs: list[tuple[np.ndarray, Record]] = []
    missing = 0
    for track_id, of_track in by_track.items():
        path = paths.get(track_id, catalogue.clip_path(track_id))
        try:
            data = files.read_bytes(path_below(audio_dir, path))
        except OSError:
            missing += 1
            continue
        # A record that stands behind the last one read leaves a window over.
        pairs += zip(windows_of(data, info), of_track, strict=False)
    rejected = 0
    taken: list[str] = []
    for line in read_rejected(dataset_dir)[: len(records)]:
        try:
            data = files.read_bytes(path_below(audio_dir, line["path"]))
        except OSError:
            continue
        rejected += 1
        reason = "taken"
        try:
            windows_of(data, info)
        except rejection.ClipError as error:
            reason = error.reason
        if reason != line["reason"]:
            taken.append(f"{line['path']}: {reason}, and the job found it {line['reason']}")
    return Songs(pairs, missing, rejected, taken)


def windows_of(data: bytes, info: DatasetInfo) -> list[np.ndarray]:
    """Cuts the windows that the job makes records of; ClipError where it makes none."""
    with command.kept_back_stderr():  # what the mp3 decoder says of a damaged file
        return clips.decode_records(data, info.config).windows


def paths_of(tracks_csv: str, features_csv: Sequence[str], info: DatasetInfo) -> dict[int, str]:
    """Reads the path of each track in a catalogue; UserFacingError unless it is the dataset's."""
    import io

    try:
        sha256 = files.sha256_of_all(tracks_csv, *features_csv)
        data = files.read_bytes(tracks_csv)
    except OSError as error:
        raise UserFacingError(
            f"{error.filename or tracks_csv}: {error.strerror or 'not found'}"
        ) from None
    require(
        sha256 == info.catalog_sha256,
        f"{', '.join([tracks_csv, *features_csv])}: not what the dataset was made of (the SHA-256 "
        "differs); name the catalogue by --tracks_csv, and by --features_csv the tables that "
        "build_dataset was given",
    )
    tracks = catalogue.read_tracks(io.BytesIO(data), name=tracks_csv, subset=info.config.subset)
    return {track.track_id: track.path for track in tracks}


def path_below(audio_dir: str, path: str) -> str:
    """Returns the path of a track's audio: below the folder, or anywhere if it is absolute."""
    return files.join(audio_dir, path)


def read_rejected(dataset_dir: str) -> list[dict[str, Any]]:
    path = files.join(dataset_dir, dataset_info.REJECTED_FILE)
    if not files.exists(path):
        return []
    return [json.loads(line) for line in files.read_text(path).splitlines()]


def checks(
    model: ExportedModel,
    records: list[Record],
    songs: Songs | None,
    references: dict[str, list[float]] | None,
) -> Iterator[Check]:
    """Makes every comparison in turn."""
    verifier = Verifier(model)
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.1, (4, model.info.signal.num_samples)).astype(np.float32)
    windows = [window for window, _ in songs.pairs[:4]] if songs and songs.pairs else list(noise)
    yield guarded("ops", verifier.stock_ops)
    if references is not None:
        yield guarded("references", lambda: verifier.references(records, references))
    yield guarded("tf.Examples", lambda: verifier.examples(records))
    if songs is not None:
        yield guarded("songs, graph", lambda: verifier.songs(songs.pairs, made_by="graph"))
        yield guarded("songs, job", lambda: verifier.songs(songs.pairs, made_by="job"))
        difference = float("inf") if songs.taken else 0.0
        yield Check("songs that the job rejected", songs.rejected, difference,
                    "; ".join(songs.taken))  # fmt: skip
    yield guarded("WAV mono", lambda: verifier.wavs(windows, stereo=False))
    yield guarded("WAV stereo", lambda: verifier.wavs(windows, stereo=True))
    yield guarded("batch and single", lambda: verifier.batches(windows, records))
    yield guarded("odd lengths", verifier.lengths)
    yield guarded("silence", verifier.silence)
    yield guarded("warm-up requests", verifier.warm_up_file)
    yield verifier.distributions()
    yield verifier.labels()


def table(found: list[Check]) -> str:
    """Formats the table."""
    lines = [f"{'compared':<42}{'answers':>9}{'largest difference':>20}"]
    for line in found:
        difference = "failed" if np.isinf(line.difference) else f"{line.difference:.1e}"
        problem = "" if line.passed else f"  {line.note or f'above {LIMIT:g}'}"
        lines.append(f"{line.name:<42}{line.compared:>9,}{difference:>20}{problem}")
    return "\n".join(lines)


def info_of(dataset_dir: str, model: ModelInfo) -> DatasetInfo:
    """Returns the description of the generations that a model was trained on, if they are there.

    Else of all that are there now.
    """
    info = dataset_reader.load_dataset_info(dataset_dir)
    if info.generations and info.fingerprint != model.dataset_fingerprint:
        return dataset_reader.load_trained_on(dataset_dir, model) or info
    return info


def compared(path: str, dataset_dir: str) -> list[Check]:
    """Asks a version or candidate, and prints the table.

    Raises:
        UserFacingError: it can't be loaded, or the dataset or the audio is not its own.
    """
    model = ExportedModel(path)
    info = info_of(dataset_dir, model.info)
    require(
        model.info.signal == info.config.spectrogram,
        f"{dataset_dir}: its pictures are not made as those that {path} was trained on",
    )

    # ---- what is asked about
    records = read_records(info, dataset_dir, _RECORDS.value)
    require(bool(records), f"{dataset_dir}: the dataset has no examples")
    songs = None
    if _AUDIO_DIR.value:
        songs = read_songs(
            info,
            records,
            dataset_dir=dataset_dir,
            audio_dir=_AUDIO_DIR.value.rstrip("/"),
            tracks_csv=_TRACKS_CSV.value,
            features_csv=_FEATURES_CSV.value,
        )
        require(
            bool(songs.pairs),
            f"{_AUDIO_DIR.value}: none of {songs.missing} tracks lies there as FMA's do "
            f"({catalogue.clip_path(records[0].track_id)}); --tracks_csv names other paths",
        )
    references = None
    if model.info.dataset_fingerprint == info.fingerprint:
        answers = files.join(path, export_folder.REFERENCES_FILE)
        require(files.exists(answers), f"{answers}: missing, so the export is not whole")
        references = json.loads(files.read_text(answers))

    # ---- ask
    found = list(checks(model, records, songs, references))
    print(table(found))
    if references is None:
        print("(the model was trained on another dataset, so its own answers are not compared)")
    if songs is not None and songs.missing:
        print(f"({songs.missing} tracks have no file in {_AUDIO_DIR.value})")
    return found


def problem_of(path: str, found: list[Check]) -> str | None:
    """Says which lines of the table a version failed; None if it failed none."""
    failed = [line.name for line in found if not line.passed]
    return f"{path} did not pass: {'; '.join(failed)}" if failed else None


def report_of(found: list[Check], problem: str | None) -> dict[str, Any]:
    """Returns the report that is kept beside a candidate."""
    rows = [line._asdict() | {"passed": line.passed} for line in found]
    for row in rows:  # JSON has no infinity
        row["difference"] = row["difference"] if np.isfinite(row["difference"]) else None
    return {"limit": LIMIT, "passed": problem is None, "problem": problem, "checks": rows}


def main(argv: list[str]) -> int:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --export_dir=export")
    export_dir, dataset_dir = _EXPORT_DIR.value.rstrip("/"), _DATASET_DIR.value.rstrip("/")
    candidate = _CANDIDATE.value
    if candidate is None:
        path = files.join(export_dir, str(export_folder.newest_version(export_dir)))
        problem = problem_of(path, compared(path, dataset_dir))
        require(problem is None, str(problem))
        print(f"passed: {path}")
        return 0

    export_folder.check_candidate(export_dir, candidate)
    path, found = files.join(export_dir, candidate), []
    try:
        found = compared(path, dataset_dir)
        problem = problem_of(path, found)
    except UserFacingError as error:
        problem = str(error)
    except Exception as error:  # whatever it is, the candidate can't be released
        problem = f"{path}: {type(error).__name__}: {one_line(error, at_most=300)}"
    export_folder.write_report(path, report_of(found, problem))
    if problem is not None:
        raise UserFacingError(
            f"{problem}; set aside: {export_folder.refuse(export_dir, candidate)}"
        )
    if _RELEASE.value:
        path = export_folder.release(export_dir, candidate)
    print(f"passed: {path}")
    return 0


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
