"""What a training came to, for a person: a table for the terminal, a page for the browser.

The page is one file that asks nothing of the network, and the same for the same training. It is
built as a tree whose serializer escapes every string, so a genre may be called anything.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from common.dataset_info import DatasetInfo
from trainer.data import reader
from trainer.evaluation import metrics, plots
from trainer.model.network import POSTER_ACCURACY
from trainer.run import model_folder
from trainer.run.loop import Trainer
from trainer.train_config import TrainConfig

NUM_MISTAKES = 12


def table(measured: dict[str, Any], *, split: str, num_artists: int) -> str:
    """An evaluation as lines of text; `num_artists` is what the interval was drawn from."""
    rows = [
        ("examples", f"{measured['num_examples']:,}"),
        (
            "accuracy",
            f"{_percent(measured['accuracy'])} ({_interval(measured)}; {_drawn(num_artists)})",
        ),
        ("majority class", _percent(measured["baselines"]["majority"])),
        ("genre alone", _percent(measured["baselines"]["genre"])),
        *_other_measures(measured),
    ]
    lines = [f"evaluation on {split}", *(f"  {name:<22}{value}" for name, value in rows)]
    lines.append("  confusion (rows: true, columns: answered)")
    names = list(measured["per_class"])
    width = max(len(name) for name in names) + 2
    lines.append(" " * (width + 4) + "".join(f"{name:>{width}}" for name in names))
    for name, row in zip(names, measured["confusion"], strict=True):
        lines.append(f"    {name:<{width}}" + "".join(f"{count:>{width},}" for count in row))
    return "\n".join(lines)


def write(
    trainer: Trainer,
    *,
    model_dir: str,
    dataset_dir: str,
    split: str,
    predictions: dict[str, np.ndarray] | None,
    measured: dict[str, Any] | None,
) -> str:
    """Writes the page on a split into the model folder; the path of the file.

    Args:
        trainer: with the network that was evaluated.
        model_dir: where its history lies.
        dataset_dir: where the spectrograms of the surest mistakes lie.
        split, predictions, measured: see `page`.
    """
    history = model_folder.read_history(model_dir)
    pictures = []
    if predictions is not None:
        pictures = pictures_of_mistakes(trainer.info, dataset_dir, split, predictions)
    html = page(
        config=trainer.config,
        info=trainer.info,
        num_parameters=trainer.model.count_params(),
        history=history,
        best_epoch=model_folder.best_epoch(history),
        split=split,
        predictions=predictions,
        measured=measured,
        pictures=pictures,
    )
    return model_folder.write_report(model_dir, split, html)


def page(
    *,
    config: TrainConfig,
    info: DatasetInfo,
    num_parameters: int,
    history: list[dict[str, Any]],
    best_epoch: int,
    split: str,
    predictions: dict[str, np.ndarray] | None,
    measured: dict[str, Any] | None,
    pictures: Sequence[np.ndarray] = (),
) -> str:
    """The report as an HTML document.

    Args:
        config: of the training.
        info: of the dataset.
        num_parameters: of the network.
        history: the metrics of each epoch.
        best_epoch: counted from 1, the one that was evaluated.
        split: that it was evaluated on.
        predictions, measured: what `evaluation.evaluate` takes and gives; None and None where the
            split has no examples.
        pictures: the spectrograms of `evaluation.confident_mistakes`, none to leave them out.
    """
    network = f"{config.network.convolutions} convolutions, {_color(config)}"
    title = f"{network}: popularity from audio"
    sections = []
    if measured is None:
        missing = f"The {split} split has no examples, so there is nothing to evaluate on."
        sections.append(_e("p", missing))
    else:
        sections += _headline(config, info, split, predictions, measured)
        sections += _answers(measured)
        sections.append(
            _columns(_calibration(measured, predictions), _listens(info, measured, predictions))
        )
        sections += _mistakes(info, predictions, pictures)
    sections += _learning(info, history, best_epoch)
    sections += _training(config, info, num_parameters)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    document = _e(
        "html",
        _e(
            "head",
            _e("meta", charset="utf-8"),
            _e("meta", name="viewport", content="width=device-width, initial-scale=1"),
            _e("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
            _e("meta", name="color-scheme", content="light dark"),
            _e("title", title),
            _e("style", _STYLE),
        ),
        _e("body", _e("main", _e("h1", title), *sections)),
        lang="en",
    )
    ElementTree.indent(document, space="")
    html = ElementTree.tostring(document, encoding="unicode", method="html")
    return f"<!doctype html>\n{html}\n"


def pictures_of_mistakes(
    info: DatasetInfo, dataset_dir: str, split: str, predictions: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """The spectrograms uint8 [height, width] of a split's `evaluation.confident_mistakes`."""
    places = metrics.confident_mistakes(predictions, NUM_MISTAKES)
    pictures = {}
    batches = reader.batches(info, dataset_dir, split, batch_size=16, names=())
    for batch in batches.as_numpy_iterator():
        for index in np.flatnonzero(np.isin(batch["place"], places) & (batch["weight"] > 0)):
            pictures[batch["place"][index]] = batch["spectrogram"][index]
    return [pictures[place] for place in places]


