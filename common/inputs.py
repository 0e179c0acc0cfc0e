"""What a record, and so a network, takes beside the picture: one frozen class for both sides.

In a tf.Example a category stands as `category/<name>`, a number as `number/<name>`, a text as
`text/<name>`; the category `genre` and the number `date_created` are features that every record
has under their own names. What is unknown is absent, but for those two (empty, and −1).
"""

import dataclasses
import re
from typing import Any

from common.config import config_of
from common.errors import UserFacingError, require

# The names of what every record has of a kind.
STANDING_CATEGORY = "genre"
STANDING_NUMBER = "date_created"

# {input: the features of the record that hold it}: how many other tracks of the artist, or of the
# artist on the same album, are in the training split, and the mean of ln(1 + listens) over them.
HISTORIES = {
    "artist_history": ("artist_tracks", "artist_mean_log_listens"),
    "album_history": ("artist_album_tracks", "artist_album_mean_log_listens"),
}

# Of a number's quantiles at 0, 1/32, … 1.
NUM_QUANTILES = 33

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What listeners did after a track was published, in FMA's words and in Echo Nest's; FMA chose its
# subsets by it, too. With such an input a network would be told its answer.
_AFTERWARDS = re.compile(
    r"(.*_)?(listens|favorites|interest|comments|popularity|label"
    r"|(hotttnesss|currency|familiarity|discovery)(_rank)?)|(set_)?(subset|split)"
)
_TOKEN_BREAK = re.compile(r"[\W_]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What there is beside the picture.

    Attributes:
        categories: names of columns each of whose values is one of some, such as `genre`.
        numbers: names of columns of numbers or dates, such as `date_created`.
        texts: names of columns of words, such as `title`.
        artist_history: how many other tracks of the artist are in the training split, and the mean
            of ln(1 + listens) over them: `artist_tracks` and `artist_mean_log_listens`.
        album_history: the same of those that are also on the track's own album:
            `artist_album_tracks` and `artist_album_mean_log_listens`.
        chroma: the strength of the twelve pitch classes over time.
        tempo: the mean autocorrelation of the onset strength.
    """

    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    artist_history: bool = False
    album_history: bool = False
    chroma: bool = False
    tempo: bool = False

    def __post_init__(self) -> None:
        for kind in ("categories", "numbers", "texts"):
            names = getattr(self, kind)
            require(
                isinstance(names, tuple) and all(isinstance(name, str) for name in names),
                f"config.inputs.{kind}: {names!r} is not a list of names",
            )
            for name in names:
                _check_name(name, kind)
            twice = sorted({name for name in names if names.count(name) > 1})
            require(not twice, f"config.inputs.{kind}: {', '.join(twice)} stands there twice")
        for flag in (*HISTORIES, "chroma", "tempo"):
            value = getattr(self, flag)
            require(
                isinstance(value, bool), f"config.inputs.{flag}: {value!r} is not True or False"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, name: str = "config.inputs") -> "Inputs":
        """Of plain values; what is not given is left out.

        Raises:
            UserFacingError: a key or a value is not possible, or a column is known only afterwards.
        """
        require(isinstance(values, dict), f"{name}: {values!r} is not a set of inputs")
        return config_of(cls, dataclasses.asdict(cls()) | values, name=name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the same as plain JSON values; `album_history`, which came later, if it is."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
            if value or key != "album_history"
        }

    @property
    def histories(self) -> dict[str, tuple[str, str]]:
        """Returns {input: features of the record} of the histories, in order."""
        return {name: features for name, features in HISTORIES.items() if getattr(self, name)}

    @property
    def category_features(self) -> dict[str, str]:
        """Returns {name: feature of the record} of the categories, in order."""
        return {name: category_feature(name) for name in self.categories}

    @property
    def number_features(self) -> dict[str, str]:
        """Returns {name: feature of the record} of all numbers, the histories' last."""
        columns = {name: number_feature(name) for name in self.numbers}
        return columns | {name: name for history in self.histories.values() for name in history}

    @property
    def text_features(self) -> dict[str, str]:
        """Returns {name: feature of the record} of the texts, in order."""
        return {name: text_feature(name) for name in self.texts}


def _check_name(name: str, kind: str) -> None:
    if _AFTERWARDS.fullmatch(name):
        raise UserFacingError(
            f"config.inputs.{kind}: {name} is known only after a track has been heard, so it can't "
            "be an input"
        )
    if name == "track_id":
        raise UserFacingError(f"config.inputs.{kind}: {name} names a track and tells nothing of it")
    if not _NAME.fullmatch(name):
        raise UserFacingError(
            f"config.inputs.{kind}: {name!r} is not a name of small letters, digits and _, at most "
            "64 of them"
        )
    for history, features in HISTORIES.items():
        if kind == "numbers" and name in features:
            raise UserFacingError(f"config.inputs.{kind}: {name} is what {history} gives")


def category_feature(name: str) -> str:
    """Returns the feature of a record that holds a category."""
    return name if name == STANDING_CATEGORY else f"category/{name}"


def number_feature(name: str) -> str:
    """Returns the feature of a record that holds a number."""
    return name if name == STANDING_NUMBER else f"number/{name}"


def text_feature(name: str) -> str:
    """Returns the feature of a record that holds a text."""
    return f"text/{name}"


def tokens(text: str) -> list[str]:
    """Returns the words of a text: runs of letters and digits, in small letters."""
    return [token for token in _TOKEN_BREAK.split(text.lower()) if token]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrogramStatistics:
    """Of each band of the pictures, in levels: float [height] each."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberStatistics:
    """Of a number where it is known.

    Attributes:
        count: in how many records it is.
        mean, deviation: over them; 0 where there are none.
        quantiles: NUM_QUANTILES of them, at 0, 1/32, … 1.
    """

    count: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputStatistics:
    """Of the training split alone.

    Attributes:
        spectrogram: of the pictures.
        numbers: {name: statistics}, those of the histories among them.
        categories: {name: values}, the most frequent first, without the empty one.
        texts: {name: tokens}, the most frequent first.
    """

    spectrogram: SpectrogramStatistics
    numbers: dict[str, NumberStatistics] = dataclasses.field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InputStatistics":
        """Of plain values; KeyError, TypeError or UserFacingError where they are no statistics."""
        return cls(
            spectrogram=config_of(
                SpectrogramStatistics, values["spectrogram"], name="statistics.spectrogram"
            ),
            numbers={
                name: config_of(NumberStatistics, value, name=f"statistics.numbers.{name}")
                for name, value in values["numbers"].items()
            },
            categories={name: tuple(value) for name, value in values["categories"].items()},
            texts={name: tuple(value) for name, value in values["texts"].items()},
        )
