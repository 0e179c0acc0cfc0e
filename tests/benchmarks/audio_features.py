"""What a clip costs the dataset job with pitch classes and tempo, against what it costs without.

The same work as in the job's decoder: from the bytes of a clip to its serialized record. The two
take turns clip by clip, and the processor's time is counted, so that what else the machine does
moves both alike.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from beam_pipelines import clip_record
from common import contained_process
from common.catalogue import Track
from common.clips import decode_records
from common.dataset_config import DatasetConfig
from configs import dataset_artist
from tests.benchmarks.bar import Bar
from tests.benchmarks.dataset_job import clips

ROUNDS = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

BARS = {"clip with chroma and tempo / without": Bar(bar=1.10, better="lower")}


def measure() -> dict[str, float]:
    """The median over clips and rounds of the ratio of the two, in a process like a decoder's."""
    environment = os.environ | ONE_THREAD | contained_process.KEEPS_MEMORY
    command = [sys.executable, "-m", "tests.benchmarks.audio_features"]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    print(lines.stdout, end="")
    return {"clip with chroma and tempo / without": float(lines.stdout.split()[-1])}


def main() -> None:
    """Prints both costs and, as the last word, the ratio."""
    values = dataset_artist.get_config().to_dict()
    without = DatasetConfig.from_dict(values)
    both = DatasetConfig.from_dict(values | {"inputs": {"chroma": True, "tempo": True}})
    track = Track(1, "clip.mp3", 1_000, -1, "", -1, "")

    def seconds(data: bytes, config: DatasetConfig) -> float:
        started = time.process_time()
        for window in decode_records(data, config).windows:
            clip_record.record_of(track, window, config, thresholds=(1_000, 3_500))
        return time.process_time() - started

    with tempfile.TemporaryDirectory() as name:
        songs = [path.read_bytes() for path in clips(pathlib.Path(name))]
    for config in (without, both):
        seconds(songs[0], config)  # loads what it needs
    pairs = [(seconds(s, both), seconds(s, without)) for _ in range(ROUNDS) for s in songs]
    ratio = statistics.median(with_both / plain for with_both, plain in pairs)
    with_both, plain = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"a clip: {plain:.1f} ms, with chroma and tempo {with_both:.1f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
