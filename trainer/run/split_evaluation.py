"""The evaluation of a trained network on a split of its dataset, and the report on it."""

from collections.abc import Mapping

from common.dataset_info import DatasetInfo
from trainer.data import reader
from trainer.evaluation import boosting, metrics, report
from trainer.evaluation.metrics import Evaluation, Importance
from trainer.evaluation.predictions import Predictions
from trainer.model.input_encoder import inputs_of
from trainer.run import model_folder
from trainer.train_config import TrainConfig


def evaluate(
    config: TrainConfig,
    info: DatasetInfo,
    predictions: Predictions,
    *,
    dataset_dir: str,
    split: str,
    importance: Mapping[str, Importance] | None = None,
) -> Evaluation:
    """Evaluates predictions for a split beside the baselines of the dataset's training split.

    `importance` is that of the inputs, see `input_importance`.
    """
    num_classes = len(info.class_names)
    inputs = boosting.inputs_without_sound(inputs_of(config.network, info))
    features = [*inputs.category_features.values(), *inputs.number_features.values()]
    names = sorted({"genre", "label", *features})
    training = reader.read_columns(info, dataset_dir, "train", names)
    of_metadata = None
    if len(training["label"]):
        asked = reader.read_columns(info, dataset_dir, split, features)
        of_metadata = boosting.predict(inputs, training, asked, num_classes=num_classes)
    counts = metrics.counts_by_genre(training["genre"], training["label"], num_classes)
    return metrics.evaluate(
        predictions, counts, info.class_names, of_metadata=of_metadata, importance=importance
    )


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
        warm_start=model_folder.warm_start_of(model_dir),
    )
    return model_folder.write_report(model_dir, split, html)
