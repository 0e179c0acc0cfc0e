"""The architectures a config may choose from: a frozen class for each, and which one is asked for.

`config.network.architecture` names the class; without it the network is one of the poster's, as in
every config from before there were others.
"""

import dataclasses
from typing import Any

from common.config import config_of
from common.errors import UserFacingError, require

COLORS = ("mono", "rgb")
INITIALIZERS = ("glorot", "he")


def color_name(color: str) -> str:
    """Returns one of COLORS as people write it."""
    return {"rgb": "RGB"}.get(color, color)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosterConfig:
    """One of the poster's networks, see `model.poster`.

    Attributes:
        convolutions: how many of the poster's six blocks, from the first.
        color: `mono`, the picture as it is stored, or `rgb`, through a colormap.
        initializer: of the first weights: `glorot`, Keras' default, or `he`, which is for ReLU.
        standardize: whether the mean of the training split's pictures is taken from them, and what
            is left divided by their deviation. Both are left out of the plain values where they
            have their defaults, as in the folders from before there was a choice.
    """

    architecture = "poster"

    convolutions: int
    color: str
    initializer: str = "glorot"
    standardize: bool = False

    def __post_init__(self) -> None:
        require(
            1 <= self.convolutions <= 6,
            f"config.network.convolutions: {self.convolutions} is not between 1 and 6",
        )
        require(
            self.color in COLORS,
            f"config.network.color: {self.color!r} is none of {', '.join(COLORS)}",
        )
        require(
            self.initializer in INITIALIZERS,
            f"config.network.initializer: {self.initializer!r} is none of "
            f"{', '.join(INITIALIZERS)}",
        )

    @property
    def title(self) -> str:
        """Names the network in a few words."""
        return f"{self.convolutions} convolutions, {color_name(self.color)}"

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortChunkConfig:
    """Normalised convolutions and statistics of the picture, see `model.short_chunk`.

    Attributes:
        width: channels of the last convolution; the earlier ones have parts of it.
        texture_units: of each dense layer on the statistics.
        texture_members: how many of these there are, 0 for convolutions alone.
        convolution_share: what the convolutions count for in the mean, 0 to 1.
        temperature: what the logits are divided by in the answer, at least 1.
        logit_adjustment: how far the answer leans towards rare classes, 0 to 1: at 1 as far as if
            all were as frequent.
    """

    architecture = "short_chunk"

    width: int
    texture_units: int
    texture_members: int
    convolution_share: float
    temperature: float
    logit_adjustment: float

    def __post_init__(self) -> None:
        require(
            self.width >= 4 and self.width % 4 == 0,
            f"config.network.width: {self.width} is not a multiple of 4 above 0",
        )
        require(
            self.texture_units >= 1,
            f"config.network.texture_units: {self.texture_units} is below 1",
        )
        require(
            self.texture_members >= 0,
            f"config.network.texture_members: {self.texture_members} is below 0",
        )
        require(self.temperature >= 1, f"config.network.temperature: {self.temperature} is below 1")
        for name in ("convolution_share", "logit_adjustment"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"config.network.{name}: {value} is not between 0 and 1")

    @property
    def title(self) -> str:
        """Names the network in a few words."""
        return (
            f"short-chunk CNN of width {self.width}{' and statistics' * bool(self.texture_members)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"architecture": self.architecture, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionConfig(ShortChunkConfig):
    """A short-chunk network and what else a record carries, see `model.fusion`.

    Attributes:
        inputs: which of the dataset's inputs are taken, by name, such as `genre`, `date_created`,
            `artist_history`, `chroma`; all that there are where none is named. Of a name that is a
            category and a text, `category/…` and `text/…` take the one.
        hidden_units: of each dense layer over these inputs.
        members: how many such networks of dense layers the answer is the mean of; with the artist's
            other tracks, as many again for artists of whom there are none.
        picture_weight: what the picture counts for beside them where the artist's other tracks are
            known, and where they are not; alone it counts for all.
    """

    architecture = "fusion"

    inputs: tuple[str, ...]
    hidden_units: tuple[int, ...]
    members: int
    picture_weight: tuple[float, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.inputs, tuple) and all(isinstance(name, str) for name in self.inputs),
            f"config.network.inputs: {self.inputs!r} are not names",
        )
        require(
            bool(self.hidden_units) and min(self.hidden_units) > 0,
            f"config.network.hidden_units: {self.hidden_units} are not sizes of layers",
        )
        require(self.members >= 1, f"config.network.members: {self.members} is below 1")
        require(
            len(self.picture_weight) == 2 and min(self.picture_weight) >= 0,
            f"config.network.picture_weight: {self.picture_weight} are not two weights",
        )

    @property
    def title(self) -> str:
        """Names the network in a few words."""
        return f"fusion with a {super().title}"


NetworkConfig = PosterConfig | ShortChunkConfig  # or its FusionConfig
ARCHITECTURES: dict[str, type[NetworkConfig]] = {
    kind.architecture: kind for kind in (PosterConfig, ShortChunkConfig, FusionConfig)
}


def network_config_of(values: dict[str, Any]) -> NetworkConfig:
    """The network of the plain values of `config.network`.

    Raises:
        UserFacingError: there is no such architecture, or a key or value is not possible in it.
    """
    values = dict(values)
    architecture = values.pop("architecture", PosterConfig.architecture)
    if architecture not in ARCHITECTURES:
        raise UserFacingError(
            f"config.network.architecture: {architecture!r} is none of {', '.join(ARCHITECTURES)}"
        )
    kind = ARCHITECTURES[architecture]
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }
    return config_of(kind, defaults | values, name="config.network")
