r"""Evaluates the best epoch of a training run on a split of its dataset.

python -m trainer.evaluate --model_dir=model --dataset_dir=dataset --split=test
"""

from absl import flags

from common import command
from common.dataset_config import SPLITS
from common.errors import require

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "What trainer.train made.", required=True)
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "The split to evaluate on.")
_SKIP_DAMAGED = flags.DEFINE_bool(
    "skip_damaged", False, "Look for damaged records first, list them, evaluate without them."
)


def main(argv: list[str]) -> None:
    require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --split=test")
    dataset_dir, model_dir = _DATASET_DIR.value.rstrip("/"), _MODEL_DIR.value.rstrip("/")
    split = _SPLIT.value
    with command.kept_back_stderr():
        # Here, since a mistake in a flag should not wait for TensorFlow.
        from trainer.data import damaged_records
        from trainer.evaluation import metrics, report
        from trainer.run import (
            devices,
            input_importance,
            loop,
            model_folder,
            split_evaluation,
            warm_start,
        )
        from trainer.run.progress import Console
    pinned = model_folder.pinned_generations(model_dir)
    with damaged_records.open_dataset(
        dataset_dir, skip_damaged=_SKIP_DAMAGED.value, pinned=pinned
    ) as dataset:
        if _SKIP_DAMAGED.value:
            print(dataset.list_of_damaged())
        info, folder = dataset.info, dataset.folder
        config = model_folder.load_config(model_dir, info)
        trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
        model_folder.restore_best(model_dir, trainer.model)
        with damaged_records.named(info, folder):
            predictions = trainer.predict(folder, split)
            assert predictions is not None  # nobody asks it to stop
            importance = input_importance.measure(
                config,
                info,
                trainer.model.get_weights(),
                predictions,
                dataset_dir=folder,
                split=split,
                tell=Console().draft,
            )
            evaluation = split_evaluation.evaluate(
                config, info, predictions, dataset_dir=folder, split=split, importance=importance
            )
        Console().print(
            report.table(evaluation, split=split, num_artists=metrics.num_groups(predictions))
        )
        print(f"written: {model_folder.write_evaluation(model_dir, split, evaluation)}")
        page = split_evaluation.write_report(
            config,
            info,
            model_dir=model_dir,
            dataset_dir=folder,
            split=split,
            num_parameters=trainer.model.count_params(),
            predictions=predictions,
            evaluation=evaluation,
        )
    if (origin := model_folder.warm_start_of(model_dir)) is not None:
        print(warm_start.in_words(origin, config))
    print(f"report: {page}")


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
