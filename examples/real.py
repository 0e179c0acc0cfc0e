r"""The networks on real music, beside what they have to beat.

python -m examples.real --pictures=../shared/fma_pictures --output_dir=build/real

`--pictures` is what `examples.real_pictures` reads. With the poster's protocol (random tracks) and
with one that has no artist in two splits, it trains the network for audio alone and the one for
audio and metadata by `trainer.train`, and measures both on the test split, beside baselines. The
same command goes on where it stopped. In --output_dir:

    {track,artist}/dataset           as examples.real_pictures makes it
    {track,artist}/{audio,fusion}/   as trainer.train leaves it, with export/<version>
    real.json, real.md, real.png     the tables, and a picture of them
"""

import json
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from numpy.typing import NDArray

from common import command, dataset_info, dataset_reader, tables
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from examples import real_baselines, real_pictures, real_table

_PICTURES = flags.DEFINE_string("pictures", "../shared/fma_pictures", "An .npz, or a folder.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "build/real", "Where everything goes.")

PROTOCOLS = {"track": "Random tracks (the poster's protocol)", "artist": "Artists never heard"}
NETWORKS = {"audio": "configs/short_chunk.py", "fusion": "configs/fusion.py"}
NAMES = {"audio": "audio alone", "fusion": "audio and metadata"}
# What each has to beat: gradient boosting on the same inputs, or, for audio, on an embedding.
RIVALS = {"audio": "VGGish, frozen", "fusion": "metadata alone"}


def main(argv: list[str]) -> None:
    started = time.monotonic()
    output_dir = pathlib.Path(_OUTPUT_DIR.value)
    protocols = []
    for protocol, title in PROTOCOLS.items():
        folder = output_dir / protocol
        dataset_dir = folder / "dataset"
        make_dataset(protocol, dataset_dir)
        for network, config in NETWORKS.items():
            said = f"{protocol}, {NAMES[network]} ({tables.duration(time.monotonic() - started)})"
            print(f"== {said}", flush=True)
            run(
                "trainer.train",
                f"--config={config}",
                *train_flags(network),
                *argv[1:],
                f"--dataset_dir={dataset_dir}",
                f"--model_dir={folder / network}",
            )
        protocols.append({"protocol": protocol, "title": title, **table_of(folder)})
    write(protocols, output_dir)
    print(real_table.markdown(protocols))
    print(f"written: {output_dir}/real.json, real.md, real.png; done in ", end="")
    print(tables.duration(time.monotonic() - started))


def train_flags(network: str) -> list[str]:
    """What is said beside the config: of the inputs those that the baseline has too.

    In cross-validation titles and Echo Nest's features made both worse.
    """
    return [f"--config.network.inputs={real_baselines.INPUTS}"] if network == "fusion" else []


def make_dataset(protocol: str, dataset_dir: pathlib.Path) -> None:
    """Makes the dataset of a protocol, unless it is there; UserFacingError for other pictures'."""
    if (dataset_dir / dataset_info.FILE_NAME).exists():
        return real_pictures.require_made_of(_PICTURES.value, str(dataset_dir))
    run(
        "examples.real_pictures",
        f"--pictures={_PICTURES.value}",
        f"--output_dir={dataset_dir}",
        f"--split_by={protocol}",
    )


def run(*arguments: str) -> None:
    """Runs a module of the project as a person would; what stops this one stops it too."""
    print(f"$ python -m {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", *arguments])
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = process.wait()
    except KeyboardInterrupt:  # it has been told, too
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        raise UserFacingError(
            f"python -m {arguments[0]} ended with {code}; the same command goes on"
        )


def table_of(folder: pathlib.Path) -> dict[str, Any]:
    """The table of a protocol whose networks are trained."""
    dataset_dir = str(folder / "dataset")
    info = dataset_reader.load_dataset_info(dataset_dir)
    splits = real_baselines.read_splits(info, dataset_dir, embeddings(_PICTURES.value))
    asked = splits["test"]
    artist = real_table.artists_of(asked.artist_id, asked.track_id)
    found = real_baselines.predictions(
        splits["train"], asked, num_classes=len(info.class_names)
    ) | {
        NAMES[network]: probabilities_of(folder / network, info, dataset_dir)
        for network in NETWORKS
    }
    pairs = [(NAMES[network], rival) for network, rival in RIVALS.items() if rival in found]
    what = real_table.Asked(label=asked.label, listens=asked.listens, artist=artist)
    return {
        "num_train": len(splits["train"].label),
        "num_asked": len(asked.label),
        "num_artists": int(artist.max()) + 1,
        **real_table.compare(found, what, pairs=pairs),
    }


def embeddings(path: str) -> dict[int, NDArray[Any]]:
    """The VGGish embedding of each track of the pictures, float32 [128], where there is one."""
    place = pathlib.Path(path)
    found: dict[int, NDArray[Any]] = {}
    for file in sorted(place.glob("*.npz")) if place.is_dir() else [place]:
        with np.load(file, allow_pickle=False) as arrays:
            if "vggish" in arrays.files:
                values = arrays["vggish"].astype(np.float32)
                found |= dict(zip(arrays["track_id"].tolist(), values, strict=True))
    return found


def probabilities_of(
    model_dir: pathlib.Path, info: DatasetInfo, dataset_dir: str
) -> NDArray[np.float64]:
    """What a trained network answers about the test split, [clips, classes]."""
    with command.kept_back_stderr():
        from trainer.run import devices, loop, model_folder

    config = model_folder.load_config(str(model_dir), info)
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    model_folder.restore_best(str(model_dir), trainer.model)
    predictions = trainer.predict(dataset_dir, "test")
    assert predictions is not None
    return np.asarray(predictions.probabilities, np.float64)


def write(protocols: Sequence[dict[str, Any]], output_dir: pathlib.Path) -> None:
    """Writes the tables and the picture of them."""
    text = json.dumps(list(protocols), indent=2) + "\n"
    (output_dir / "real.json").write_text(text, encoding="utf-8")
    (output_dir / "real.md").write_text(real_table.markdown(protocols), encoding="utf-8")
    picture = real_table.picture(protocols, networks=list(NAMES.values()))
    (output_dir / "real.png").write_bytes(picture)


if __name__ == "__main__":
    command.run(main)