# ---- the sections


def _headline(config, info, split, predictions, measured) -> list:
    num_artists = metrics.num_groups(predictions)
    if split == "train":
        heard = "all of them"
    else:
        heard = "some of them" if info.split_check["artists_in_two_splits"] else "none of them"
    rows = [
        ("this network", measured["accuracy"], measured["accuracy_ci95"]),
        ("genre alone", measured["baselines"]["genre"], None),
        ("majority class", measured["baselines"]["majority"], None),
    ]
    poster = POSTER_ACCURACY.get((config.network.convolutions, config.network.color))
    about_poster = "The poster reports no figure for this network."
    if poster is not None:
        rows.append(("on the poster", poster, None))
        about_poster = (
            "The poster's figure for this network is of fma_small with tracks split at random, so "
            "with artists on both sides, and classes whose thresholds it does not print."
        )
    return [
        _e(
            "p",
            {"class": "lead"},
            _e("strong", f"{_percent(measured['accuracy'])} of {_count(measured, split)} right"),
            " (",
            _e("span", {"class": "whole"}, _interval(measured)),
            f"). The clips are of {num_artists:,} artist{'s' * (num_artists != 1)}, {heard} heard "
            f"in training. {_verdict(measured, num_artists)}",
        ),
        _html_table(
            f"Accuracy on the {split} split",
            ("", "accuracy", "0 to 100 %"),
            [(name, _percent(value), _bar(value, interval)) for name, value, interval in rows],
        ),
        _e(
            "p",
            {"class": "note"},
            "The thin line is the 95 % interval, by a bootstrap over artists; a track of an "
            "unknown artist counts as an artist of its own. Genre alone and majority class answer "
            "with what was most frequent in training, in the track's genre or overall. "
            + about_poster,
        ),
    ]


def _verdict(measured: dict[str, Any], num_artists: int) -> str:
    """What the interval says against the better baseline."""
    if num_artists < metrics.FEW_GROUPS:
        return "With so few artists the interval may be too narrow."
    accuracy, name = max(
        (measured["baselines"][key] or 0, name)
        for key, name in (("majority", "the majority class"), ("genre", "genre alone"))
    )
    low, high = measured["accuracy_ci95"]
    if low > accuracy:
        return f"That is better than {name}."
    return f"That is {'worse than' if high < accuracy else 'not told apart from'} {name}."


