"""Tables of what a dataset holds, for a person."""

import statistics

from beam_pipelines.card.contents import Contents, by_class
from common import dataset_info, labels, tables
from common.dataset_info import DatasetInfo
from common.printable import printable

_GENRES_LISTED = 20
_ARTISTS_LISTED = 5

Rows = list[tuple[str, ...]]


def table(info: DatasetInfo) -> str:
    """Formats the examples of each split and class, and what was left out, as lines of text."""
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in info.rejected.items())
    check = info.split_check
    return "\n".join(
        [
            *tables.aligned(split_rows(info)),
            f"rejected: {rejected or 'none'} (listed in {dataset_info.REJECTED_FILE})",
            f"rows of the subset without audio: {info.missing_audio:,}",
            *([unlabelled_in_words(info)] if info.unlabelled else []),
            f"split by {check['by']}: {check['groups_in_two_splits']:,} in two splits "
            f"(artists: {check['artists_in_two_splits']:,})",
        ]
    )


def unlabelled_in_words(info: DatasetInfo) -> str:
    """Returns a line about records that no generation knows the listens of."""
    return f"records without a label, which training passes over: {info.unlabelled:,}"


def contents_table(contents: Contents, info: DatasetInfo) -> str:
    """Formats the examples of each genre and class, and of the largest artists, as text."""
    return "\n".join(
        [
            *tables.aligned(genre_rows(contents, info)),
            "",
            artists_in_words(contents),
            *tables.aligned(artist_rows(contents)),
        ]
    )


def split_rows(info: DatasetInfo) -> Rows:
    """Returns the examples of each split and class, under a header."""
    counts = [
        sum(split.class_counts[name] for split in info.splits.values()) for name in info.class_names
    ]
    shares = [tables.percent(count / max(1, info.num_examples)) for count in counts]
    return [
        ("split", *info.class_names, "all", "artists", "shards"),
        *(
            (
                name,
                *(f"{count:,}" for count in split.class_counts.values()),
                f"{split.num_examples:,}",
                f"{split.num_artists:,}",
                f"{len(split.shards)}",
            )
            for name, split in info.splits.items()
        ),
        ("all", *(f"{count:,}" for count in counts), f"{info.num_examples:,}", "", ""),
        ("share", *shares, "", "", ""),
    ]


def genre_rows(contents: Contents, info: DatasetInfo) -> Rows:
    """Returns the examples of each genre and class, the largest genres first, under a header."""
    return [
        ("genre", *info.class_names, "all", "share"),
        *(
            (
                genre,
                *(f"{count:,}" for count in counts),
                f"{sum(counts):,}",
                tables.percent(sum(counts) / contents.num_examples),
            )
            for genre, counts in largest_genres(contents, info).items()
        ),
    ]


def class_ranges(info: DatasetInfo) -> list[str]:
    """Returns each class in words, such as `medium: 1,000 to 3,499 listens`."""
    return labels.class_ranges(info.class_names, info.thresholds, popularity=info.config.popularity)


def largest_genres(contents: Contents, info: DatasetInfo) -> dict[str, list[int]]:
    """Returns {genre: examples of each class}, the largest first and beyond 20 in one sum."""
    genres = by_class(contents.genres, len(info.class_names))
    ranked = sorted(genres.items(), key=lambda item: (-sum(item[1]), item[0]))
    found: dict[str, list[int]] = {}
    for genre, counts in ranked[:_GENRES_LISTED]:
        name = printable(genre) or "unknown"
        # Two of them may look alike where they are cut.
        found[name] = [
            sum(pair) for pair in zip(counts, found.get(name, [0] * len(counts)), strict=True)
        ]
    if rest := ranked[_GENRES_LISTED:]:
        sums = [sum(column) for column in zip(*(counts for _, counts in rest), strict=True)]
        found[f"{len(rest):,} others"] = sums
    return found


def artists_in_words(contents: Contents) -> str:
    """Returns how many artists there are, and how many examples an artist has."""
    counts = contents.examples_of_artist
    words = f"{len(counts):,} artist{'s' * (len(counts) != 1)}"
    if counts:
        median = statistics.median(counts.values())
        words += f"; examples an artist: median {median:g}, at most {max(counts.values()):,}"
    if unknown := contents.examples_without_artist:
        words += f"; {unknown:,} examples of unknown artists"
    return words


def artist_rows(contents: Contents) -> Rows:
    """Returns the examples of the largest artists, under a header."""
    ranked = sorted(contents.examples_of_artist.items(), key=lambda item: (-item[1], item[0]))
    return [
        ("artist_id", "examples", "share"),
        *(
            (str(artist), f"{count:,}", tables.percent(count / contents.num_examples))
            for artist, count in ranked[:_ARTISTS_LISTED]
        ),
    ]
