"""Announcements from strangers, the folder that they come in, and what becomes of each: no Beam."""

import csv
import dataclasses
import io
import itertools
import json
import random
from collections import Counter

import pytest

from beam_pipelines.stream import announcements, plan, run, sources
from beam_pipelines.stream.announcements import Unusable
from common import catalogue, generations
from common.errors import UserFacingError
from common.inputs import Inputs

NOW = int(generations.seconds_of("2026-11-25T12:00:00Z"))
GOOD = {
    "track_id": 7,
    "path": "ada/rivers.mp3",
    "announced_at": "2026-11-25T10:00:00Z",
    "listens": 1200,
    "artist": "Ada Rivers",
    "genre": "Folk",
    "date_created": "2026-11-24 08:00:00",
    "bpm": 120.5,
}


NO_INPUTS = Inputs()


def parse(values, inputs=NO_INPUTS):
    line = values if isinstance(values, bytes) else json.dumps(values).encode()
    return announcements.parse(line, inputs=inputs, now=NOW)


def test_a_good_announcement():
    found = parse(GOOD)
    assert (found.track_id, found.listens, found.path) == (7, 1200, "ada/rivers.mp3")
    assert found.seconds == generations.seconds_of("2026-11-25T10:00:00Z")
    assert found.cells["bpm"] == "120.5" and found.cells["artist"] == "Ada Rivers"
    # What is null, or not there, is unknown.
    without = {key: value for key, value in GOOD.items() if key not in ("listens", "genre")}
    assert parse(without | {"genre": None}).listens is None


def test_any_text_is_a_cell_of_the_catalogue():
    inputs = Inputs(texts=("lyrics",))
    for lyrics in (
        "old\rmac",
        "unix\nlines",
        "dos\r\nlines",
        'a "quote", a comma',
        "a\u2028b\x85c",
    ):
        cells = parse(GOOD | {"lyrics": lyrics}, inputs).cells
        text = announcements.catalogue_text([{"track_id": "7"} | cells])
        (row,) = csv.DictReader(io.StringIO(text.decode(), newline=""))
        assert row["lyrics"] == lyrics
        (track,) = catalogue.read_tracks(io.BytesIO(text), name="", subset="full", inputs=inputs)
        assert track.texts == (lyrics,)
        assert text.endswith(b"\n") and not text.endswith(b"\r\n")


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"track_id": "7"}, "malformed", "track_id"),
        ({"track_id": True}, "malformed", "track_id"),
        ({"track_id": -1}, "malformed", "track_id"),
        ({"track_id": 10**30}, "malformed", "track_id"),
        ({"path": None}, "malformed", "path"),
        ({"path": ""}, "malformed", "path"),
        ({"path": "a\nb"}, "malformed", "path"),
        ({"path": "a\0b"}, "malformed", "path"),
        ({"path": "x" * 2000}, "malformed", "path"),
        ({"path": "/etc/passwd"}, "outside_audio_dir", "path"),
        ({"path": "a/../../b"}, "outside_audio_dir", "path"),
        ({"path": "..\\b"}, "outside_audio_dir", "path"),
        ({"path": "gs://bucket/b"}, "outside_audio_dir", "path"),
        ({"path": "http://host/b"}, "outside_audio_dir", "path"),
        ({"path": "~/b"}, "outside_audio_dir", "path"),
        ({"announced_at": "2026-11-25"}, "malformed", "announced_at"),
        ({"announced_at": 1795600800}, "malformed", "announced_at"),
        ({"announced_at": "2026-11-27T00:00:00Z"}, "malformed", "out of range"),
        ({"announced_at": "0001-01-01T00:00:00Z"}, "malformed", "out of range"),
        ({"announced_at": "2026-02-30T00:00:00Z"}, "malformed", "announced_at"),
        ({"listens": 1.5}, "malformed", "listens"),
        ({"listens": -3}, "malformed", "listens"),
        ({"artist_id": "x"}, "malformed", "artist_id"),
        ({"date_created": "yesterday"}, "malformed", "date_created"),
        ({"genre": ["Folk"]}, "malformed", "genre"),
        ({"title": 3}, "malformed", "title"),
        ({"title": "\ud800"}, "malformed", "title"),
        ({"title": "x" * 30_000}, "malformed", "title"),
        ({"more": {"a": 1}}, "malformed", "more"),
        ({"more": True}, "malformed", "more"),
        ({"a b": 1}, "malformed", "a b"),
        ({f"k{index}": 1 for index in range(300)}, "malformed", "keys"),
    ],
)
def test_what_can_not_be_used_is_said(change, reason, words):
    with pytest.raises(Unusable) as raised:
        parse(GOOD | change)
    assert raised.value.reason == reason and words in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"track_id": NaN}',
        b'{"track_id": 1, "track_id": 2}',
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'{"track_id": ' + b"9" * 6_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_said(line):
    with pytest.raises(Unusable) as raised:
        parse(line)
    assert raised.value.reason == "malformed"


