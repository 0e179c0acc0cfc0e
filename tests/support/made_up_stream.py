"""`stream_dataset` with a decoder that makes pictures of any bytes."""

from absl import flags

from beam_pipelines import pipeline, stream_dataset
from common import command
from tests.support.streams import MadeUp

if __name__ == "__main__":
    pipeline.Decoder = MadeUp
    command.run(stream_dataset.main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
