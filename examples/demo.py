r"""The whole way from mp3s to a prediction, by the commands that the README gives.

python -m examples.demo --output_dir=demo [--audio_dir=fma_small --tracks_csv=tracks.csv]

Without a library of one's own it makes a miniature one. A step that is finished is not done again,
and one that was stopped goes on; `demo/steps.json` holds what each was made from.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any

from absl import flags

from common import command, dataset_reader, export_folder, tables
from common.catalogue import clip_path
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError
from examples.steps import Steps, digest, run, skip, source_of, step

_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo", "Where everything goes.")
_AUDIO_DIR = flags.DEFINE_string("audio_dir", None, "The mp3s of an FMA; a miniature without.")
_TRACKS_CSV = flags.DEFINE_string("tracks_csv", None, "The tracks.csv of that FMA.")

# Larger shares for validation and test than the protocols', since the library is so small.
_DATASET_FLAGS = ["--config=configs/dataset_artist.py", "--config.split_sizes=(0.6,0.15,0.25)"]
# On so few clips a third of the poster's rate schedule is enough: it falls to 0 within 10 epochs.
_TRAIN_FLAGS = [
    "--config=configs/six_conv_rgb.py",
    "--config.epochs=10",
    "--config.learning_rate_schedule=cosine",
    "--config.warmup_epochs=1",
]
# Below this an accuracy says nothing about the network.
_FEW_TEST_EXAMPLES = 30


def summary(
    folders: dict[str, pathlib.Path], record: dict[str, Any], prediction: dict[str, Any]
) -> str:
    """The table at the end."""
    info = dataset_reader.load_dataset_info(str(folders["dataset"]))
    export = folders["export"]
    version = export / str(export_folder.newest_version(str(export)))
    evaluation = json.loads((version / export_folder.INFO_FILE).read_text())["evaluation"]
    rejected = ", ".join(f"{count} {reason}" for reason, count in info.rejected.items()) or "none"
    clips_in = info.num_examples + sum(info.rejected.values())
    rows = [
        ("clips in", f"{clips_in} ({info.missing_audio} more rows of the subset have no audio)"),
        ("rejected", rejected),
        *examples_rows(info),
        *accuracy_rows(evaluation, info),
        ("dataset", str(folders["dataset"] / "dataset_info.json")),
        ("contact sheet", str(folders["dataset"] / "contact_sheet.png")),
        ("data card", str(folders["dataset"] / "dataset_card.md")),
        ("learning curves", str(folders["model"] / "learning_curves.png")),
        ("evaluation", str(folders["model"] / "evaluation.json")),
        ("report", str(folders["model"] / "report.html")),
        ("exported model", str(version)),
        ("prediction for", prediction["file"]),
        *(
            ("", f"{100 * value:5.1f} %  {name}{'  <- its answer' * (name == prediction['label'])}")
            for name, value in prediction["probabilities"].items()
        ),
        ("in truth", f"{record['listens']:,} listens, {info.class_names[record['label']]}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)


def examples_rows(info: DatasetInfo) -> list[tuple[str, str]]:
    header = ("", *info.class_names, "artists")
    table = [
        (name, *(str(count) for count in split.class_counts.values()), str(split.num_artists))
        for name, split in info.splits.items()
    ]
    first, *others = tables.aligned([header, *table])
    return [("examples", first), *(("", line) for line in others)]


def accuracy_rows(evaluation: dict[str, Any] | None, info: DatasetInfo) -> list[tuple[str, str]]:
    if evaluation is None:
        return [("test accuracy", "unknown: no clip fell into the test split")]
    low, high = evaluation["accuracy_ci95"]
    majority = evaluation["baselines"]["majority"]
    rows = [
        (
            "test accuracy",
            f"{tables.percent(evaluation['accuracy'])} (95 % interval {100 * low:.1f} to "
            f"{tables.percent(high)}; {info.splits['test'].num_artists} artists it never heard)",
        ),
        ("majority class", tables.percent(majority)),
    ]
    if evaluation["num_examples"] < _FEW_TEST_EXAMPLES:
        count = evaluation["num_examples"]
        few = f"{count} test clip{'s' * (count != 1)}"
        rows.append(("", f"with {few} this accuracy means nothing; it shows that the parts work"))
    return rows


def a_test_record(dataset_dir: pathlib.Path) -> dict[str, Any]:
    """A record of the test split, or of any where that has none."""
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    for split, example in dataset_reader.read_examples(info, str(dataset_dir)):
        if split == "test" or not info.splits["test"].num_examples:
            return example
    raise UserFacingError(f"{dataset_dir}: no examples")


def make_dataset(
    steps: Steps, dataset_dir: pathlib.Path, *, audio_dir: pathlib.Path, tracks_csv: str
) -> None:
    """Builds the dataset with its card, unless it is there."""
    made_from = digest(
        *_DATASET_FLAGS,
        str(audio_dir),
        pathlib.Path(tracks_csv).read_bytes() if pathlib.Path(tracks_csv).is_file() else tracks_csv,
        source_of("common", "beam_pipelines", "configs"),
    )
    info_path = dataset_dir / "dataset_info.json"
    if steps.finished("dataset", made_from) and info_path.exists():
        return skip(dataset_dir)
    steps.begin("dataset", made_from, dataset_dir)
    run(
        "beam_pipelines.build_dataset",
        *_DATASET_FLAGS,
        f"--tracks_csv={tracks_csv}",
        f"--audio_dir={audio_dir}",
        f"--output_dir={dataset_dir}",
    )
    run(
        "beam_pipelines.inspect_dataset",
        f"--dataset_dir={dataset_dir}",
        f"--output={dataset_dir / 'contact_sheet.png'}",
        f"--card={dataset_dir}",
    )
    steps.finish("dataset", made_from)


def train(steps: Steps, folders: dict[str, pathlib.Path]) -> None:
    """Trains, evaluates and exports the network, unless that is done."""
    made_from = digest(
        *_TRAIN_FLAGS,
        (folders["dataset"] / "dataset_info.json").read_bytes(),
        source_of("common", "trainer", "serving", "configs"),
    )
    if steps.finished("training", made_from) and export_folder.versions(str(folders["export"])):
        return skip(folders["model"])
    # Anew, instead of finding itself done, where it was made from other things.
    steps.begin("training", made_from, folders["model"], folders["export"])
    run(
        "trainer.train",
        *_TRAIN_FLAGS,
        f"--dataset_dir={folders['dataset']}",
        f"--model_dir={folders['model']}",
        f"--export_dir={folders['export']}",
    )
    steps.finish("training", made_from)


def main(_: list[str]) -> None:
    started = time.monotonic()
    output_dir = pathlib.Path(_OUTPUT_DIR.value)
    folders = {name: output_dir / name for name in ("library", "dataset", "model", "export")}
    if bool(_AUDIO_DIR.value) != bool(_TRACKS_CSV.value):
        raise UserFacingError("AUDIO_DIR and TRACKS_CSV go together: give both, or neither")
    if _AUDIO_DIR.value:
        audio_dir, tracks_csv = pathlib.Path(_AUDIO_DIR.value), str(_TRACKS_CSV.value)
    else:
        step("1 of 4: a miniature FMA library")
        run("examples.miniature_library", f"--output_dir={folders['library']}")
        audio_dir = folders["library"] / "fma_small"
        tracks_csv = str(folders["library"] / "fma_metadata" / "tracks.csv")

    step("2 of 4: the dataset")
    steps = Steps(output_dir / "steps.json")
    make_dataset(steps, folders["dataset"], audio_dir=audio_dir, tracks_csv=tracks_csv)
    step("3 of 4: training")
    train(steps, folders)

    step("4 of 4: a prediction from the exported model")
    record = a_test_record(folders["dataset"])
    song = audio_dir / clip_path(record["track_id"])
    arguments = ["serving.predict", f"--export_dir={folders['export']}", str(song)]
    print(f"$ python -m {shlex.join(arguments)}", flush=True)
    result = subprocess.run(
        [sys.executable, "-m", *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    print(result.stdout, end="", flush=True)
    if result.returncode:
        raise UserFacingError(f"python -m serving.predict failed (exit code {result.returncode})")

    step(f"done in {time.monotonic() - started:.0f} s")
    table = summary(folders, record, json.loads(result.stdout))
    print(table)
    (output_dir / "summary.txt").write_text(table + "\n", encoding="utf-8")
    python = os.path.relpath(sys.executable)
    python = sys.executable if python.startswith("..") else python
    app = [python, "-m", "serving.app", f"--export_dir={folders['export']}", "--port=8080"]
    print(
        "\nTo hear a song and see what the model makes of it, run\n"
        f"$ {shlex.join(app)}\n"
        "and open http://127.0.0.1:8080/ in a browser."
    )


if __name__ == "__main__":
    command.run(main)