def test_a_huge_one_is_said():
    with pytest.raises(Unusable) as raised:
        parse(b"x" * (announcements.MAX_BYTES + 1))
    assert raised.value.reason == "too_long"


def test_columns_of_the_inputs_are_checked_as_the_catalogues():
    inputs = Inputs(numbers=("bpm",))
    assert parse(GOOD, inputs).cells["bpm"] == "120.5"
    with pytest.raises(Unusable, match="bpm"):
        parse(GOOD | {"bpm": "fast"}, inputs)


def test_random_bytes_are_an_announcement_or_unusable_and_nothing_else():
    generator = random.Random(0)
    good = json.dumps(GOOD).encode()
    for _ in range(1_000):
        line = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            line[generator.randrange(len(line))] = generator.randrange(256)
        try:
            parse(bytes(line))
        except Unusable as error:
            assert str(error).isprintable()


# ---------------------------------------------------------------- the folder


def test_a_folder_is_read_on_from_where_it_was(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(b"one\n\ntwo\r\nthr")
    (tmp_path / "a.jsonl").write_bytes(b"zero\n")
    (tmp_path / "notes.txt").write_bytes(b"other\n")
    (tmp_path / ".hidden.jsonl").write_bytes(b"other\n")
    source = sources.Folder(str(tmp_path))
    assert [line.data for line in source.lines({})] == [b"zero", b"one", b"two"]
    assert source.spans == {"a.jsonl": [0, 5], "b.jsonl": [0, 10]}
    position = {name: end for name, (_, end) in source.spans.items()}
    assert list(source.lines(position)) == [] and source.spans == {}
    with (tmp_path / "b.jsonl").open("ab") as file:
        file.write(b"ee\nfour\n")
    (line, other) = source.lines(position)
    assert (line.data, line.where, other.data) == (b"three", "b.jsonl, byte 10", b"four")
    assert source.spans == {"b.jsonl": [10, 21]}


def test_a_line_of_a_megabyte_is_cut_and_the_next_one_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"x" * 1_000_000 + b"\nnext\n")
    source = sources.Folder(str(tmp_path))
    huge, after = source.lines({})
    assert len(huge.data) == announcements.MAX_BYTES + 1
    assert after.data == b"next"
    assert source.spans == {"a.jsonl": [0, 1_000_006]}


