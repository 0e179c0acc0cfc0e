"""A model that follows a dataset: which update is next, and what is told of those that are done."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from common import dataset_reader, export_folder, files, tables
from common.errors import require
from trainer.continuous import plan
from trainer.continuous.plan import Plan

HISTORY_FILE, CURVE_FILE = "prequential.jsonl", "prequential.png"


def next_plan(
    done: Sequence[dict[str, Any]],
    *,
    dataset_dir: str,
    model_dir: str,
    export_dir: str,
    every_generations: int,
) -> Plan | None:
    """Returns what the next update is to do; None while there is nothing new to train on.

    An update that has begun is gone on with. Else it takes the oldest generations that are new,
    always as many, so that what an update is does not depend on when anybody looked.

    Args:
        done: what came of the updates before it.
        dataset_dir, model_dir, export_dir: the folders.
        every_generations: how many new ones an update takes.

    Raises:
        UserFacingError: the dataset is not whole; or the version that is served was trained on
            another one.
    """
    number = len(done) + 1
    begun = plan.begun(model_dir, number)
    if begun is not None:
        return begun
    versions = export_folder.versions(export_dir)
    served = str(versions[-1]) if versions else None
    manifests = plan.manifests_there(dataset_dir)
    starts_from = first = served
    trained_on: Sequence[int] = ()
    listed: Sequence[int]
    new: Sequence[int] = ()
    if done:
        first = done[0]["first"] or done[0]["export"]
        trained_on = done[-1]["generations"]
        models = [each["export"] or each["starts_from"] for each in done]
        starts_from = _if_there(export_dir, models[-1]) or served
        first = _if_there(export_dir, first)
    elif served is not None:
        trained_on = _trained_on(files.join(export_dir, served), dataset_dir)
    if starts_from is None:
        # The first model is trained on all that there is.
        info = dataset_reader.load_dataset_info(dataset_dir, check_shards_of=())
        if not info.splits["train"].num_examples:
            return None
        listed = info.generations or (0,)
    else:
        old, new = plan.next_generations(manifests, plan.seen_of(manifests, trained_on))
        new = new[:every_generations]
        if len(new) < every_generations:
            return None
        listed = tuple(sorted((*old, *new)))
    return Plan(
        update=number,
        id=uuid.uuid4().hex,
        generations=tuple(listed),
        new=tuple(new),
        starts_from=starts_from,
        served=served,
        first=first,
    )


def begin_next(done: Sequence[dict[str, Any]], *, model_dir: str, **where: Any) -> Plan | None:
    """Writes the plan of the next update into its folder, and returns it; see `next_plan`."""
    planned = next_plan(done, model_dir=model_dir, **where)
    if planned is not None:
        folder = plan.folder_of(model_dir, planned.update)
        files.make_folder(folder)
        files.write_atomically(folder, plan.PLAN_FILE, planned.to_json().encode())
    return planned


def _if_there(export_dir: str, name: str | None) -> str | None:
    """Returns the name of an export, None if somebody has removed it."""
    if name is None or not export_folder.holds_model(files.join(export_dir, name)):
        return None
    return name


def _trained_on(export: str, dataset_dir: str) -> tuple[int, ...]:
    """Returns the generations that a version was trained on, which must be of the dataset."""
    model = export_folder.load_info(export)
    pinned = model.dataset_generations or (0,)
    info = dataset_reader.load_dataset_info(dataset_dir, check_shards_of=(), pinned=pinned)
    require(
        info.fingerprint == model.dataset_fingerprint,
        f"{export}: trained on another dataset than {dataset_dir}, so nobody knows which of its "
        "generations are new to it; take another --export_dir",
    )
    return pinned


# ---- what is told


def history(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines of all updates, one for each generation that was tested."""
    return [
        line
        | {"drift": [each for each in update["drift"] if each["alarms"]]}
        | {name: update[name] for name in ("outcome", "override") if name in update}
        for update in done
        for line in update["prequential"]
    ]


def write_history(model_dir: str, done: Sequence[dict[str, Any]]) -> None:
    """Writes the accuracy over time, as lines and as a curve, anew from the updates."""
    from trainer.evaluation import plots

    lines = history(done)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    files.write_atomically(model_dir, HISTORY_FILE, text.encode())
    if lines:
        files.write_atomically(model_dir, CURVE_FILE, plots.prequential(lines))


def in_words(done: dict[str, Any], export_dir: str) -> str:
    """Says on a few lines what came of an update."""
    new = ", ".join(map(str, done["new"])) or ", ".join(map(str, done["generations"]))
    lines = [f"update {done['update']}, generation {new}"]
    for line in done["prequential"]:
        models = line["models"]
        others = ", ".join(
            f"{model} {tables.percent(models[model]['accuracy'])}"
            for model in ("served", "first")
            if model in models and models[model]["export"] != models["follow"]["export"]
        )
        follow = models["follow"]
        lines.append(
            f"  before training on generation {line['generation']}: "
            f"{tables.percent(follow['accuracy'])} of {line['num_examples']:,} clips"
            f"{f' ({others})' if others else ''}, log loss {follow['log_loss']:.3f}"
        )
    alarms = [each for each in done["drift"] if each["alarms"]]
    for each in alarms:
        lines.append(
            f"  drift: {each['what']} {each['name']}: {each['measure']} {each['value']:.3f}, "
            f"the limit is {each['limit']:.3f}"
        )
    if done["prequential"] and not alarms:
        lines.append("  no drift")
    clips = done["clips"]
    if done["steps"]:
        lines.append(
            f"  trained {done['steps']:,} steps on {clips['new']:,} new and {clips['old']:,} old "
            "clips"
        )
    where = "" if done["export"] is None else f": {files.join(export_dir, done['export'])}"
    lines.append(f"  {done['outcome']}{where}")
    if done["outcome"] == plan.DRY_RUN:
        lines.append(
            f"    it passed, and is not released; --release={done['update']} --reason=… does that"
        )
    lines += [f"    {reason}" for reason in done["reasons"]]
    if override := done.get("override"):
        from trainer.evaluation.gate_report import Override

        lines.append(f"    overridden: {Override(**override).in_words()}")
    return "\n".join(lines)
