"""The dataset job on a catalogue of a million rows, of which twenty have audio.

What is left is what the catalogue costs: reading, hashing, grouping, looking for the files.
"""

import pathlib
import sys
import tempfile

from common import dataset_reader
from tests.benchmarks import process_memory
from tests.benchmarks.bar import Bar
from tests.benchmarks.scale import make_clips

ROWS, WITH_AUDIO = 1_000_000, 20

BARS = {
    "a million rows: seconds": Bar(bar=120, better="lower"),
    "a million rows: memory of all processes, GB": Bar(bar=2.0, better="lower"),
    "a million rows: memory of a worker, MB": Bar(bar=700, better="lower"),
}


def write_catalogue(path: pathlib.Path, clips: list[pathlib.Path]) -> None:
    every = ROWS // WITH_AUDIO
    with path.open("w") as file:
        file.write("track_id,path,listens,artist_id\n")
        for number in range(ROWS):
            clip = f"{number // 1_000:03d}/{number:06d}.mp3"
            if number % every == 0:
                clip = clips[number // every % len(clips)].name
            file.write(f"{number},{clip},{37 * number % 9_000},{number % 150_000}\n")


def measure() -> dict[str, float]:
    """The values of `BARS`."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        clips = make_clips(folder / "clips")[-2:]
        write_catalogue(folder / "songs.csv", clips)
        usage = process_memory.run(
            [
                sys.executable,
                "-m",
                "beam_pipelines.build_dataset",
                "--config=configs/dataset_artist.py",
                f"--tracks_csv={folder / 'songs.csv'}",
                f"--audio_dir={clips[0].parent}",
                f"--output_dir={folder / 'dataset'}",
            ]
        )
        info = dataset_reader.load_dataset_info(str(folder / "dataset"))
    assert (info.num_examples, info.missing_audio) == (WITH_AUDIO, ROWS - WITH_AUDIO)
    peaks = ", ".join(f"{role} {peak / 1e6:.0f} MB" for role, peak in sorted(usage.peaks.items()))
    print(f"a million rows: {usage.seconds:.0f} s; largest of each kind of process: {peaks}")
    return {
        "a million rows: seconds": usage.seconds,
        "a million rows: memory of all processes, GB": usage.tree_peak / 1e9,
        "a million rows: memory of a worker, MB": usage.peaks["worker"] / 1e6,
    }
