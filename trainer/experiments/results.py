"""The poster's table: our figures of its four networks beside the ones that it reports.

Every figure is read from the files that the training runs left.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import configs
from common import command, dataset_reader, export_folder, files, tables
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from trainer.evaluation import metrics, plots
from trainer.evaluation.epochs import best_epoch
from trainer.model.poster import reported_accuracy
from trainer.network_config import PosterConfig, color_name
from trainer.run import model_folder
from trainer.train_config import TrainConfig

NETWORKS = ("two_conv_mono", "four_conv_mono", "four_conv_rgb", "six_conv_rgb")

_SPLIT_IN_WORDS = {
    "track": "Tracks split at random, as the poster's were",
    "artist": "No artist in two splits",
    "official": "FMA's own split, which is by artist",
}
_NOTES = """\
The weights are those of the epoch (`best`) with the highest validation accuracy, or with
`config.keep=last` of the last. Training and validation accuracy are of that epoch, training's as it
was measured while it trained, with dropout.
The interval of the test accuracy is of 95 %, by a bootstrap over the artists of the test split.
Time is that of the training steps. The poster's figures are of fma_small, its tracks split at
random, with classes whose thresholds it does not print.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One of the training runs of the table.

    Attributes:
        network: the name of its config.
        config: as the flags make it.
        dataset_dir, info: what it is trained on.
        name: of its folder below the output.
        model_dir: that folder.
    """

    network: str
    config: TrainConfig
    dataset_dir: str
    info: DatasetInfo
    name: str
    model_dir: str

    @property
    def flags(self) -> list[str]:
        """The flags of `trainer.train` for this run, beside those that all runs share."""
        return [
            f"--config={config_path(self.network)}",
            f"--config.seed={self.config.seed}",
            f"--dataset_dir={self.dataset_dir}",
            f"--model_dir={self.model_dir}",
        ]

    def is_finished(self) -> bool:
        """Returns whether the export, which is written last, is there, of this config and dataset.

        Raises:
            UserFacingError: the folder holds another training.
        """
        model_folder.check(self.model_dir, self.config, self.info)
        exported = self._exported()
        return (
            exported is not None
            and exported["training"] == self.config.to_dict()
            and exported["dataset_fingerprint"] == self.info.fingerprint
        )

    def measured(self) -> dict[str, Any]:
        """Returns the figures of a finished run."""
        exported = self._exported()
        if exported is None:
            raise UserFacingError(f"{self.model_dir}: no export; train it to the end")
        history = model_folder.read_history(self.model_dir)
        best = history[best_epoch(history, self.config.keep) - 1]
        test = model_folder.read_evaluation(self.model_dir, "test")
        throughput = model_folder.read_throughput(self.model_dir)
        return {
            "seed": self.config.seed,
            "model_dir": self.name,
            "train_accuracy": best.accuracy,
            "validation_accuracy": best.validation_accuracy,
            "test_accuracy": test.accuracy,
            "test_accuracy_ci95": list(test.accuracy_ci95),
            "epochs": len(history),
            "best_epoch": best.epoch,
            "seconds": round(sum(each.seconds for each in throughput), 3),
            "parameters": exported["num_parameters"],
            "baselines": dataclasses.asdict(test.baselines),
        }

    def _exported(self) -> dict[str, Any] | None:
        """Returns the model_info.json of the newest export, None where there is none."""
        export_dir = f"{self.model_dir}/export"
        versions = export_folder.versions(export_dir)
        if not versions:
            return None
        newest = files.join(export_dir, str(versions[-1]))
        text = model_folder.read_text(newest, export_folder.INFO_FILE)
        return json.loads(text) if text else None


def config_path(network: str) -> str:
    return str(pathlib.Path(configs.__file__).with_name(f"{network}.py"))


def trainings_of(
    dataset_dirs: Sequence[str], output_dir: str, seeds: Sequence[int], train_flags: Sequence[str]
) -> list[Training]:
    """Lists the training runs of the table: for each dataset, network and seed.

    Args:
        dataset_dirs: one, or two of which the second has no artist in two splits.
        output_dir: where the trainings go.
        seeds: of the trainings.
        train_flags: that `trainer.train` is to be given for each.

    Raises:
        UserFacingError: a dataset has an empty split, the two are split alike, or the flags make no
            config.
    """
    infos = [dataset_reader.load_dataset_info(dataset_dir) for dataset_dir in dataset_dirs]
    for dataset_dir, info in zip(dataset_dirs, infos, strict=True):
        for name, split in info.splits.items():
            require(split.num_examples > 0, f"{dataset_dir}: the {name} split has no examples")
    for dataset_dir, info in zip(dataset_dirs[1:], infos[1:], strict=True):
        shared = info.split_check["artists_in_two_splits"]
        require(
            shared == 0,
            f"{dataset_dir}: {shared:,} artists are in two splits; --artist_dataset_dir is for a "
            "dataset of configs/dataset_artist.py",
        )
        require(
            info.split_check["by"] != infos[0].split_check["by"],
            f"{dataset_dir}: split by {info.split_check['by']}, as {dataset_dirs[0]} is",
        )
    trainings = []
    for dataset_dir, info in zip(dataset_dirs, infos, strict=True):
        for network in NETWORKS:
            for seed in seeds:
                flags = [*train_flags, f"--config.seed={seed}"]
                values = command.config_file_values(config_path(network), flags)
                name = f"{info.split_check['by']}/{network}/seed_{seed}"
                trainings.append(
                    Training(
                        network=network,
                        config=TrainConfig.from_dict(values),
                        dataset_dir=dataset_dir,
                        info=info,
                        name=name,
                        model_dir=f"{output_dir}/{name}",
                    )
                )
    return trainings


def gpus() -> list[str]:
    """Returns the GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    count = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]


