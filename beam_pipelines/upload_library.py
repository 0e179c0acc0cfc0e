r"""Puts a music library into a bucket, from a folder or out of its zip without unpacking it.

python -m beam_pipelines.upload_library --source=fma_small.zip --destination=gs://bucket/fma

puts fma_small/000/000002.mp3 of the zip, or of a folder fma_small, at
gs://bucket/fma/fma_small/000/000002.mp3. What is there already with the same size and checksum is
left as it is, so the same command goes on after a failure.
"""

from absl import flags

from beam_pipelines.upload import transfer
from beam_pipelines.upload.library_files import open_library
from beam_pipelines.upload.progress import Progress
from common import command
from common.errors import UserFacingError, require

_SOURCE = flags.DEFINE_string(
    "source", None, "A folder, such as fma_small, or a zip of one.", required=True
)
_DESTINATION = flags.DEFINE_string(
    "destination", None, "gs://bucket or gs://bucket/folder.", required=True
)


def main(argv: list[str]) -> None:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --source=fma_small")
    with open_library(_SOURCE.value) as library:
        bucket, prefix = transfer.open_bucket(_DESTINATION.value)
        with Progress(library.files) as progress:
            outcome = transfer.upload(library.files, bucket, prefix, progress)
    print(transfer.table(outcome, left_out=library.left_out, seconds=progress.seconds))
    for file, reason in outcome.failed.items():
        print(f"failed: {file.name}: {reason}")
    if outcome.failed:
        raise UserFacingError(
            f"{len(outcome.failed) + len(outcome.not_tried):,} of {len(library.files):,} files "
            f"are not in {_DESTINATION.value}; the same command tries them again"
        )


if __name__ == "__main__":
    command.run(main)
