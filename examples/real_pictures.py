r"""Turns real FMA clips that others made pictures of into a dataset that the trainer reads.

python -m examples.real_pictures --pictures=fma_pictures --output_dir=dataset --split_by=artist

`--pictures` is an .npz file, or a folder of such, with the keys `levels`, `track_id`, `listens`,
`genre`, `artist`, `title`, `location`, `date_created`, `date_released`, `echonest` and
`echonest_names`. The dataset's config says how this project's job would make a picture; these were
made by others and compare only with one another. They name no album: what an artist released on one
day is taken for one.
"""

import dataclasses
import hashlib
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags
from numpy.typing import NDArray

from beam_pipelines import clip_record, splits_and_shards
from common import (
    command,
    dataset_info,
    dataset_reader,
    files,
    hashing,
    input_statistics,
    labels,
    other_tracks,
    records,
)
from common.catalogue import UNKNOWN, Track
from common.dataset_config import SPLITS, DatasetConfig
from common.dataset_info import DatasetInfo
from common.errors import UserFacingError, require
from common.inputs import HISTORIES
from configs import dataset_artist

_KEYS = {
    "levels": (np.uint8, 3),
    "track_id": (np.int64, 1),
    "listens": (np.int64, 1),
    "genre": (np.str_, 1),
    "artist": (np.str_, 1),
    "title": (np.str_, 1),
    "location": (np.str_, 1),
    "date_created": (np.int64, 1),
    "date_released": (np.int64, 1),
    "echonest": (np.float32, 2),
    "echonest_names": (np.str_, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures and what the catalogue says of them, by row.

    Attributes:
        levels: uint8 [n, height, width], row 0 the lowest band.
        tracks: of the rows, with the inputs of `config_of` in their order.
        numbers: names of those that are not dates.
        sha256: of the files.
    """

    levels: NDArray[np.uint8]
    tracks: list[Track]
    numbers: tuple[str, ...]
    sha256: str


def read(path: str) -> Pictures:
    """The pictures of an .npz file, or of all in a folder in the order of their names.

    Raises:
        UserFacingError: there are none, or what is there is something else.
    """
    paths = _files_of(path)
    parts = [_read_file(file) for file in paths]
    names = {tuple(map(str, part["echonest_names"])) for part in parts}
    require(len(names) == 1, f"{path}: the files have different echonest_names")
    (numbers,) = names
    joined = {
        key: np.concatenate([part[key] for part in parts]) for key in _KEYS if "names" not in key
    }
    twice = [number for number, count in Counter(joined["track_id"].tolist()).items() if count > 1]
    require(not twice, f"{path}: track {twice[:1]} stands there twice")
    return Pictures(
        levels=joined["levels"],
        tracks=[_track(joined, row) for row in range(len(joined["track_id"]))],
        numbers=numbers,
        sha256=_sha256_of(paths),
    )


def require_made_of(path: str, dataset_dir: str) -> None:
    """Raises UserFacingError unless the dataset in a folder is one of the pictures at a path."""
    require(
        dataset_reader.first_info(dataset_dir).catalog_sha256 == _sha256_of(_files_of(path)),
        f"{dataset_dir}: made of other pictures than {path}; remove it and what was trained on it, "
        "or take another --output_dir",
    )


def _files_of(path: str) -> list[pathlib.Path]:
    place = pathlib.Path(path)
    paths = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    require(bool(paths), f"{path}: no .npz file in this folder")
    for file in paths:
        require(file.exists(), f"{file}: no such file; --pictures is an .npz or a folder")
    return paths


def _sha256_of(paths: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for file in paths:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _read_file(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in _KEYS}
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise UserFacingError(f"{path}: not such pictures ({error})") from None
    for key, (kind, dimensions) in _KEYS.items():
        array = arrays[key]
        require(
            np.issubdtype(array.dtype, kind) and array.ndim == dimensions,
            f"{path}: {key} is {array.dtype} {list(array.shape)}",
        )
        if key != "echonest_names":
            require(
                len(array) == len(arrays["track_id"]),
                f"{path}: {len(array)} of {key} for {len(arrays['track_id'])} of track_id",
            )
    require(
        arrays["echonest"].shape[1] == len(arrays["echonest_names"]),
        f"{path}: echonest has {arrays['echonest'].shape[1]} columns and "
        f"{len(arrays['echonest_names'])} names",
    )
    return arrays


def _track(columns: dict[str, NDArray[Any]], row: int) -> Track:
    values = {key: array[row].item() for key, array in columns.items() if array.ndim == 1}
    dates = [values["date_created"], values["date_released"]]
    return Track(
        track_id=values["track_id"],
        path="",
        listens=values["listens"],
        artist_id=(
            hashing.stable_hash(values["artist"], salt="artist") if values["artist"] else UNKNOWN
        ),
        genre=values["genre"],
        date_created=values["date_created"],
        split="",
        categories=(values["genre"], values["location"]),
        numbers=(
            *(float("nan") if date == UNKNOWN else float(date) for date in dates),
            *columns["echonest"][row].tolist(),
        ),
        texts=(values["title"], values["location"]),
        album_id=values["date_released"],
    )


def config_of(pictures: Pictures, *, split_by: str, salt: str) -> DatasetConfig:
    """The config of a dataset of these pictures."""
    values = dataset_artist.get_config().to_dict()
    inputs = {
        "categories": ("genre", "location"),
        "numbers": ("date_created", "date_released", *pictures.numbers),
        "texts": ("title", "location"),
        "artist_history": True,
        "album_history": True,
    }
    config = DatasetConfig.from_dict(
        values | {"split_by": split_by, "salt": salt, "inputs": inputs}
    )
    shape = pictures.levels.shape[1:]
    require(
        shape == config.spectrogram.shape,
        f"pictures of {shape[0]} × {shape[1]}, the config's are "
        f"{config.spectrogram.shape[0]} × {config.spectrogram.shape[1]}",
    )
    return config


def split_of(track: Track, config: DatasetConfig) -> str:
    """The split that a track falls into."""
    group = splits_and_shards.group_of(track.track_id, track.artist_id, by=config.split_by)
    return splits_and_shards.split_of(group, config.split_sizes, salt=config.salt)


def with_histories(tracks: list[Track], splits: list[str]) -> list[Track]:
    """The tracks with what others in the training split say: their artists', their albums'."""
    tracks = list(tracks)
    for history, (num_tracks, mean) in HISTORIES.items():
        keys = [
            other_tracks.key_of(history, artist_id=track.artist_id, album_id=track.album_id)
            for track in tracks
        ]
        own = [
            other_tracks.track_of(track.listens) if split == "train" else other_tracks.Tracks()
            for track, split in zip(tracks, splits, strict=True)
        ]
        totals: defaultdict[tuple[int, ...] | None, other_tracks.Tracks]
        totals = defaultdict(other_tracks.Tracks)
        for key, its in zip(keys, own, strict=True):
            totals[key] += its
        for row, (key, its) in enumerate(zip(keys, own, strict=True)):
            if key is not None:
                others = totals[key].without(its)
                values: dict[str, Any] = {
                    num_tracks: others.num_tracks,
                    mean: others.mean_log_listens,
                }
                tracks[row] = tracks[row]._replace(**values)
    return tracks


def write_dataset(pictures: Pictures, config: DatasetConfig, output_dir: str) -> DatasetInfo:
    """Writes the dataset, in the place of one that is there; its description comes last."""
    splits = [split_of(track, config) for track in pictures.tracks]
    tracks = with_histories(pictures.tracks, splits)
    files.make_folder(output_dir)
    files.delete(output_dir, [name for name in files.names_in(output_dir) if _is_mine(name)])
    gathered: list[input_statistics.ShardStatistics] = []
    counts: Counter[input_statistics.Counted] = Counter()
    described = {}
    for split in SPLITS:
        rows = [row for row, its in enumerate(splits) if its == split]
        num_shards = splits_and_shards.shard_count(len(rows))
        by_shard = _by_shard(rows, tracks, num_shards, salt=config.salt)
        shards = []
        for index, mine in enumerate(by_shard):
            gatherer = input_statistics.Gatherer(
                config.inputs, height=config.spectrogram.num_mels, num_shards=num_shards
            )
            name = splits_and_shards.shard_name(split, index, num_shards)
            digest, num_bytes = hashlib.sha256(), 0
            with files.atomic_file(output_dir, name) as file:
                for record in _records(mine, pictures, tracks, config):
                    gatherer.add(records.decode_example(record))
                    framed = records.frame(record)
                    file.write(framed)
                    digest.update(framed)
                    num_bytes += len(framed)
            shards.append(
                dataset_info.Shard(
                    file=name, num_examples=len(mine), bytes=num_bytes, sha256=digest.hexdigest()
                )
            )
            if split == "train":
                gathered.append(gatherer.result())
                counts.update(gathered[-1].counts)
        classes = Counter(labels.label_of(tracks[row].listens, config.thresholds) for row in rows)
        described[split] = dataset_info.Split(
            num_examples=len(rows),
            class_counts={name: classes[label] for label, name in enumerate(config.class_names)},
            num_artists=len({tracks[row].artist_id for row in rows} - {-1}),
            shards=tuple(shards),
        )
    torn_artists = _torn([track.artist_id for track in tracks], splits)
    info = DatasetInfo.of(
        config,
        described,
        torn_groups=torn_artists if config.split_by == "artist" else 0,
        torn_artists=torn_artists,
        catalog_sha256=pictures.sha256,
        versions={"numpy": np.__version__},
        statistics=input_statistics.statistics_of(
            gathered,
            input_statistics.most_frequent_of(counts),
            wanted=config.inputs,
            spectrogram=config.spectrogram,
        ),
    )
    files.write_atomically(output_dir, dataset_info.REJECTED_FILE, b"")
    files.write_atomically(output_dir, dataset_info.FILE_NAME, info.to_json().encode())
    return info


def _is_mine(name: str) -> bool:
    return name == dataset_info.FILE_NAME or name.startswith(
        tuple(f"{s}.tfrecord-" for s in SPLITS)
    )


def _by_shard(
    rows: list[int], tracks: list[Track], num_shards: int, *, salt: str
) -> list[list[int]]:
    """The rows of each shard, in the order of their hash."""
    by_shard: list[list[int]] = [[] for _ in range(num_shards)]
    orders = {
        row: hashing.stable_hash(str(tracks[row].track_id), salt=f"{salt}/order") for row in rows
    }
    for row in sorted(rows, key=orders.__getitem__):
        by_shard[splits_and_shards.shard_of(orders[row], num_shards)].append(row)
    return by_shard


def _records(
    rows: list[int], pictures: Pictures, tracks: list[Track], config: DatasetConfig
) -> Iterator[bytes]:
    for row in rows:
        heard = {"spectrogram": pictures.levels[row]}
        yield clip_record.record_with(tracks[row], heard, config, thresholds=config.thresholds)


def _torn(artists: list[int], splits: list[str]) -> int:
    """How many known artists have tracks in two splits."""
    pairs = {pair for pair in zip(artists, splits, strict=True) if pair[0] >= 0}
    return sum(count > 1 for count in Counter(artist for artist, _ in pairs).values())


def define_flags() -> None:
    """Defines the command's flags; not at import, since others take this module as a library."""
    flags.DEFINE_string(
        "pictures", None, "An .npz of pictures, or a folder of such.", required=True
    )
    flags.DEFINE_string("output_dir", None, "Where the dataset goes.", required=True)
    flags.DEFINE_enum(
        "split_by", "artist", ("artist", "track"), "What may not be torn apart by the split."
    )
    flags.DEFINE_string("salt", "fma", "Another gives another split and order.")


def main(_: list[str]) -> None:
    values = flags.FLAGS
    pictures = read(values.pictures)
    config = config_of(pictures, split_by=values.split_by, salt=values.salt)
    info = write_dataset(pictures, config, values.output_dir.rstrip("/"))
    for name, split in info.splits.items():
        shares = ", ".join(f"{count:,} {label}" for label, count in split.class_counts.items())
        print(f"{name}: {split.num_examples:,} clips of {split.num_artists:,} artists ({shares})")


if __name__ == "__main__":
    define_flags()
    command.run(main)
