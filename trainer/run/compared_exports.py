"""Two exports and the split that both are asked about: whether they can be compared at all."""

import dataclasses

from common import dataset_reader, export_folder, files
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from common.generations import generation_of
from common.model_info import ModelInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """A version or a candidate: its folder, and what its `model_info.json` says."""

    path: str
    info: ModelInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedExports:
    """Champion and challenger, and what they are asked about.

    Attributes:
        champion, challenger: the exports.
        dataset_dir: where the dataset lies.
        info: of all its generations that are there now.
        split: the name of its split.
        notes: what a person should know about the comparison.
    """

    champion: Export
    challenger: Export
    dataset_dir: str
    info: DatasetInfo
    split: str
    notes: tuple[str, ...]


def open_both(
    champion: str,
    challenger: str,
    *,
    dataset_dir: str,
    split: str,
    info: DatasetInfo | None = None,
) -> ComparedExports:
    """Reads what the exports and the dataset say of themselves, without TensorFlow.

    Args:
        champion, challenger: versions or candidates.
        dataset_dir: where the dataset lies.
        split: that both are asked about.
        info: of the dataset; of all its generations that are there now unless given.

    Raises:
        UserFacingError: an export or the dataset is missing or not whole, the split has no
            examples, or the three differ in their classes or in how pictures are made.
    """
    exports = [open_export(path, flag=flag) for flag, path in (
        ("champion", champion), ("challenger", challenger)
    )]  # fmt: skip
    if info is None:
        info = dataset_reader.load_dataset_info(dataset_dir, check_shards_of=(split,))
    for export in exports:
        for other, names in ((exports[0].path, exports[0].info.class_names),
                             (dataset_dir, info.class_names)):  # fmt: skip
            require(
                export.info.class_names == names,
                f"{export.path}: its classes are {', '.join(export.info.class_names)}, those of "
                f"{other} are {', '.join(names)}; only models of the same classes can be compared",
            )
        require(
            export.info.signal == info.config.spectrogram,
            f"{dataset_dir}: its pictures are not made as those that {export.path} was trained on "
            "(config.spectrogram); take the dataset of that model",
        )
    require(
        info.splits[split].num_examples > 0,
        f"{dataset_dir}: the split {split} has no examples to compare on; --split names another",
    )
    notes = []
    for export in exports:
        if not _is_of(export.info, info, dataset_dir):
            notes.append(
                f"{export.path} was trained on another dataset, perhaps on clips that are asked "
                "about here"
            )
        if export.info.thresholds != info.thresholds:
            notes.append(f"{export.path} was trained with other thresholds between the classes")
    return ComparedExports(
        champion=exports[0],
        challenger=exports[1],
        dataset_dir=dataset_dir,
        info=info,
        split=split,
        notes=tuple(notes),
    )


def rows_of_newest(info: DatasetInfo, split: str) -> tuple[int, slice] | None:
    """Returns the newest generation that has records of a split, and which of its rows they are.

    The rows are in the stored order. None where all of them are of one generation.
    """
    counts: dict[int, int] = {}
    for shard in info.splits[split].shards:
        generation = generation_of(shard.file)
        labelled = shard.num_examples - shard.unlabelled
        counts[generation] = counts.get(generation, 0) + labelled
    filled = [generation for generation, count in counts.items() if count]
    if len(filled) < 2:
        return None
    newest = max(filled)
    before = list(counts)[: list(counts).index(newest)]
    start = sum(counts[generation] for generation in before)
    return newest, slice(start, start + counts[newest])


def open_export(path: str, *, flag: str) -> Export:
    """Reads what an export says of itself; UserFacingError, naming the flag, where it is none."""
    if not export_folder.holds_model(path):
        problem = "no exported model"
        if versions := export_folder.versions(path):
            problem = (
                f"a folder of versions; name one, such as {files.join(path, str(versions[-1]))}"
            )
        elif versions := export_folder.versions(path.rpartition("/")[0] or "."):
            problem = f"no such version; there are {', '.join(map(str, versions))}"
        raise UserFacingError(f"--{flag}={path}: {problem}")
    return Export(path=path, info=export_folder.load_info(path))


def _is_of(model: ModelInfo, info: DatasetInfo, dataset_dir: str) -> bool:
    """Whether a model was trained on the dataset, or on some of its generations."""
    if model.dataset_fingerprint == info.fingerprint:
        return True
    return dataset_reader.load_trained_on(dataset_dir, model, check_shards_of=()) is not None
