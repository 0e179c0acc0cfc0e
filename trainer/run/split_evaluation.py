"""The evaluation of a trained network on a split of its dataset, and the report on it."""

from common.dataset_info import DatasetInfo
from trainer.data import reader
from trainer.evaluation import metrics, report
from trainer.evaluation.metrics import Evaluation
from trainer.evaluation.predictions import Predictions
from trainer.run import model_folder
from trainer.train_config import TrainConfig


def evaluate(info: DatasetInfo, predictions: Predictions, *, dataset_dir: str) -> Evaluation:
    """Evaluates predictions beside the baselines of the dataset's training split."""
    training_counts = reader.count_labels_by_genre(info, dataset_dir, "train")
    return metrics.evaluate(predictions, training_counts, info.class_names)


def write_report(
    config: TrainConfig,
    info: DatasetInfo,
    *,
    model_dir: str,
    dataset_dir: str,
    split: str,
    num_parameters: int,
    predictions: Predictions | None,
    evaluation: Evaluation | None,
) -> str:
    """Writes the report on a split into the model folder and returns the path of the page.

    Args:
        config: of the training run.
        info: of the dataset.
        model_dir: where the history of the run lies.
        dataset_dir: where the spectrograms of the surest mistakes lie.
        split: that was evaluated.
        num_parameters: of the network.
        predictions, evaluation: of the split, None and None where it has no examples.
    """
    pictures = []
    if predictions is not None:
        pictures = report.pictures_of_mistakes(info, dataset_dir, split, predictions)
    html = report.page(
        config=config,
        info=info,
        num_parameters=num_parameters,
        history=model_folder.read_history(model_dir),
        split=split,
        predictions=predictions,
        evaluation=evaluation,
        pictures=pictures,
    )
    return model_folder.write_report(model_dir, split, html)