def _answers(measured) -> list:
    names = list(measured["per_class"])
    rows = []
    for name, counts in zip(names, measured["confusion"], strict=True):
        total = max(1, sum(counts))
        rows.append((name, *(_shaded(count, count / total) for count in counts)))
    per_class = [
        (
            name,
            *(f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")),
            f"{scores['num_examples']:,}",
        )
        for name, scores in measured["per_class"].items()
    ]
    return [
        _e("h2", "Answers by class"),
        _columns(
            _html_table(
                "Clips by true class (rows) and answer (columns), and the share of the row",
                ("true class", *names),
                rows,
            ),
            _e(
                "div",
                _html_table(
                    "Per class", ("class", "precision", "recall", "F1", "clips"), per_class
                ),
                _html_table("Other measures", ("measure", "value"), _other_measures(measured)),
            ),
        ),
    ]


def _calibration(measured, predictions) -> ElementTree.Element:
    probabilities = predictions["probabilities"]
    correct = probabilities.argmax(axis=1) == predictions["label"]
    bins = metrics.reliability(probabilities.max(axis=1), correct)
    description = "; ".join(
        f"{count:,} clips answered with {_percent(sure)} on average are right in {_percent(right)}"
        for sure, right, count in zip(
            bins["confidence"], bins["accuracy"], bins["num_examples"], strict=True
        )
    )
    return _e(
        "div",
        _e("h2", "Is it as sure as it is right?"),
        _e(
            "p",
            "Below the dashed line it is too sure of itself. The gaps are "
            f"{measured['ece']:.3f} on average (expected calibration error), each weighted by its "
            "clips, which the upright numbers count.",
        ),
        _picture(plots.reliability(bins), f"Reliability: {description}."),
    )


def _listens(info, measured, predictions) -> ElementTree.Element:
    spearman = measured["spearman"]
    said = (
        "unknown, since one of the two is the same for all clips"
        if spearman is None
        else f"{spearman:.3f}"
    )
    picture = plots.expected_class(
        metrics.expected_class(predictions["probabilities"]),
        predictions["listens"],
        thresholds=info.thresholds,
        class_names=info.class_names,
    )
    return _e(
        "div",
        _e("h2", "Expected class and listens"),
        _e(
            "p",
            f"Their rank correlation (Spearman) is {said}. A point is a clip; the dotted lines are "
            "the thresholds between the classes.",
        ),
        _picture(
            picture,
            f"Expected class of {measured['num_examples']:,} clips against their listens; "
            f"Spearman {said}.",
        ),
    )


def _mistakes(info, predictions, pictures) -> list:
    places = metrics.confident_mistakes(predictions, NUM_MISTAKES)
    cards = []
    for card, place in enumerate(places):
        answer = int(predictions["probabilities"][place].argmax())
        track_id, listens = (int(predictions[name][place]) for name in ("track_id", "listens"))
        genre = predictions["genre"][place].decode(errors="replace") or "genre unknown"
        probabilities = ", ".join(
            f"{name} {_percent(value)}"
            for name, value in zip(
                info.class_names, predictions["probabilities"][place], strict=True
            )
        )
        image = ()
        if card < len(pictures):
            source = plots.data_uri(plots.thumbnail(pictures[card]), "image/png")
            image = (_e("img", src=source, alt=f"Spectrogram of track {track_id}"),)
        cards.append(
            _e(
                "li",
                *image,
                _e("strong", f"track {track_id}"),
                _e("span", genre),
                _e("span", f"{listens:,} listens: {info.class_names[predictions['label'][place]]}"),
                _e("span", f"answered {info.class_names[answer]}"),
                _e("span", {"class": "note"}, probabilities.replace(" %", "\N{NO-BREAK SPACE}%")),
            )
        )
    body = _e("ol", {"class": "cards"}, *cards) if cards else _e("p", "There are none.")
    return [_e("h2", "The surest mistakes"), body]


def _learning(info, history, best_epoch) -> list:
    kept = history[best_epoch - 1]
    validated = kept["validation_accuracy"] is not None
    why = "of the best validation accuracy" if validated else "the last, for want of validation"
    majority = metrics.majority_accuracy(info, "validation")
    pictures = []
    for name, line in (("loss", None), ("accuracy", majority)):
        figures = f"training {kept[name]:.3f}"
        if validated:
            figures += f", validation {kept[f'validation_{name}']:.3f}"
        pictures.append(
            _picture(
                plots.learning_curve(name, history, best_epoch=best_epoch, majority=line),
                f"{name.capitalize()} by epoch. At epoch {best_epoch}, which is kept: {figures}.",
            )
        )
    return [
        _e("h2", "Learning"),
        _e("p", f"Epochs: {len(history):,}. Kept is epoch {best_epoch}, {why}."),
        _columns(*pictures),
    ]


def _training(config, info, num_parameters) -> list:
    values = config.to_dict()
    network = values.pop("network")
    settings = {f"network.{key}": value for key, value in network.items()} | values
    splits = [
        (
            name,
            *(f"{count:,}" for count in split.class_counts.values()),
            f"{split.num_examples:,}",
            f"{split.num_artists:,}",
        )
        for name, split in info.splits.items()
    ]
    check = info.split_check
    facts = [
        ("parameters", f"{num_parameters:,}"),
        ("subset", info.config.subset),
        (
            "thresholds",
            " and ".join(f"{threshold:,}" for threshold in info.thresholds) + " listens",
        ),
        ("split by", check["by"]),
        ("artists in two splits", f"{check['artists_in_two_splits']:,}"),
        ("clips rejected", f"{sum(info.rejected.values()):,}"),
        ("rows without audio", f"{info.missing_audio:,}"),
        ("pictures", "{} × {}".format(*info.config.spectrogram.shape)),
        ("dataset fingerprint", info.fingerprint),
        ("catalogue SHA-256", info.catalog_sha256),
        ("made with", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]
    return [
        _e("h2", "What was trained, on what"),
        _html_table(
            "Clips by split and class", ("split", *info.class_names, "all", "artists"), splits
        ),
        _columns(
            _html_table("Config", ("key", "value"), _long(settings.items())),
            _html_table("Network and dataset", ("", "value"), _long(facts)),
        ),
    ]


# ---- words


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _interval(measured: dict[str, Any]) -> str:
    low, high = measured["accuracy_ci95"]
    return f"95 %: {100 * low:.1f} to {100 * high:.1f}"


def _count(measured: dict[str, Any], split: str) -> str:
    return f"{measured['num_examples']:,} {split} clip{'s' * (measured['num_examples'] != 1)}"


def _drawn(num_artists: int) -> str:
    """What the interval was drawn from, and whether that was enough."""
    if num_artists == 1:
        return "of one artist, which gives no interval"
    few = num_artists < metrics.FEW_GROUPS
    return f"drawn from {num_artists:,} artists{', so few that it may be too narrow' * few}"


def _color(config: TrainConfig) -> str:
    return {"rgb": "RGB"}.get(config.network.color, config.network.color)


def _other_measures(measured: dict[str, Any]) -> list[tuple[str, str]]:
    spearman = measured["spearman"]
    return [
        ("balanced accuracy", _percent(measured["balanced_accuracy"])),
        ("macro F1", f"{measured['macro_f1']:.3f}"),
        ("log loss", f"{measured['log_loss']:.3f}"),
        ("calibration error", f"{measured['ece']:.3f}"),
        ("Spearman with listens", "unknown" if spearman is None else f"{spearman:.3f}"),
    ]


# ---- HTML


def _e(tag: str, *children, **attributes: str) -> ElementTree.Element:
    """An element of texts and elements; a dict among the children is more attributes."""
    element = ElementTree.Element(tag, attributes)
    last = None
    for child in children:
        if isinstance(child, dict):
            element.attrib.update(child)
        elif isinstance(child, ElementTree.Element):
            element.append(child)
            last = child
        elif last is None:
            element.text = (element.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return element


def _html_table(caption: str, header: Iterable[str], rows: Iterable[tuple]) -> ElementTree.Element:
    """A table whose first column names the rows; it scrolls by itself where it is too wide."""
    head = _e("tr", *(_e("th", name, scope="col") if name else _e("td") for name in header))
    body = [
        _e(
            "tr",
            _e("th", first, scope="row"),
            *(cell if isinstance(cell, ElementTree.Element) else _e("td", cell) for cell in rest),
        )
        for first, *rest in rows
    ]
    whole = _e("table", _e("caption", caption), _e("thead", head), _e("tbody", *body))
    return _e(
        "div", {"class": "table", "role": "region", "aria-label": caption, "tabindex": "0"}, whole
    )


def _bar(value: float | None, interval: tuple[float, float] | None) -> ElementTree.Element:
    """A cell with a bar from 0 to 100 %, which repeats what another cell says."""
    if value is None:
        return _e("td")
    parts = [_e("div", {"class": "bar", "style": f"width:{100 * value:.2f}%"})]
    if interval is not None:
        low, high = interval
        style = f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"
        parts.append(_e("div", {"class": "interval", "style": style}))
    return _e("td", _e("div", {"class": "track", "aria-hidden": "true"}, *parts))


def _long(rows: Iterable[tuple[str, Any]]) -> list[tuple]:
    """Rows of a name and a value that may be broken anywhere."""
    return [(name, _e("td", {"class": "long"}, str(value))) for name, value in rows]


def _shaded(count: int, share: float) -> ElementTree.Element:
    """A cell with a count and a share, the darker the larger the share."""
    return _e(
        "td",
        {"class": "shaded", "style": f"--share:{100 * share:.1f}%"},
        f"{count:,} ",
        _e("small", _percent(share)),
    )


def _columns(*elements: ElementTree.Element) -> ElementTree.Element:
    """Elements side by side where the screen has room."""
    return _e("div", {"class": "columns"}, *elements)


def _picture(svg: str, description: str) -> ElementTree.Element:
    source = plots.data_uri(svg.encode(), "image/svg+xml")
    return _e("img", {"class": "plot"}, src=source, alt=description)


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --dim: #57606a; --paper: #ffffff;
  --line: #d0d7de; --accent: #3d85c6; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --dim: #9aa4af; --paper: #14171c; --line: #363c45; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; break-after: avoid; }
p { max-width: 44rem; }
.lead { font-size: 1.15rem; }
.note, caption, small { color: var(--dim); font-size: 0.85rem; }
.columns { display: grid; gap: 1rem 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.table { overflow-x: auto; break-inside: avoid; margin: 0.75rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.25rem; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child { text-align: left; padding-left: 0; }
td, .whole { white-space: nowrap; }
.long { white-space: normal; overflow-wrap: anywhere; }
thead th { color: var(--dim); font-size: 0.85rem; font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
.track { position: relative; height: 1rem; min-width: 6rem; background: var(--line);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar { height: 100%; background: var(--dim); }
tr:first-child .bar { background: var(--accent); }
.interval { position: absolute; top: 0.4rem; height: 0.2rem; min-width: 2px;
  background: var(--ink); }
.shaded { background: color-mix(in srgb, var(--accent) calc(var(--share) * 0.6), transparent);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.shaded small { display: block; color: inherit; }
.plot { display: block; width: 100%; max-width: 30rem; height: auto; break-inside: avoid; }
.cards { display: grid; gap: 1.25rem 1rem; padding: 0; margin: 0.75rem 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 9rem), 1fr)); }
.cards li { break-inside: avoid; font-size: 0.85rem; overflow-wrap: anywhere; }
.cards img { display: block; width: 100%; height: auto; margin-bottom: 0.25rem; }
.cards strong, .cards span { display: block; }
@media (max-width: 30rem) { th, td { padding: 0.3rem 0.35rem; } }
@media print { :root { font-size: 11px; } main { max-width: none; padding: 0; } }
"""
