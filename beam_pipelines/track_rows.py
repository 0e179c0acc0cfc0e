"""The rows of the catalogue with all that is known of their tracks before any audio is read.

A row is (split, shuffle key, track as `Track.packed`). What needs other rows goes through a
shuffle by track id, artist, album or date, so no worker holds the catalogue.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsSingleton

from beam_pipelines import splits_and_shards
from common import catalogue, files, hashing, other_tracks, popularity
from common.catalogue import Columns, Track
from common.dataset_config import DatasetConfig
from common.errors import UserFacingError
from common.inputs import HISTORIES, Inputs

Row = tuple[str, int, tuple[Any, ...]]


def catalogue_rows(path: str, config: DatasetConfig, *, may_lack_listens: bool) -> Iterator[Row]:
    """Yields the row of each track of a catalogue; the split stays empty if it is by date.

    Args:
        path: of the catalogue.
        config: of the dataset.
        may_lack_listens: whether tracks may have none.

    Raises:
        UserFacingError: the catalogue, or a row of it, can't be used.
    """
    with files.open_to_read(path) as file:
        for track in catalogue.read_tracks(
            file,
            name=path,
            subset=config.subset,
            inputs=config.inputs,
            may_lack_listens=may_lack_listens,
        ):
            shuffle_key = hashing.stable_hash(str(track.track_id), salt=f"{config.salt}/order")
            yield _split_of(track, config, name=path), shuffle_key, track.packed()


def _split_of(track: Track, config: DatasetConfig, *, name: str) -> str:
    if config.split_by == "date":
        return ""
    if config.split_by == "official":
        if not track.split:
            raise UserFacingError(f"{name}: config.split_by is official, and it has no such column")
        return track.split
    return splits_and_shards.split_of_track(track, config)


def track_rows(
    pipeline: beam.Pipeline,
    config: DatasetConfig,
    *,
    tracks_csv: str,
    features_csv: tuple[str, ...],
    may_lack_listens: bool = False,
) -> beam.PCollection:
    """Adds to a pipeline what makes the rows, each with its split, inputs and popularity.

    Args:
        pipeline: it is added to.
        config: of the dataset.
        tracks_csv: path of the catalogue.
        features_csv: paths of tables of further columns; what one says goes before the next.
        may_lack_listens: whether tracks may have none.
    """
    rows = (
        pipeline
        | "catalogue" >> beam.Create([tracks_csv])
        | "read catalogue"
        >> beam.FlatMap(catalogue_rows, config, may_lack_listens=may_lack_listens)
    )
    if features_csv:
        rows = joined(pipeline, rows, config.inputs, features_csv)
    if config.needs_dates:
        rows = dated(rows)
    if config.split_by == "date":
        rows = split_by_date(rows, config)
    if config.popularity == "listens_per_year":
        rows = with_listens_per_year(rows)
    if config.popularity == "rank_among_contemporaries":
        rows = with_ranks(rows)
    for history in config.inputs.histories:
        rows = with_histories(rows, history)
    return rows


def joined(
    pipeline: beam.Pipeline, rows: beam.PCollection, inputs: Inputs, paths: tuple[str, ...]
) -> beam.PCollection:
    """Returns the rows with the columns of tables, joined by track id."""
    columns = (
        pipeline
        | "tables" >> beam.Create(list(enumerate(paths)))
        | "read tables" >> beam.FlatMap(_rows_of_table, inputs)
    )
    by_track = rows | "by track" >> beam.WithKeys(lambda row: row[2][0])
    return (
        {"rows": by_track, "columns": columns}
        | "join tables" >> beam.CoGroupByKey()
        | "merge columns" >> beam.FlatMapTuple(_merge)
    )


def _rows_of_table(table: tuple[int, str], inputs: Inputs) -> Iterator[tuple[int, tuple[Any, ...]]]:
    index, path = table
    with files.open_to_read(path) as file:
        for track_id, columns in catalogue.read_columns(file, name=path, inputs=inputs):
            yield track_id, (index, *columns)


def _merge(track_id: int, found: dict[str, Iterable[tuple[Any, ...]]]) -> Iterator[Row]:
    tables = [Columns(*values) for _, *values in sorted(found["columns"], key=lambda c: c[0])]
    rows = list(found["rows"])
    if not rows:
        Metrics.counter("rows of --features_csv", "of no track of the subset").inc(len(tables))
    elif not tables:
        Metrics.counter("tracks", "in no --features_csv").inc()
    for split, shuffle_key, track in rows:
        yield split, shuffle_key, catalogue.merged(Track.unpacked(track), tables).packed()


def dated(rows: beam.PCollection) -> beam.PCollection:
    """Passes the rows on if all have a date from 1970 on; UserFacingError with how many do not."""
    counts = (
        rows
        | "has a date" >> beam.Map(lambda row: Track(*row[2]).date_created >= 0)
        | "count dates" >> beam.combiners.Count.PerElement()
        | "gather date counts" >> beam.combiners.ToDict()
    )
    return rows | "all dated" >> beam.Map(_refuse_undated, AsSingleton(counts))


def _refuse_undated(row: Row, counts: dict[bool, int]) -> Row:
    if undated := counts.get(False, 0):
        raise UserFacingError(
            f"{undated:,} of {sum(counts.values()):,} tracks have no date_created from "
            "1970 on, which config.split_by=date and config.popularity=listens_per_year and "
            "rank_among_contemporaries need"
        )
    return row


def split_by_date(rows: beam.PCollection, config: DatasetConfig) -> beam.PCollection:
    """Splits the rows: the oldest tracks for training, the newest for the test."""
    first_days = (
        rows
        | "day" >> beam.Map(lambda row: splits_and_shards.day_of(Track(*row[2]).date_created))
        # There are far fewer days than tracks.
        | "count days" >> beam.combiners.Count.PerElement()
        | "gather days" >> beam.combiners.ToList()
        | "first days" >> beam.Map(splits_and_shards.first_days, config.split_sizes)
    )
    return rows | "split by date" >> beam.Map(_split_by_date, AsSingleton(first_days))


def _split_by_date(row: Row, first_days: tuple[int, int]) -> Row:
    _, shuffle_key, track = row
    day = splits_and_shards.day_of(Track(*track).date_created)
    return splits_and_shards.split_of_day(day, first_days), shuffle_key, track


def with_listens_per_year(rows: beam.PCollection) -> beam.PCollection:
    """Returns the rows with their listens of an average year."""
    newest = (
        rows
        | "date" >> beam.Map(lambda row: Track(*row[2]).date_created)
        | "newest date" >> beam.CombineGlobally(_newest)
    )
    return rows | "listens per year" >> beam.Map(_with_listens_per_year, AsSingleton(newest))


def _newest(dates: Iterable[int]) -> int:
    return max(dates, default=-1)


def _with_listens_per_year(row: Row, newest: int) -> Row:
    split, shuffle_key, values = row
    track = Track(*values)
    counted_at = track.counted_at if track.counted_at >= 0 else newest
    per_year = popularity.listens_per_year(
        track.listens, age_seconds=counted_at - track.date_created
    )
    return split, shuffle_key, tuple(track._replace(popularity=float(per_year)))


def with_ranks(rows: beam.PCollection) -> beam.PCollection:
    """Returns the rows with the rank of their listens among those of the same quarter of a year."""
    by_quarter = rows | "by quarter" >> beam.WithKeys(
        lambda row: popularity.quarter_of(Track(*row[2]).date_created)
    )
    counts = (
        by_quarter
        | "listens in quarter"
        >> beam.MapTuple(lambda quarter, row: (quarter, Track(*row[2]).listens))
        | "count listens in quarter" >> beam.combiners.Count.PerElement()
        | "counts by quarter" >> beam.MapTuple(lambda key, count: (key[0], (key[1], count)))
    )
    return (
        {"rows": by_quarter, "counts": counts}
        | "join quarters" >> beam.CoGroupByKey()
        | "rank" >> beam.FlatMapTuple(_with_ranks)
    )


def _with_ranks(quarter: int, found: dict[str, Iterable[tuple[Any, ...]]]) -> Iterator[Row]:
    # A quarter has far fewer different numbers of listens than a catalogue has tracks.
    ranks = popularity.Ranks(list(found["counts"]))
    for split, shuffle_key, values in found["rows"]:
        track = Track(*values)
        yield split, shuffle_key, tuple(track._replace(popularity=ranks.of(track.listens)))


def with_histories(rows: beam.PCollection, history: str) -> beam.PCollection:
    """Returns the rows with what other tracks in the training split say.

    Args:
        rows: of the catalogue.
        history: a key of `inputs.HISTORIES`, which says which others: the artist's or, of these,
            the album's.
    """
    keyed = rows | f"key of {history}" >> beam.WithKeys(_key_of, history)
    known = keyed | f"has {history}" >> beam.Filter(lambda pair: pair[0] is not None)
    unknown = (
        keyed
        | f"has no {history}" >> beam.Filter(lambda pair: pair[0] is None)
        | f"rows without {history}" >> beam.Values()
    )
    totals = (
        known
        | f"own of {history}" >> beam.MapTuple(_keyed_own)
        | f"add up {history}" >> beam.CombinePerKey(_add_up)
    )
    with_history = (
        {"rows": known, "totals": totals}
        | f"join {history}" >> beam.CoGroupByKey()
        | f"rows with {history}" >> beam.FlatMap(_with_history, history)
    )
    return (with_history, unknown) | f"all of {history}" >> beam.Flatten()


def _key_of(row: Row, history: str) -> tuple[int, ...] | None:
    """Returns whose tracks count for a row, None where that is not known."""
    track = Track(*row[2])
    return other_tracks.key_of(history, artist_id=track.artist_id, album_id=track.album_id)


def _own(row: Row) -> other_tracks.Tracks:
    """Returns what a row adds to the tracks in the training split."""
    split, _, values = row
    if split != "train":
        return other_tracks.Tracks()
    return other_tracks.track_of(Track(*values).listens)


def _keyed_own(key: tuple[int, ...], row: Row) -> tuple[tuple[int, ...], tuple[int, int]]:
    own = _own(row)
    return key, (own.num_tracks, own.log_listens)


def _add_up(parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    total = other_tracks.Tracks()
    for part in parts:
        total += other_tracks.Tracks(*part)
    return total.num_tracks, total.log_listens


def _with_history(
    joined: tuple[tuple[int, ...], dict[str, Iterable[tuple[Any, ...]]]], history: str
) -> Iterator[Row]:
    _, found = joined
    (total,) = found["totals"]
    num_tracks, mean = HISTORIES[history]
    for row in found["rows"]:
        split, shuffle_key, values = row
        others = other_tracks.Tracks(*total).without(_own(row))
        told: dict[str, Any] = {num_tracks: others.num_tracks, mean: others.mean_log_listens}
        yield split, shuffle_key, tuple(Track(*values)._replace(**told))
