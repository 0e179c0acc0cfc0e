r"""Evaluates the best epoch of a training on a split of its dataset.

python -m trainer.evaluate --model_dir=model --dataset_dir=dataset --split=test
"""

from absl import flags

from beam_pipelines import command
from beam_pipelines.dataset_config import SPLITS
from trainer import dataset, evaluation, loop, model_folder

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "What trainer.train made.", required=True)
_DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "Where build_dataset put the dataset.", required=True
)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "The split to evaluate on.")


def main(argv: list[str]) -> None:
    command.require(len(argv) == 1, f"{' '.join(argv[1:])}: flags only, such as --split=test")
    dataset_dir, model_dir = _DATASET_DIR.value.rstrip("/"), _MODEL_DIR.value.rstrip("/")
    split = _SPLIT.value
    info = dataset.load_info(dataset_dir)
    config = model_folder.load_config(model_dir, info)
    trainer = loop.Trainer(config, info, loop.strategy_for("one_device"))
    model_folder.restore_best(model_dir, trainer.model)
    with dataset.damage_named(dataset_dir):
        answers = trainer.predictions(dataset_dir, split)
        training = dataset.read_columns(info, dataset_dir, "train", ["label", "genre"])
    measured = evaluation.evaluate(answers, training, info.class_names)
    num_artists = info.splits[split].num_artists
    print(evaluation.table(measured, split=split, num_artists=num_artists))
    print(f"written: {model_folder.write_evaluation(model_dir, split, measured)}")


if __name__ == "__main__":
    command.run(main)
