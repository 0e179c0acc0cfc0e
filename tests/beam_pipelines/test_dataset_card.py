"""The data card: it shows itself wherever it lies, and says what the catalogue and shards say."""

import pathlib
import random
import re
import urllib.parse
from collections import Counter

import markdown_it
import pytest

from beam_pipelines.card import contents, data_card
from beam_pipelines.card.contents import Contents
from beam_pipelines.stream import written_generation
from common import dataset_reader
from common.dataset_config import DatasetConfig
from configs import dataset_artist
from tests.beam_pipelines.test_build_dataset import examples_by_tensorflow
from tests.support.commands import assert_refused, build, files_of, read_csv, run_module

CONFIG = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
PICTURES = ("classes", "genres", "listens", "spectrograms", "years")


def inspect(dataset_dir, *arguments):
    return run_module("beam_pipelines.inspect_dataset", f"--dataset_dir={dataset_dir}", *arguments)


def table_below(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table of a section, without its header."""
    section = card.split(f"\n## {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def card_dir(dataset_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "my card"
    result = inspect(dataset_dir, f"--card={folder}")
    assert result.returncode == 0, result.stderr
    assert f"data card: {folder}/dataset_card.md" in result.stdout
    return folder


@pytest.fixture(scope="module")
def card(card_dir):
    return (card_dir / "dataset_card.md").read_text(encoding="utf-8")


def test_every_picture_lies_beside_the_card(card, card_dir):
    links = re.findall(r"!\[.+?\]\((.+?)\)", card)
    assert sorted(links) == [f"dataset_card-{subject}.png" for subject in PICTURES]
    for link in links:
        assert (card_dir / link).read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in card_dir.iterdir()} == {"dataset_card.md", *links}


def test_it_counts_what_the_catalogue_and_the_shards_hold(card, dataset_dir, library):
    groups, names, _, *rows = read_csv(library.tracks_csv)
    genre, artist = (
        list(zip(groups, names, strict=True)).index(pair)
        for pair in (("track", "genre_top"), ("artist", "id"))
    )
    row_of = {int(row[0]): row for row in rows}
    genres, artists = Counter(), Counter()
    for split in ("train", "validation", "test"):
        for features in examples_by_tensorflow(dataset_dir, split):
            row = row_of[features["track_id"].int64_list.value[0]]
            genres[row[genre], features["label"].int64_list.value[0]] += 1
            artists[row[artist]] += 1
    found = table_below(card, "Genres")
    assert {row[0] for row in found} == {name for name, _ in genres}
    for name, *counts, in_all, _ in found:
        assert list(map(int, counts)) == [genres[name, label] for label in range(3)]
        assert int(in_all) == sum(map(int, counts))
    largest = table_below(card, "Artists")
    assert [int(count) for _, count, _ in largest] == sorted(artists.values(), reverse=True)[:5]
    for name, count, _ in largest:
        assert artists[name] == int(count)
    assert f"{len(artists)} artists" in card


def test_it_says_where_the_data_comes_from(card, dataset_dir, library):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    assert info.fingerprint in card and info.catalog_sha256 in card
    assert [row[-1] for row in table_below(card, "Classes")] == ["16.8 %", "46.7 %", "36.5 %"]
    left_out = dict(table_below(card, "What was left out"))
    for reason in library.rejected.values():
        assert left_out[f"rejected: {reason}"] == "1"
    assert left_out["no audio for the row of the catalogue"] == str(len(library.missing_audio))
    assert "0 artists lie in two splits" in card
    for words in ("Thresholds: 1,000 and 3,500", "CC BY 4.0", "non-commercial", "derived from"):
        assert words in card


def test_a_card_beside_the_data_changes_nothing_of_it(dataset_dir, card_dir, library, tmp_path):
    for name, data in files_of(dataset_dir).items():
        (tmp_path / name).write_bytes(data)
    assert inspect(tmp_path, f"--card={tmp_path}", "--verify").returncode == 0
    assert files_of(tmp_path) == files_of(dataset_dir) | files_of(card_dir)
    result = build(
        library.tracks_csv,
        library.audio_dir,
        tmp_path,
        "--config.split_sizes=(0.5,0.25,0.25)",
    )
    assert "is finished" in result.stdout
    assert files_of(tmp_path) == files_of(dataset_dir) | files_of(card_dir)


def test_a_name_and_a_place_of_ones_own(dataset_dir, tmp_path):
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    held = contents.read(info, str(dataset_dir))
    path = data_card.write(info, held, str(tmp_path / "my music (2020).md"))
    links = re.findall(r"!\[.+?\]\((\S+)\)\n", (tmp_path / "my music (2020).md").read_text())
    assert path == str(tmp_path / "my music (2020).md")
    assert len(links) == len(PICTURES)
    for link in links:
        assert "(" not in link and (tmp_path / urllib.parse.unquote(link)).is_file()
    (tmp_path / "a file").write_text("")
    result = inspect(dataset_dir, f"--card={tmp_path / 'a file' / 'card'}")
    assert_refused(result, "a file/card: can't be written")


@pytest.mark.parametrize(
    ("largest", "genres"),
    [
        (0, [""]),
        (3, ["one"]),
        (999, ["$\\frac{", "a|b", "<script>alert(1)</script>", "line\nbreak", "x" * 300]),
        (10**18 - 1, [f"genre {number}" for number in range(50)]),
    ],
)
def test_any_values_make_a_card(dataset_dir, tmp_path, largest, genres):
    rng = random.Random(largest)
    info = dataset_reader.load_dataset_info(str(dataset_dir))
    listens, genre_counts, artists, years = Counter(), Counter(), Counter(), Counter()
    for _ in range(100):
        label = rng.randrange(3)
        listens[int((largest + 1) ** rng.random()) - (largest < 1000)] += 1
        genre_counts[rng.choice(genres), label] += 1
        artists[rng.choice([-1, 7, 10**17]), "train"] += 1
        if largest:
            years[rng.choice([1, 1969, 9999]), label] += 1
    contents = Contents(listens, genre_counts, artists, years, {0: [], 1: [], 2: []})
    data_card.write(info, contents, str(tmp_path))
    text = (tmp_path / "dataset_card.md").read_text()
    assert "<script>" not in text
    found = table_below(text.replace("\\|", "¦"), "Genres")
    assert sum(int(in_all) for *_, in_all, _ in found) == 100
    assert len(found) <= 21
    assert all(len(row) == 6 for row in found)
    assert ("dataset_card-years.png" in text) == bool(years)


def test_a_stream_that_has_just_begun_has_a_card(tmp_path):
    written_generation.begin_dataset(str(tmp_path), CONFIG)
    info = dataset_reader.load_dataset_info(str(tmp_path))
    held = contents.read(info, str(tmp_path))
    text = pathlib.Path(data_card.write(info, held, str(tmp_path))).read_text()
    assert [row[1] for row in table_below(text, "Classes")] == ["0", "0", "0"]
    assert "![" not in text and not list(tmp_path.glob("*.png"))


def test_a_card_may_lie_in_the_root_folder(tmp_path, monkeypatch):
    """As in a container; it must not go to the working directory instead."""
    written_generation.begin_dataset(str(tmp_path), CONFIG)
    info = dataset_reader.load_dataset_info(str(tmp_path))
    held = contents.read(info, str(tmp_path))
    written = []
    monkeypatch.setattr(
        data_card.files, "write_atomically", lambda folder, name, _: written.append((folder, name))
    )
    assert data_card.write(info, held, "/card.md") == "/card.md"
    assert written == [("/", "card.md")]


HOSTILE = [
    "[x](javascript:alert(1))",
    "![x](http://evil.example/pixel.png)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b",
    r"a \| b",
    "a \\",
    "`code` $math$ ~~gone~~ **bold** _under_ *star*",
    "http://evil.example",
    "https://evil.example and www.evil.example",
    "[x][y] [z]",
    "&lt;script&gt; &#91;",
    "line\nbreak\r\n# heading\t\x00\x1b[31m",
    "<javascript:alert(1)>",
    r"\[x\](y)",
    "__x__ _a_b_ snake_case ___",
    "WWW.evil.example",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_the_catalogue_are_text_in_the_card(name):
    """What a reader of GitHub's Markdown shows is the name itself, in its own cell."""
    markdown = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True})
    markdown.validateLink = lambda _: True  # javascript: too
    (table,) = data_card._markdown([("genre", "count"), (name, "1")])
    assert not re.search(r"\w://|(?i:www\.)", table)  # a link on GitHub without any brackets
    tokens = markdown.parse(table)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4 and [token.type for token in tokens].count("td_open") == 2
    assert {child.type for cell in cells for child in cell.children} <= {"text", "text_special"}
    shown = "".join(child.content for child in cells[2].children)
    assert shown.split() == re.sub(r"[\x00-\x1f]", " ", name).split()