def write(trainings: Sequence[Training], output_dir: str) -> str:
    """Writes `results.json`, `results.md` and `results.png`; returns the Markdown."""
    results = collect(trainings)
    text = markdown(results)
    model_folder.write_text(output_dir, "results.json", json.dumps(results, indent=2) + "\n")
    model_folder.write_text(output_dir, "results.md", text)
    model_folder.write_bytes(output_dir, "results.png", plots.beside_the_poster(results))
    return text


def collect(trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """Collects the figures of the table by dataset and network, as `results.json` has them."""
    found = []
    for fingerprint in dict.fromkeys(training.info.fingerprint for training in trainings):
        mine = [training for training in trainings if training.info.fingerprint == fingerprint]
        measured = [(training, training.measured()) for training in mine]
        info, baselines = mine[0].info, measured[0][1]["baselines"]
        networks = []
        for name in dict.fromkeys(training.network for training in mine):
            runs = [figures for training, figures in measured if training.network == name]
            config = next(t.config.network for t in mine if t.network == name)
            assert isinstance(config, PosterConfig)
            accuracies = [run["test_accuracy"] for run in runs]
            networks.append(
                {
                    "network": name,
                    "convolutions": config.convolutions,
                    "color": config.color,
                    "parameters": runs[0]["parameters"],
                    "poster_accuracy": reported_accuracy(config),
                    "mean_test_accuracy": float(np.mean(accuracies)),
                    "std_test_accuracy": float(np.std(accuracies, ddof=1)) if runs[1:] else None,
                    "trainings": [
                        {k: v for k, v in run.items() if k not in ("parameters", "baselines")}
                        for run in runs
                    ],
                }
            )
        found.append(
            {
                "fingerprint": fingerprint,
                "split_by": info.split_check["by"],
                "artists_in_two_splits": info.split_check["artists_in_two_splits"],
                "num_examples": {name: split.num_examples for name, split in info.splits.items()},
                "test_artists": info.splits["test"].num_artists,
                "baselines": baselines,
                "networks": networks,
            }
        )
    return found


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Formats what `collect` returns as tables."""
    parts = ["# The poster's table\n", *map(_of_dataset, results)]
    if len(results) == 2:
        parts.append(_what_the_split_hides(*results))
    return "\n".join([*parts, _NOTES])


def split_in_words(of_dataset: dict[str, Any]) -> str:
    by = of_dataset["split_by"]
    return _SPLIT_IN_WORDS.get(by, f"Split by {by}")


def network_in_words(network: dict[str, Any]) -> str:
    """Returns a name such as `4-conv mono`."""
    color = color_name(network["color"])
    return f"{network['convolutions']}-conv {color}"


def _of_dataset(of_dataset: dict[str, Any]) -> str:
    sizes, baselines = of_dataset["num_examples"], of_dataset["baselines"]
    artists = of_dataset["artists_in_two_splits"]
    heard = f"{artists:,} artist{'s are' if artists != 1 else ' is'}" if artists else "no artist is"
    few = of_dataset["test_artists"] < metrics.FEW_GROUPS
    header = (
        "network",
        "parameters",
        "seed",
        "training",
        "validation",
        "test",
        "95 %",
        "poster",
        "epochs",
        "best",
        "time",
    )
    rows = [row for network in of_dataset["networks"] for row in _rows(network)]
    return "\n".join(
        [
            f"## {split_in_words(of_dataset)} (`split_by={of_dataset['split_by']}`)\n",
            f"{sizes['train']:,} clips for training, {sizes['validation']:,} for validation, "
            f"{sizes['test']:,} of {of_dataset['test_artists']:,} artists in the test; {heard} in "
            f"two splits. Without listening: {tables.percent(baselines['majority'])} by the "
            f"majority class, {tables.percent(baselines['genre'])} by the genre alone."
            + " With so few artists the intervals may be too narrow." * few
            + "\n",
            tables.markdown(header, rows),
        ]
    )


def _rows(network: dict[str, Any]) -> list[tuple[str, ...]]:
    """Formats a row for each run, and one for their mean where there are several."""
    name, parameters = network_in_words(network), f"{network['parameters']:,}"
    poster = network["poster_accuracy"]
    reported = "" if poster is None else f"{100 * poster:.0f} %"
    trainings = network["trainings"]
    rows: list[tuple[str, ...]] = [
        (
            name,
            parameters,
            str(run["seed"]),
            tables.percent(run["train_accuracy"]),
            tables.percent(run["validation_accuracy"]),
            tables.percent(run["test_accuracy"]),
            " to ".join(f"{100 * bound:.1f}" for bound in run["test_accuracy_ci95"]),
            reported,
            str(run["epochs"]),
            str(run["best_epoch"]),
            tables.duration(run["seconds"]),
        )
        for run in trainings
    ]
    if len(trainings) > 1:
        means = {
            key: float(np.mean([run[key] for run in trainings]))
            for key in ("train_accuracy", "validation_accuracy", "seconds")
        }
        spread = f" ± {100 * network['std_test_accuracy']:.1f}"
        rows.append(
            (
                name,
                parameters,
                f"mean of {len(trainings)}",
                tables.percent(means["train_accuracy"]),
                tables.percent(means["validation_accuracy"]),
                f"{100 * network['mean_test_accuracy']:.1f}{spread} %",
                "",
                reported,
                "",
                "",
                tables.duration(means["seconds"]),
            )
        )
    return rows


def _what_the_split_hides(first: dict[str, Any], second: dict[str, Any]) -> str:
    rows = []
    for ours, other in zip(first["networks"], second["networks"], strict=True):
        known, unknown = ours["mean_test_accuracy"], other["mean_test_accuracy"]
        difference = f"{100 * (unknown - known):+.1f}"
        rows.append(
            (network_in_words(ours), tables.percent(known), tables.percent(unknown), difference)
        )
    random = first["split_by"] == "track"
    header = ("network", *(f"split by {each['split_by']}" for each in (first, second)))
    return "\n".join(
        [
            f"## {'What the random split hides' if random else 'The two splits'}\n",
            "Test accuracy, and the difference in percentage points.\n",
            tables.markdown((*header, "difference"), rows),
        ]
    )
