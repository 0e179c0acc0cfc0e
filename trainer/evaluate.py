r"""Evaluates the best epoch of a training on a split of its dataset.

python -m trainer.evaluate --model_dir=model --dataset_dir=dataset --split=test
"""

from absl import flags

from beam_pipelines import command
from beam_pipelines.dataset_config import SPLITS

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "What trainer.train made.", required=True)
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "The split to evaluate on.")


def main(argv: list[str]) -> None:
    command.require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --split=test")
    dataset_dir, model_dir = _DATASET_DIR.value.rstrip("/"), _MODEL_DIR.value.rstrip("/")
    split = _SPLIT.value
    with command.kept_back_stderr():
        # Here, since a mistake in a flag should not wait for TensorFlow.
        from trainer import (
            damaged_records,
            dataset,
            devices,
            evaluation,
            loop,
            model_folder,
            report,
        )
    info = dataset.load_info(dataset_dir)
    config = model_folder.load_config(model_dir, info)
    trainer = loop.Trainer(config, info, devices.strategy_for("one_device"))
    model_folder.restore_best(model_dir, trainer.model)
    with damaged_records.named(info, dataset_dir):
        answers = trainer.predictions(dataset_dir, split)
        training = dataset.read_columns(info, dataset_dir, "train", ["label", "genre"])
    measured = evaluation.evaluate(answers, training, info.class_names)
    print(report.table(measured, split=split, num_artists=evaluation.num_groups(answers)))
    print(f"written: {model_folder.write_evaluation(model_dir, split, measured)}")
    page = report.write(
        trainer,
        model_dir=model_dir,
        dataset_dir=dataset_dir,
        split=split,
        predictions=answers,
        measured=measured,
    )
    print(f"report: {page}")


if __name__ == "__main__":
    command.run(main)
