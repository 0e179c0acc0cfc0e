"""What exports answer about the records of a split, asked as TensorFlow Serving would ask them."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, one_line
from trainer.data import damaged_records, reader
from trainer.evaluation.predictions import Predictions
from trainer.run.compared_exports import ComparedExports, Export

_BATCH = 64
_SIGNATURE = "examples"
# By how much the probabilities of an answer may miss 1 in all.
_TOLERANCE = 1e-3


def ask_both(compared: ComparedExports) -> tuple[Predictions, Predictions]:
    """Asks champion and challenger, one after the other, about every record.

    Raises:
        UserFacingError: an export can't be loaded or asked, or answers with what are no
            probabilities; a record is damaged.
    """
    champion, challenger = ask(
        (compared.champion, compared.challenger),
        compared.info,
        dataset_dir=compared.dataset_dir,
        split=compared.split,
    )
    return champion, challenger


def ask(
    exports: Sequence[Export], info: DatasetInfo, *, dataset_dir: str, split: str
) -> list[Predictions]:
    """Asks exports, one after the other, about every record of a split; raises as `ask_both`."""
    with damaged_records.named(info, dataset_dir):
        columns = reader.read_columns(info, dataset_dir, split, Predictions.columns())
        return [
            Predictions(
                probabilities=probabilities_of(
                    export, reader.read_records(info, dataset_dir, split)
                ),
                **columns,
            )
            for export in exports
        ]


def probabilities_of(export: Export, records: tf.data.Dataset) -> NDArray[np.float32]:
    """Returns the probabilities float32 [examples, classes] for serialized records, in order."""
    try:
        # By a name of its own, since what was loaded goes when nothing refers to it.
        loaded = tf.saved_model.load(export.path)
        signature = loaded.signatures[_SIGNATURE]
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        problem = one_line(error, at_most=200)
        raise UserFacingError(
            f"{export.path}: can't be asked by the signature {_SIGNATURE} ({problem})"
        ) from None
    parts = []
    for batch in records.batch(_BATCH):
        try:
            parts.append(signature(examples=batch)["probabilities"].numpy())
        except (KeyError, TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            problem = one_line(error, at_most=200)
            raise UserFacingError(f"{export.path}: can't answer ({problem})") from None
    answers: NDArray[np.float32] = np.concatenate(parts)
    check_answers(answers, export=export)
    return answers


def check_answers(answers: NDArray[np.float32], *, export: Export) -> None:
    """Raises UserFacingError unless each row of answers is probabilities of the classes."""
    classes = len(export.info.class_names)
    if answers.ndim != 2 or answers.shape[1] != classes:
        raise UserFacingError(f"{export.path}: answers {answers.shape}, not {classes} classes")
    off = np.abs(answers.sum(axis=1, dtype=np.float64) - 1)
    is_wrong = ~((off <= _TOLERANCE) & (answers >= 0).all(axis=1))
    if is_wrong.any():
        raise UserFacingError(
            f"{export.path}: {is_wrong.sum():,} of {len(answers):,} answers are no probabilities, "
            f"such as {answers[is_wrong][0].tolist()}; it can't be released"
        )