def test_a_file_that_became_shorter_and_a_missing_folder_are_said(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    with pytest.raises(UserFacingError, match=r"a\.jsonl: has 4 bytes, and 9"):
        list(sources.Folder(str(tmp_path)).lines({"a.jsonl": 9}))
    with pytest.raises(UserFacingError, match="no such folder"):
        list(sources.Folder(str(tmp_path / "none")).lines({}))
    with pytest.raises(UserFacingError, match="--source=http"):
        sources.of("http://host/announced")


# ---------------------------------------------------------------- audio below its folder


def test_links_lead_nowhere_but_below_the_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    audio = tmp_path / "audio"
    (audio / "in").mkdir(parents=True)
    (audio / "in" / "song.mp3").write_bytes(b"x")
    (audio / "link.mp3").symlink_to("in/song.mp3")
    (audio / "out.mp3").symlink_to("../secret")
    (audio / "up").symlink_to("..")
    assert run.has_audio("in/song.mp3", audio_dir=str(audio))
    assert run.has_audio("link.mp3", audio_dir=str(audio))
    assert not run.has_audio("none.mp3", audio_dir=str(audio))
    for path in ("out.mp3", "up/secret", "../secret"):
        with pytest.raises(Unusable) as raised:
            run.has_audio(path, audio_dir=str(audio))
        assert raised.value.reason == "outside_audio_dir"


# ---------------------------------------------------------------- what becomes of each

RULES = plan.Rules(window=300, audio_wait=600, label_wait=3_000, max_tracks=3)


def announced(track_id, *, at=0, listens=100, path=None):
    values = GOOD | {
        "track_id": track_id,
        "announced_at": generations.text_of(NOW - 3_600 + at),
        "listens": listens,
        "path": path or f"{track_id}.mp3",
    }
    return parse(values)


def made(
    new,
    *,
    waiting=(),
    listens=None,
    newest_end=0,
    now=NOW,
    has_audio=lambda _: True,
    announced_at=dict,
    rules=RULES,
):
    return plan.make(
        waiting,
        new,
        rules=rules,
        listens=listens or {},
        newest_end=newest_end,
        now=now,
        has_audio=has_audio,
        announced_at=announced_at,
    )


def rows(found):
    return [
        [(row.announcement.track_id, row.announcement.listens) for row in part.rows]
        for part in found.parts
        if part.rows
    ]


def looks(found):
    return [
        (look.announcement.track_id, look.announcement.listens)
        for part in found.parts
        for look in part.looks
    ]


def test_a_generation_for_each_window_and_not_too_large():
    found = made([announced(track, at=at) for at in (600, 0) for track in range(at, at + 4)])
    assert rows(found) == [
        [(0, 100), (1, 100), (2, 100)],
        [(3, 100)],
        [(600, 100), (601, 100), (602, 100)],
        [(603, 100)],
    ]
    starts = [part.window[0] - (NOW - 3_600) for part in found.parts]
    assert starts == [0, 0, 600, 600]


def test_the_newest_of_a_window_is_the_row_and_a_later_look_corrects_it():
    found = made(
        [
            announced(1, at=20, listens=30),
            announced(1, at=10, listens=20),
            announced(1, at=900, listens=30),
            announced(1, at=1_200, listens=99),
        ]
    )
    assert rows(found) == [[(1, 30)]]
    assert found.counts == {"merged": 1, "duplicates": 1, "corrections": 1}
    assert looks(found) == [(1, 99)] and not found.dead


def test_only_what_is_newer_corrects_a_track_that_is_written():
    every = [announced(1, at=at, listens=at) for at in (10, 200, 30)]
    for order in itertools.permutations(every):
        known, times, counts = {1: 50}, {1: NOW - 3_600 + 100.0}, Counter()
        for look in order:
            found = made([look], listens=known, announced_at=lambda times=times: times)
            counts += found.counts
            for track, listens in looks(found):
                known, times = {track: listens}, {track: look.seconds}
        assert known == {1: 200} and counts == {"duplicates": 2, "corrections": 1}


def test_an_announcement_waits_for_its_listens():
    first = made([announced(1, listens=None)])
    assert not first.parts and first.news and len(first.waiting) == 1
    then = made([announced(1, at=1_200, listens=50)], waiting=first.waiting, now=NOW + 60)
    assert rows(then) == [[(1, 50)]] and not then.waiting
    never = made([], waiting=first.waiting, now=NOW + 3_000)
    assert [line.reason for line in never.dead] == ["no_listens"]


def test_audio_that_is_not_there_yet_is_waited_for():
    first = made([announced(1)], has_audio=lambda _: False)
    assert not first.parts and len(first.waiting) == 1
    assert rows(made([], waiting=first.waiting, now=NOW + 60)) == [[(1, 100)]]
    still = made([], waiting=first.waiting, now=NOW + 60, has_audio=lambda _: False)
    assert not still.parts and still.waiting == first.waiting and not still.news
    # Then the job looks once more.
    assert rows(made([], waiting=first.waiting, now=NOW + 600, has_audio=lambda _: False)) == [
        [(1, 100)]
    ]


def test_a_window_that_is_open_waits_and_changes_nothing():
    found = made([announced(1, at=3_650)])
    assert not found.parts and not found.news and len(found.waiting) == 1


def test_late_ones_are_taken_and_too_late_ones_listed():
    newest = NOW - 3_600 + 86_400 * 31
    found = made([announced(1)], newest_end=NOW)
    assert [row.late for part in found.parts for row in part.rows] == [True]
    found = made([announced(1)], newest_end=newest)
    assert [line.reason for line in found.dead] == ["too_late"]


def test_whatever_the_order_and_however_often_they_come_nothing_is_lost():
    generator = random.Random(1)
    for _ in range(50):
        new = [
            announced(
                generator.randrange(6),
                at=generator.randrange(0, 3_900, 150),
                listens=generator.choice([None, 10, 20]),
            )
            for _ in range(20)
        ]
        audio = {f"{track}.mp3" for track in range(6) if generator.random() < 0.7}
        found = made(new, has_audio=audio.__contains__)
        num_rows = sum(len(part.rows) for part in found.parts)
        settled = num_rows + len(found.waiting) + len(found.dead) + found.counts.total()
        assert settled == len(new)
        generator.shuffle(new)
        again = made(new, has_audio=audio.__contains__)
        assert (again.parts, again.waiting, again.counts) == (
            found.parts,
            found.waiting,
            found.counts,
        )
        tracks = [row.announcement.track_id for part in found.parts for row in part.rows]
        assert len(tracks) == len(set(tracks))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_one_run_over_all_and_a_run_after_each_window_give_the_same_generations(unlabelled):
    rules = dataclasses.replace(RULES, unlabelled=unlabelled)
    new = [
        announced(track, at=at, listens=listens)
        for (track, at), listens in zip(
            itertools.product(range(4), range(0, 1_500, 150)),
            itertools.cycle([None, 10, 20, 30]),
            strict=False,
        )
    ]
    at_once = made(new, rules=rules)
    assert looks(at_once)
    waiting, listens, times, parts, newest = [], {}, {}, [], 0.0
    for start in range(0, 1_500, 150):  # in the middle of a window, and at its end
        some = [each for each in new if each.seconds == NOW - 3_600 + start]
        step = made(
            some,
            rules=rules,
            waiting=waiting,
            listens=listens,
            announced_at=lambda: times,
            newest_end=newest,
            now=NOW - 3_600 + start + 150,
        )
        waiting = step.waiting
        for part in step.parts:
            newest = max(newest, part.window[1])
            parts.append(part)
            for entry in part.entries:
                track, seen = entry.announcement.track_id, entry.announcement.listens
                listens[track] = -1 if seen is None else seen
                times[track] = entry.announcement.seconds
    assert not waiting
    for which in ("rows", "looks"):
        assert [[each.announcement for each in getattr(part, which)] for part in parts] == [
            [each.announcement for each in getattr(part, which)] for part in at_once.parts
        ]
    assert not any(row.late for part in parts for row in part.rows)


def test_a_track_without_listens_lands_at_once_and_its_label_follows():
    rules = dataclasses.replace(RULES, unlabelled=True)
    new = [announced(1, listens=None), announced(1, at=900, listens=7), announced(2, listens=5)]
    found = made(new, rules=rules)
    assert rows(found) == [[(1, None), (2, 5)]] and looks(found) == [(1, 7)]
    assert found.counts == {"labels": 1} and not found.waiting
    # A label that was announced before the audio, and came after it; then what is newer counts.
    earlier = announced(1, at=-900, listens=9)
    found = made([earlier], rules=rules, listens={1: -1})
    assert looks(found) == [(1, 9)] and found.counts == {"labels": 1}
    found = made([earlier, announced(1, at=30, listens=4)], rules=rules, listens={1: -1})
    assert looks(found) == [(1, 9), (1, 4)]
    assert found.counts == {"labels": 1, "corrections": 1}
    found = made([announced(1, at=900, listens=None)], rules=rules, listens={1: -1})
    assert not found.parts and found.counts == {"duplicates": 1}


def test_a_label_of_a_track_that_nobody_knows_waits_for_its_audio_and_is_listed():
    rules = dataclasses.replace(RULES, unlabelled=True)
    first = made([announced(1, listens=7)], rules=rules, has_audio=lambda _: False)
    assert not first.parts and len(first.waiting) == 1
    then = made([announced(1, at=300, listens=None)], rules=rules, waiting=first.waiting)
    assert rows(then) == [[(1, 7)]]
    never = made([], rules=rules, waiting=first.waiting, now=NOW + 600, has_audio=lambda _: False)
    assert rows(never) == [[(1, 7)]]  # the job looks once more, and lists it
