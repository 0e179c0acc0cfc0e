"""An update: what is new is tested, then trained on, and the model it gives is judged.

Each step leaves a file in the update's folder (see `plan`), and whoever goes on after a kill begins
behind the last one that is there. The candidate has the update's id for its name, and a version
that was released has it in its `model_info.json`, so that what was done is not done again.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common import dataset_reader, export_folder, files
from common.dataset_info import DatasetInfo, Split
from common.errors import UserFacingError
from trainer.continuous import candidate, drift, observed, plan, replay
from trainer.continuous.drift import Drift
from trainer.continuous.plan import Plan
from trainer.continuous.workers import Workers
from trainer.data import damaged_records, reader, sample
from trainer.evaluation import comparison, gate_report, metrics
from trainer.evaluation.predictions import Predictions
from trainer.follow_config import FollowConfig
from trainer.model import export
from trainer.run import (
    compared_exports,
    devices,
    exported_answers,
    gate,
    model_folder,
    warm_start,
)
from trainer.run.loop import Diverged, Trainer
from trainer.run.progress import Console
from trainer.run.session import Session
from trainer.train_config import TrainConfig

BEFORE_FILE = "before.json"
# Of the old clips that drift is told from, at most so many.
_MOST_OLD_CLIPS = 1_000
# The generations before, whose accuracy that on the new one is compared with.
_GENERATIONS_BEFORE = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """An update and where it is done.

    Attributes:
        plan: what it is to do.
        config: of a training from new weights.
        follow: how an update differs from one.
        dataset_dir, model_dir, export_dir: the folders.
        workers: with which it trains.
        stop_asked: whether it has been asked to stop.
        before: what came of the updates before it.
        dry_run: whether a candidate that passes is set aside instead of released.
    """

    plan: Plan
    config: TrainConfig
    follow: FollowConfig
    dataset_dir: str
    model_dir: str
    export_dir: str
    workers: Workers
    stop_asked: Callable[[], bool]
    before: Sequence[dict[str, Any]]
    dry_run: bool = False

    @property
    def folder(self) -> str:
        return plan.folder_of(self.model_dir, self.plan.update)

    # ---- all of it

    def run(self) -> dict[str, Any] | None:
        """Does what is left of the update.

        Returns:
            what `update.json` says; None where it was asked to stop.

        Raises:
            UserFacingError: something the user gave does not fit, or is damaged.
        """
        info = dataset_reader.load_dataset_info(self.dataset_dir, pinned=self.plan.generations)
        with damaged_records.named(info, self.dataset_dir):
            tested = self._test_before_training(info)
        outcome = self._train_and_judge(info)
        if outcome is None:
            return None
        done = dataclasses.asdict(self.plan) | tested | outcome
        plan.write(self.folder, plan.DONE_FILE, done)
        if done["outcome"] == plan.DIVERGED:
            # Only now: until it is done, whoever goes on after a kill trains with these files.
            self._clear()
        return done

    # ---- before training

    def _test_before_training(self, info: DatasetInfo) -> dict[str, Any]:
        """Asks the models about clips that none was trained on, and looks for drift."""
        found = plan.read(self.folder, BEFORE_FILE)
        if found is not None:
            return found
        found = {"prequential": [], "drift": []}
        if self.plan.starts_from is not None:
            found = self._tested(info, self.plan.starts_from)
        plan.write(self.folder, BEFORE_FILE, found)
        return found

    def _tested(self, info: DatasetInfo, starts_from: str) -> dict[str, Any]:
        names = {"follow": starts_from, "served": self.plan.served, "first": self.plan.first}
        named = {model: name for model, name in names.items() if name is not None}
        exports = {name: self._export(name) for name in dict.fromkeys(named.values())}
        lines, answers = [], []
        for generation in self.plan.new:
            of_it = replay.in_one_split(replay.only(info, {generation}), "test")
            if not of_it.splits["test"].num_examples:
                continue
            predictions = dict(
                zip(
                    exports,
                    exported_answers.ask(
                        list(exports.values()), of_it, dataset_dir=self.dataset_dir, split="test"
                    ),
                    strict=True,
                )
            )
            present = predictions[starts_from]
            answers.append(present)
            models = {
                model: {"export": name} | _scores(predictions[name])
                for model, name in named.items()
            }
            lines.append(
                {
                    "update": self.plan.update,
                    "generation": generation,
                    "num_examples": present.num_examples,
                    "num_artists": metrics.num_groups(present),
                    "models": models,
                }
            )
        found = [] if not lines else self._drifts(info, lines, answers, exports[starts_from])
        return {"prequential": lines, "drift": [each.to_dict() for each in found]}

    def _drifts(
        self,
        info: DatasetInfo,
        lines: Sequence[dict[str, Any]],
        answers: Sequence[Predictions],
        present: compared_exports.Export,
    ) -> list[Drift]:
        trained_on = set(self.plan.generations) - set(self.plan.new)
        before = dataset_reader.load_dataset_info(
            self.dataset_dir, check_shards_of=(), pinned=sorted(trained_on)
        )
        old, new = replay.only(info, trained_on), replay.only(info, self.plan.new)
        fresh = replay.in_one_split(new, "test")
        seen = observed.observe(info, reader.read_records(fresh, self.dataset_dir, "test"))
        sample = self._drawn(info, [old.splits["train"]], 10)
        found = list(observed.compare(observed.observe(info, sample), seen, self.follow))
        # Of the old classes all are counted, in the manifests.
        labels = np.concatenate([each.label for each in answers])
        found.append(
            drift.of_counts(
                _counts(before, ("train",)),
                np.bincount(labels, minlength=len(info.class_names)),
                what="label",
                name="class",
                artists=(before.splits["train"].num_artists, seen.artists),
                threshold=self.follow.drift_js,
            )
        )
        # A network is surer of what it was trained on, so its answers are compared with others.
        held = self._drawn(info, [old.splits["validation"], old.splits["test"]], 11)
        if len(held):
            found += observed.compare_answers(
                exported_answers.probabilities_of(present, held),
                np.concatenate([each.probabilities for each in answers]),
                artists=(observed.observe(info, held).artists, seen.artists),
                limits=self.follow,
            )
        earlier = [_accuracy(line) for done in self.before for line in done["prequential"]]
        for line in lines:
            dropped = drift.of_accuracy(
                earlier[-_GENERATIONS_BEFORE:],
                _accuracy(line),
                threshold=self.follow.drift_accuracy,
            )
            found += [] if dropped is None else [dropped]
            earlier.append(_accuracy(line))
        return found

    def _drawn(self, info: DatasetInfo, splits: Sequence[Split], number: int) -> tf.data.Dataset:
        """Draws old records, as many as drift is told from."""
        records = sample.draw(
            info,
            sample.together(splits),
            self.dataset_dir,
            size=_MOST_OLD_CLIPS,
            seed=(self.config.seed, self.plan.update, number),
        )
        return tf.data.Dataset.from_tensor_slices(tf.constant(list(records), tf.string))

    # ---- training

    def _train_and_judge(self, info: DatasetInfo) -> dict[str, Any] | None:
        described = self._described(info)
        if not described["clips"]["new"]:
            return described | _outcome(plan.NOTHING, None)
        ended = self._ended()
        if ended is None:
            try:
                if not self._has_candidate() and not self._train(info):
                    return None
                ended = self._judge(info)
            except Diverged as error:
                if self.plan.starts_from is None:
                    raise
                return described | _outcome(plan.DIVERGED, None, [str(error)])
            except export.NotVerified:
                return None
        self._clear()
        return described | ended

    def _is_first(self) -> bool:
        return self.plan.starts_from is None

    def _config(self) -> TrainConfig:
        if self._is_first():
            return dataclasses.replace(self.config, shrink_perturb=(1.0, 0.0))
        return self.follow.of_update(self.config, number=self.plan.update)

    def _described(self, info: DatasetInfo) -> dict[str, Any]:
        """Says what it trains on, and in how many steps."""
        new = info if self._is_first() else replay.only(info, self.plan.new)
        count, old = new.splits["train"].num_examples, 0
        if not self._is_first() and count:
            old = self._clips(info).splits["train"].num_examples - count
        config = self._config()
        return {
            "clips": {"new": count, "old": old},
            "epochs": config.epochs,
            "steps": config.epochs * -(-(count + old) // config.batch_size) if count else 0,
        }

    def _clips(self, info: DatasetInfo) -> DatasetInfo:
        """Returns what is trained and tested on."""
        if self._is_first():
            return info
        newest = self.follow.test_generations
        return replay.mix(
            info,
            new=self.plan.new,
            share=self.follow.replay,
            dataset_dir=self.dataset_dir,
            folder=self.folder,
            seed=self._config().seed,
            test=self.plan.generations[-newest:] if newest else (),
        )

    def _train(self, info: DatasetInfo) -> bool:
        """Trains, evaluates and writes the candidate; returns whether it came to the end."""
        with self.workers.training(self.plan.update):
            session = self._trained(info)
        if session is None or self.stop_asked():
            return False
        # What a kill has left of it.
        files.delete_folder(files.join(self.export_dir, self._candidate))
        trained_on = self._described(info)["clips"]
        made_by = {"number": self.plan.update, "id": self.plan.id, "clips": trained_on}
        origin: dict[str, Any] = {"update": made_by}
        if session.origin is not None:
            origin["init_from"] = session.origin
        export.write_candidate(
            session.trainer.model.get_weights(),
            self._config(),
            info,
            None if session.evaluation is None else session.evaluation.to_dict(),
            self.export_dir,
            dataset_dir=self.dataset_dir,
            origin=origin,
            name=self._candidate,
        )
        return True

    def train_with_chief(self) -> None:
        """Does the share of another worker in the training, which the chief has prepared."""
        self._trained(
            dataset_reader.load_dataset_info(self.dataset_dir, pinned=self.plan.generations)
        )

    def _trained(self, info: DatasetInfo) -> Session | None:
        """Trains and evaluates, with all workers; returns None where one was asked to stop."""
        config, clips = self._config(), self._clips(info)
        starts_from, strategy = self.plan.starts_from, self.workers.strategy
        begins_with = warm_start.of_training(
            None if starts_from is None else files.join(self.export_dir, starts_from),
            reset_head=False,
            model_dir=self.folder,
            config=config,
            info=clips,
        )
        model_folder.check(self.folder, config, clips)
        keras.backend.clear_session()
        keras.utils.set_random_seed(config.seed)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        session = Session(
            Trainer(config, clips, strategy),
            dataset_dir=self.dataset_dir,
            model_dir=self.folder,
            stop_asked=self.stop_asked,
            console=Console(silent=not devices.is_chief(strategy)),
            begins_with=begins_with,
        )
        with damaged_records.named(clips, self.dataset_dir):
            session.open()
            return session if session.run_epochs() and session.evaluate() else None

    # ---- what becomes of the candidate

    @property
    def _candidate(self) -> str:
        return candidate.name_of(self.plan.id)

    @property
    def _aside(self) -> str:
        return candidate.aside_of(self.plan.id)

    def _has_candidate(self) -> bool:
        # The last file that is written of it.
        return self._has(f"{self._candidate}/{export_folder.WARM_UP_FILE}")

    def _has(self, name: str) -> bool:
        return files.exists(files.join(self.export_dir, name))

    def _ended(self) -> dict[str, Any] | None:
        """Returns what a run that was killed has made of the candidate, None if nothing yet."""
        version = candidate.version_of(self.export_dir, self.plan.id, served=self.plan.served)
        if version is not None:
            files.delete_folder(files.join(self.export_dir, self._candidate))
            return _outcome(plan.RELEASED, version)
        if export_folder.holds_model(files.join(self.export_dir, self._aside)):
            files.delete_folder(files.join(self.export_dir, self._candidate))
            return self._set_aside()
        return None

    def _set_aside(self) -> dict[str, Any]:
        found = plan.read(self.folder, gate_report.JSON_FILE) or {"would_be_released": True}
        if not found["would_be_released"]:
            return _outcome(plan.SET_ASIDE, self._aside, found["reasons"])
        report = plan.read(files.join(self.export_dir, self._aside), export_folder.REPORT_FILE)
        if report is not None and report["passed"]:
            return _outcome(plan.DRY_RUN, self._aside)
        reasons = [] if report is None else [str(report.get("problem"))]
        return _outcome(plan.NOT_VERIFIED, self._aside, reasons)

    def _judge(self, info: DatasetInfo) -> dict[str, Any]:
        """Releases the candidate as the next version, or sets it aside."""
        versions = export_folder.versions(self.export_dir)
        if versions:
            report = self._compared(info, champion=str(versions[-1]))
            if not report["would_be_released"]:
                self._put_aside()
                return self._set_aside()
        try:
            path = export.verify_and_release(
                self._candidate,
                self.export_dir,
                self.dataset_dir,
                release=not self.dry_run,
                stop_asked=self.stop_asked,
            )
        except UserFacingError:
            if not export_folder.holds_model(files.join(self.export_dir, self._aside)):
                raise  # it was not the candidate's fault
            return self._set_aside()
        if self.dry_run:
            self._put_aside()
            return self._set_aside()
        return _outcome(plan.RELEASED, path.rpartition("/")[2])

    def _compared(self, info: DatasetInfo, *, champion: str) -> dict[str, Any]:
        """Returns what `gate.json` says, of a comparison that was made before or is made now."""
        path = files.join(self.export_dir, champion)
        found = plan.read(self.folder, gate_report.JSON_FILE)
        if found is not None and found["champion"]["path"] == path:
            return found
        compared = compared_exports.open_both(
            path,
            files.join(self.export_dir, self._candidate),
            dataset_dir=self.dataset_dir,
            split="test",
            info=self._clips(info),
        )
        margins = comparison.Margins(
            log_loss=self.follow.margin_log_loss, macro_f1=self.follow.margin_macro_f1
        )
        report = gate.compare(compared, margins=margins)
        gate.write(report, self.folder)
        return gate_report.to_dict(report)

    def _put_aside(self) -> None:
        path = files.join(self.export_dir, self._candidate)
        for name in (gate_report.PAGE_FILE, gate_report.JSON_FILE):
            judged = files.join(self.folder, name)
            if files.exists(judged):  # the first model of all is compared with none
                data = files.read_bytes(judged)
                export_folder.write_extra(path, f"assets.extra/{name}", data)
        export_folder.refuse(self.export_dir, self._candidate)

    def _clear(self) -> None:
        """Removes what only a training needs: the export has the weights."""
        for name in ("checkpoints", "best"):
            files.delete_folder(files.join(self.folder, name))
        files.delete(self.folder, replay.FILES.values())

    def _export(self, name: str) -> compared_exports.Export:
        return compared_exports.open_export(files.join(self.export_dir, name), flag="export_dir")


def _outcome(outcome: str, export_name: str | None, reasons: Sequence[str] = ()) -> dict[str, Any]:
    return {"outcome": outcome, "export": export_name, "reasons": list(reasons)}


def _counts(info: DatasetInfo, splits: Iterable[str]) -> NDArray[Any]:
    """Counts the clips of each class in some splits, int [classes]."""
    return np.array(
        [sum(info.splits[s].class_counts.get(c, 0) for s in splits) for c in info.class_names]
    )


def _scores(predictions: Predictions) -> dict[str, Any]:
    scores = dataclasses.asdict(metrics.scores_of(predictions))
    del scores["num_examples"]
    return scores | {"accuracy_ci95": list(scores["accuracy_ci95"])}


def _accuracy(line: dict[str, Any]) -> tuple[float, int]:
    return line["models"]["follow"]["accuracy"], line["num_artists"]
