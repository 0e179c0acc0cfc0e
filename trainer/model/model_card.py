"""The model card of an export: what the model is, how well it does, what it is not for.

Its headings are those of M. Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from typing import Any

from common import labels, metadata, tables
from common.dataset_info import DatasetInfo
from common.inputs import Inputs
from trainer.network_config import network_config_of


def text(model_info: dict[str, Any], info: DatasetInfo) -> str:
    """The card as Markdown.

    Args:
        model_info: of the export.
        info: of the dataset that it was trained on.
    """
    network, training = model_info["training"]["network"], model_info["training"]
    ranges = labels.class_ranges(
        info.class_names, info.thresholds, popularity=info.config.popularity
    )
    classes = "\n".join(
        f"- `{name}`{text.removeprefix(name)}"
        for name, text in zip(info.class_names, ranges, strict=True)
    )
    splits = "\n".join(
        f"| {name} | {split.num_examples:,} | "
        + " | ".join(f"{count:,}" for count in split.class_counts.values())
        + f" | {split.num_artists:,} |"
        for name, split in info.splits.items()
    )
    signal = info.config.spectrogram
    takes_more = Inputs.from_dict(model_info["inputs"]) != Inputs()
    about = "audio and metadata say" if takes_more else "audio alone says"
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in info.rejected.items())
    epochs = "up to " * bool(training["patience"]) + str(training["epochs"])
    return f"""# Popularity of a song, from its audio

## Model

{_network(network)} and
{model_info["num_parameters"]:,} parameters. It sees the mel spectrogram of {signal.seconds:.2f} s
of music (mono, {signal.sample_rate:,} Hz) as a picture of {signal.shape[0]} × {signal.shape[1]} and
answers with a probability for each class:

{classes}
{_inputs(model_info["inputs"])}
{_origin(network)}
`fma-popularity` trains it, and `model_info.json` beside this file holds every parameter.

## Intended use

To show and to study what {about} about how often a song is listened to. Not to decide
which music is published, promoted or paid for: see the limits.

## Training data

Dataset `{info.fingerprint[:16]}…`, split by {info.config.split_by}
({info.split_check["artists_in_two_splits"]:,} artists in two splits):

| split | clips | {" | ".join(info.class_names)} | artists |
|---|---|{"---|" * len(info.class_names)}---|
{splits}

Rejected: {rejected or "none"}; without audio: {info.missing_audio:,}. Trained for
{epochs} epochs in batches of {training["batch_size"]}, seed {training["seed"]}.
{_warm_start(model_info)}
The label is the class that a track was in on the platform that the catalogue comes from, at the
time of the catalogue.

## Evaluation

{_evaluation(model_info["evaluation"])}

## Limits

- Listens grow with a song's age on the platform and with the fame of its artist; the network hears
  neither, and part of what it learns is genre.
- The catalogue is one platform's, of freely licensed music. Elsewhere the classes mean something
  else.
- It hears the middle {signal.seconds:.0f} s. It answers any sound, speech and noise too; clients
  refuse only silence (below {info.config.silence_dbfs:g} dBFS) and audio shorter than
  {info.config.min_seconds:g} s.
- The probabilities are not calibrated beyond what the evaluation's `ece` says.

## Licences

The training audio belongs to its artists. In FMA each clip has a licence of its own, many of them
Creative Commons non-commercial or share-alike; whether a model trained on them may be used for a
purpose is for whoever uses it to check. FMA's metadata is CC BY 4.0 (M. Defferrard, K. Benzi,
P. Vandergheynst, X. Bresson, *FMA: A Dataset for Music Analysis*, 2017).
"""


def _network(network: dict[str, Any]) -> str:
    if "convolutions" in network:
        return f"A network of {network['convolutions']} convolutions ({network['color']})"
    return f"A {network_config_of(network).title}"


def _warm_start(model_info: dict[str, Any]) -> str:
    found = model_info.get("init_from")
    if found is None:
        return ""
    began = f"It began with the weights `{found['fingerprint'][:16]}…` of an earlier training"
    clips = model_info.get("update", {}).get("clips")
    if clips is None:
        return f"{began}.\n"
    return (
        f"{began}\nand was trained on {clips['new']:,} clips that were new to that, and on "
        f"{clips['old']:,} of the others.\n"
    )


def _origin(network: dict[str, Any]) -> str:
    if "convolutions" in network:
        return "The architecture is that of a student project's poster (Stanford, on FMA);"
    return "The architecture is this project's own, beyond the poster that it began with;"


def _inputs(values: dict[str, Any]) -> str:
    """What it may be told beside the sound, if anything, as a paragraph."""
    inputs = Inputs.from_dict(values)
    told = ", ".join(f"`{name}` ({kind})" for name, kind in metadata.names(inputs).items())
    heard = " and ".join(name for name in ("chroma", "tempo") if values[name])
    parts = []
    if heard:
        parts.append(f"It also hears {heard} in the same music.")
    if told:
        parts.append(
            f"It may be told {told}; each of them may be unknown, and the sound alone is enough."
        )
    return "\n" + "\n".join(parts) + "\n" if parts else ""


def _evaluation(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return "Unknown: no clip fell into the test split."
    low, high = evaluation["accuracy_ci95"]
    rows = [
        ("clips", f"{evaluation['num_examples']:,}"),
        (
            "accuracy",
            f"{tables.percent(evaluation['accuracy'])} (95 % interval {100 * low:.1f} to "
            f"{tables.percent(high)})",
        ),
        *((name, f"{evaluation[name]:.3f}") for name in ("balanced_accuracy", "ece")),
    ]
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    scores = {"the network": evaluation, **evaluation["baseline_scores"]}
    beside = tables.markdown(
        ("", "accuracy", "macro F1", "log loss", "Spearman"),
        [
            (
                name,
                tables.percent(of["accuracy"]),
                *(
                    "" if of[key] is None else f"{of[key]:.3f}"
                    for key in ("macro_f1", "log_loss", "spearman")
                ),
            )
            for name, of in scores.items()
        ],
    )
    return f"""On the test split:

| | |
|---|---|
{lines}

Beside the most frequent class, overall and in the genre, and beside gradient boosting on the
metadata:

{beside.rstrip()}"""
