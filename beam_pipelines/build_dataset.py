r"""Builds a dataset of spectrograms and popularity labels from a catalogue and its audio.

python -m beam_pipelines.build_dataset --config=configs/dataset_artist.py \
    --tracks_csv=fma_metadata/tracks.csv --audio_dir=fma_small --output_dir=dataset

Paths are local or gs://. Every flag that is not listed here is Beam's; --runner=DirectRunner,
PrismRunner, FlinkRunner or DataflowRunner need no others (beam_pipelines/engines.py), but for
Dataflow's --project, --region and --temp_location.
"""

import contextlib
import itertools
import uuid
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from absl import flags
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import dataset_job, engines, job_run, output_folder
from beam_pipelines.card import summary
from common import catalogue, command, dataset_reader, files, generations, lock
from common.dataset_config import SUBSETS, DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from common.inputs import Inputs

_CONFIG = command.define_config("configs/dataset_artist.py")
_TRACKS_CSV = flags.DEFINE_string("tracks_csv", None, "FMA's tracks.csv.", required=True)
_AUDIO_DIR = flags.DEFINE_string(
    "audio_dir", None, "Folder of the mp3s, in FMA's layout (000/000002.mp3).", required=True
)
_FEATURES_CSV = flags.DEFINE_list(
    "features_csv",
    [],
    "Tables of further columns by track id for config.inputs, such as FMA's features.csv and "
    "echonest.csv; what one says goes before the next.",
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where the dataset goes.", required=True)
_MAX_REJECT_FRACTION = flags.DEFINE_float(
    "max_reject_fraction",
    0.05,
    "The job fails if a larger part of the tracks is rejected; the list of them stays.",
    lower_bound=0,
    upper_bound=1,
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the dataset in --output_dir.")
_RETRY_REJECTED = flags.DEFINE_bool(
    "retry_rejected", False, "Try again only what was rejected or missing."
)
_FORCE_UNLOCK = flags.DEFINE_bool("force_unlock", False, lock.FORCE_UNLOCK)
_SUBSET = flags.DEFINE_enum("subset", None, SUBSETS, "Short for --config.subset.")


# How many tracks are looked for in a bucket, where each look is a request.
_LOOKS_IN_A_BUCKET = 200


@contextlib.contextmanager
def opened(path: str, *, meaning: str) -> Iterator[BinaryIO]:
    """Opens a file that a flag names; UserFacingError with the flag's meaning if it can't be."""
    try:
        with files.open_to_read(path) as file:
            yield file
    except FileNotFoundError:
        raise UserFacingError(f"{path}: no such file; {meaning}") from None
    except OSError as error:
        raise UserFacingError(f"{path}: can't be read ({error.strerror or error})") from None


def check_columns(tracks_csv: str, features_csv: tuple[str, ...], inputs: Inputs) -> None:
    """Raises UserFacingError unless each column that is an input is in one of the files."""
    with files.open_to_read(tracks_csv) as file:
        found = catalogue.inputs_of_catalogue(file, name=tracks_csv, inputs=inputs)
    for path in features_csv:
        with opened(path, meaning="--features_csv are tables by track id") as file:
            found |= catalogue.inputs_of_table(file, name=path, inputs=inputs)
    for kind in ("categories", "numbers", "texts"):
        for name in getattr(inputs, kind):
            if name not in found:
                paths = ", ".join([tracks_csv, *features_csv])
                raise UserFacingError(f"config.inputs.{kind}: there is no column {name} in {paths}")


def check_inputs(*, tracks_csv: str, audio_dir: str, output_dir: str, subset: str) -> None:
    """Raises UserFacingError, before anything is changed, for what can be seen from here."""
    with opened(tracks_csv, meaning="--tracks_csv is the catalogue") as file:
        tracks = catalogue.read_tracks(file, name=tracks_csv, subset=subset)
        first = next(tracks, None)
        if first is None:
            raise UserFacingError(f"{tracks_csv}: no tracks in subset {subset}")
        check_audio(itertools.chain([first], tracks), audio_dir, example=first.path)
    try:
        files.check_writable(output_dir)
    except OSError as error:
        raise UserFacingError(
            f"{output_dir}: can't be written ({error.strerror or error})"
        ) from None


def check_audio(tracks: Iterable[catalogue.Track], audio_dir: str, *, example: str) -> None:
    """Raises UserFacingError unless some track has its file, in the audio folder or elsewhere."""
    if files.is_remote(audio_dir):
        tracks = itertools.islice(tracks, _LOOKS_IN_A_BUCKET)
    count = 0
    for track in tracks:
        if has_audio(track, audio_dir):
            return
        count += 1
    if not files.has_files(audio_dir):
        is_empty = not files.is_remote(audio_dir) and files.exists(audio_dir)
        problem = "holds no files" if is_empty else "no such folder"
        raise UserFacingError(
            f"{audio_dir}: {problem}; --audio_dir is the folder that has {example}"
        )
    raise UserFacingError(
        f"{audio_dir}: none of the first {count:,} tracks of the catalogue has its file there, "
        f"such as {example}"
    )


def has_audio(track: catalogue.Track, audio_dir: str) -> bool:
    return files.has_file(files.join(audio_dir, track.path))


@contextlib.contextmanager
def job_of_flags() -> Iterator[dataset_job.Job]:
    """What the flags ask for, after a look at whether it can be done.

    Inside the block no other run gets into its folder.
    """
    require(
        not (_OVERWRITE.value and _RETRY_REJECTED.value),
        "--overwrite makes all of the dataset anew, --retry_rejected keeps what is good of it; "
        "give one of them",
    )
    values = command.config_values(_CONFIG)
    config = DatasetConfig.from_dict(values | ({"subset": _SUBSET.value} if _SUBSET.value else {}))
    paths = {
        "tracks_csv": _TRACKS_CSV.value,
        "audio_dir": _AUDIO_DIR.value,
        "output_dir": _OUTPUT_DIR.value,
    }
    paths = {name: path if path == "/" else path.rstrip("/") for name, path in paths.items()}
    check_inputs(**paths, subset=config.subset)
    features_csv = tuple(_FEATURES_CSV.value)
    check_columns(paths["tracks_csv"], features_csv, config.inputs)
    catalog_sha256 = files.sha256_of_all(paths["tracks_csv"], *features_csv)
    output_dir = paths["output_dir"]
    with lock.hold(output_dir, force=_FORCE_UNLOCK.value):
        work = output_folder.work(
            output_dir,
            output_folder.identity(config, catalog_sha256, dataset_job.library_versions()),
            overwrite=_OVERWRITE.value,
            retry_rejected=_RETRY_REJECTED.value,
        )
        if work.mode is not output_folder.Mode.FINISHED:
            refuse_grown(output_dir)
        yield dataset_job.Job(
            config=config,
            catalog_sha256=catalog_sha256,
            run_id=uuid.uuid4().hex,
            work=work,
            max_reject_fraction=_MAX_REJECT_FRACTION.value,
            features_csv=features_csv,
            tracks_csv=paths["tracks_csv"],
            audio_dir=paths["audio_dir"],
            output_dir=output_dir,
        )


def refuse_grown(output_dir: str) -> None:
    """Raises UserFacingError for a dataset that has grown: what was written never changes."""
    if generations.numbers_in(generations.sizes_below(output_dir)):
        raise UserFacingError(
            f"{output_dir}: has grown by {generations.FOLDER}/ since it was made, whose thresholds "
            f"and tracks would no longer fit; take another --output_dir, or delete "
            f"{files.join(output_dir, generations.FOLDER)} first"
        )


def load_info(output_dir: str) -> DatasetInfo:
    """Reads the description of the dataset in a folder whose shards are known to be there."""
    return dataset_reader.load_dataset_info(output_dir, check_shards_of=())


def main(argv: list[str]) -> None:
    options = engines.options(argv[1:])
    with job_of_flags() as job:
        build(job, options)


def build(job: dataset_job.Job, options: PipelineOptions) -> None:
    """Runs the job, if there is anything to do, and prints what the dataset holds."""
    if job.work.why:
        print(f"{job.output_dir}: {job.work.why}")
    if job.work.mode is output_folder.Mode.FINISHED:
        output_folder.clear(job.output_dir, load_info(job.output_dir))
        print(f"{job.output_dir} is finished; --retry_rejected tries what was rejected again")
    else:
        counted = job_run.run(job, options)
        if counted is None:
            print("the job is prepared, and was not started")
            return
        print(counted)
    print(summary.table(load_info(job.output_dir)))


if __name__ == "__main__":
    command.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
