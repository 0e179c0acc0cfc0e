"""A topic of a real broker becomes what a folder of the same announcements does."""

import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from beam_pipelines import pipeline
from beam_pipelines.stream import compaction, kafka, known, patience, sources, written_generation
from common import catalogue, dataset_reader
from common.errors import UserFacingError
from common.generations import Manifest
from tests.support.commands import IN_MEMORY, run_module
from tests.support.kafka_broker import Broker
from tests.support.paths import ROOT
from tests.support.streaming import streaming
from tests.support.streams import (
    RULES,
    Killed,
    MadeUp,
    announce,
    announced,
    batch,
    counts_of,
    everything_in,
    make_music,
    row,
    shards_of,
    stream,
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as broker:
        yield broker


@pytest.fixture
def name(request):
    """A topic's, of this test alone."""
    return request.node.name.replace("[", "-").strip("]")


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """A decoder that takes a moment, and its music."""
    monkeypatch.setattr(pipeline, "Decoder", MadeUp)
    return make_music(tmp_path / "music")


@contextlib.contextmanager
def topic(broker, name, **how):
    how = {"once": True, "patient_for": 60} | how
    with contextlib.closing(kafka.Topic(f"kafka://{broker.address}/{name}", **how)) as found:
        yield found


def committed(broker, name, partitions=3):
    """The offsets of the group, as those see it who watch its lag; None where there are none."""
    consumer = Consumer(broker.client | {"group.id": "stream_dataset"})
    with contextlib.closing(consumer):
        places = [TopicPartition(name, partition) for partition in range(partitions)]
        found = consumer.committed(places, timeout=30)
    return [place.offset if place.offset >= 0 else None for place in found]


def lines_of(*values):
    return [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values]


@pytest.mark.integration
def test_the_bytes_are_those_of_a_folder_and_of_the_batch_job(tmp_path, broker, library, name):
    """Real clips over three partitions, with duplicates and what can't be used among them."""
    with library.tracks_csv.open("rb") as file:
        tracks = list(catalogue.read_tracks(file, name="", subset="small"))[::2]
    columns = ("track_id", "path", "listens", "artist_id", "genre")
    rows = [{column: getattr(track, column) for column in columns} for track in tracks]
    lines = lines_of(*(values | {"announced_at": "2026-11-25T10:00:00Z"} for values in rows))
    lines += [*lines[:5], b"no json", b'{"track_id": ' + b"1" * 1_000_000 + b"}"]
    random.Random(0).shuffle(lines)
    broker.make_topic(name, partitions=3, **{"max.message.bytes": "2000000"})
    broker.send(name, ((at % 3, line) for at, line in enumerate(lines)))
    uri = f"kafka://{broker.address}/{name}"
    result = run_module(
        "beam_pipelines.stream_dataset",
        "--config=configs/dataset_artist.py",
        "--config.split_sizes=(0.5,0.25,0.25)",
        f"--source={uri}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={tmp_path / 'topic'}",
        "--audio_wait=0s",
        "--once",
        *IN_MEMORY,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "5 merged" in result.stdout and "1 too_long" in result.stdout

    announce(tmp_path / "announced", *lines)
    (tmp_path / "music").symlink_to(library.audio_dir)
    rules = dataclasses.replace(RULES, audio_wait=0)
    (expected,) = stream(tmp_path, output="folder", rules=rules)
    made = tmp_path / "topic/generations/000001"
    assert shards_of(made) == shards_of(batch(tmp_path, rows))
    assert shards_of(made) == shards_of(tmp_path / "folder/generations/000001")
    manifest = Manifest.from_json((made / "manifest.json").read_text())
    ends = [len(lines[partition::3]) for partition in range(3)]
    assert manifest.source["offsets"] == {str(p): [0, end] for p, end in enumerate(ends)}
    assert committed(broker, name) == ends
    assert dataclasses.replace(manifest, source=expected.source) == expected
    with topic(broker, name) as source:
        assert not stream(tmp_path, output="topic", source=source)


@pytest.mark.integration
@pytest.mark.parametrize("place", ["before", "after"])
def test_offsets_are_committed_after_the_manifest(
    tmp_path, broker, name, made_up, monkeypatch, place
):
    """The run is killed before its manifest, or between that and the commit."""
    values = lines_of(*(announced(track, at=track % 3 * 300) for track in range(12)), b"no json")
    broker.make_topic(name, partitions=3)
    broker.send(name, ((at % 3, line) for at, line in enumerate(values)))
    write_manifest = written_generation.write_manifest

    def die(folder, manifest):
        if place == "after":
            write_manifest(folder, manifest)
        raise Killed

    with topic(broker, name) as source:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(written_generation, "write_manifest", die)
            stream(tmp_path, source=source)
        assert committed(broker, name) == [None, None, None]
    made = tmp_path / "dataset/generations/000001"
    assert list(made.glob("*.tfrecord-*"))
    assert (made / "manifest.json").exists() == (place == "after")
    with topic(broker, name) as source:
        stream(tmp_path, source=source)
    announce(tmp_path / "announced", *values)
    stream(tmp_path, output="folder")
    theirs = everything_in(tmp_path / "folder")
    ours = everything_in(tmp_path / "dataset")
    assert ours.keys() == theirs.keys()
    assert all(ours[file] == theirs[file] for file in ours if not file.endswith("rejected.jsonl"))
    if place == "before":
        assert committed(broker, name) == [5, 4, 4]
    broker.send(name, [(1, lines_of(announced(20, at=900))[0])])
    with topic(broker, name) as source:
        (manifest,) = stream(tmp_path, source=source)
    assert manifest.source["offsets"] == {"1": [4, 5]}
    assert committed(broker, name)[1] == 5


@pytest.mark.integration
def test_the_offsets_of_the_manifests_have_no_gap(tmp_path, broker, name, made_up):
    """Over many runs of one process, with transactions, some of which are given up."""
    broker.make_topic(name, partitions=3)
    rng, sent = random.Random(1), 0
    producer = Producer(broker.client | {"transactional.id": name})
    producer.init_transactions(30)
    manifests = []
    with topic(broker, name) as source:
        for step in range(5):
            for _ in range(4):
                producer.begin_transaction()
                is_kept = rng.random() < 0.6
                for _ in range(rng.randrange(4)):
                    value = announced(sent if is_kept else 39, at=300 * step)
                    producer.produce(name, *lines_of(value), partition=rng.randrange(3))
                    sent += is_kept
                (producer.commit_transaction if is_kept else producer.abort_transaction)(30)
            manifests += stream(tmp_path, source=source)
        for _ in range(100):  # a broker may show the end of the last one a moment later
            if sum(manifest.counts["tracks"] for manifest in manifests) == sent:
                break
            time.sleep(0.1)
            manifests += stream(tmp_path, source=source)
    assert_no_gap(manifests, {str(p): end for p, end in enumerate(committed(broker, name)) if end})
    expected = batch(tmp_path, [row(track) for track in range(sent)])
    assert 10 < sent < 39
    wanted = dataset_reader.load_dataset_info(str(expected))
    assert sum(manifest.num_examples for manifest in manifests) == wanted.num_examples


@pytest.mark.integration
def test_kills_of_a_stream_without_an_engine_at_random(tmp_path, broker, name, made_up):
    """Processes that are killed with -9 one after the other lose nothing and do nothing twice."""
    rng, kills = random.Random(3), int(os.environ.get("SOAK_STREAM_KILLS", 3))
    number = 200 if kills == 3 else 1_000
    for track in range(40, number):
        (made_up / f"{track}.mp3").write_bytes(b"song %d" % track)
    lines = lines_of(*(announced(track, at=track * 3_000 // number) for track in range(number)))
    # The bad track might be tried again.
    lines += [rng.choice(lines[14:]) for _ in range(20)] + [b"no json"] * 5
    rng.shuffle(lines)
    broker.make_topic(name, partitions=3)
    uri = f"kafka://{broker.address}/{name}"
    command = [sys.executable, "-m", "tests.support.stream_process", uri, str(tmp_path)]
    for kill in range(kills):
        broker.send(name, ((at % 3, line) for at, line in enumerate(lines[kill::kills])))
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(rng.randrange(1, 4)):
                process.stdout.readline()  # a generation more is there
            time.sleep(rng.random() / 4)
            process.kill()
    with topic(broker, name) as source:
        while stream(tmp_path, source=source):
            pass

    there = known.load(str(tmp_path / "dataset"), uri=uri)
    assert sorted(there.listens) == [track for track in range(number) if track != 13]
    counts = counts_of(there.manifests)
    settled = ("tracks", "merged", "duplicates", "malformed")
    assert counts["announced"] == len(lines) == sum(counts[name] for name in settled)
    assert (counts["tracks"], counts["malformed"]) == (number, 5)
    assert_no_gap(there.manifests, {str(p): end for p, end in enumerate(committed(broker, name))})
    made = compaction.compact(str(tmp_path / "dataset"))
    expected = batch(tmp_path, [row(track) for track in range(number)])
    folder = tmp_path / f"dataset/generations/{made.generation:06d}"
    assert shards_of(folder) == shards_of(expected)


# How the processes of a stream on Flink are told, by their command lines.
KILLED = {"engine": "flink-starter", "worker": "SdkHarness"}


@pytest.mark.integration
def test_kills_of_a_stream_on_flink_at_random(tmp_path, broker, name, flink, library):
    """Of real clips: whoever is killed with -9, the same command goes on, to the same bytes.

    A worker in the command's own process dies with that; one in a process of its own, and the job
    and task manager, alone.
    """
    rng, kills = random.Random(4), int(os.environ.get("SOAK_STREAM_KILLS", 3))
    number = 60 if kills == 3 else 1_000
    with library.tracks_csv.open("rb") as file:
        songs = list(catalogue.read_tracks(file, name="", subset="small"))
    rows = [row(track, path=songs[track % len(songs)].path) for track in range(number)]
    lines = lines_of(
        *(announced(track, at=track * 30, path=values["path"]) for track, values in enumerate(rows))
    )
    # A track that is rejected or has no audio would be tried again.
    bad = {*library.rejected, *library.missing_audio}
    good = [line for at, line in enumerate(lines) if songs[at % len(songs)].track_id not in bad]
    lines += [rng.choice(good) for _ in range(10)] + [b"no json"] * 5 + [b"x" * 1_000_000]
    rng.shuffle(lines)
    broker.make_topic(name, partitions=3)
    uri = f"kafka://{broker.address}/{name}"
    how = [f"--source={uri}", f"--audio_dir={library.audio_dir}", "--audio_wait=0s", "--poll=1s"]
    kinds = ["worker", "engine", "command"]
    for kill in range(kills):
        broker.send(name, ((at % 3, line) for at, line in enumerate(lines[kill::kills])))
        kind = kinds[kill % 3]
        more = ["--experiments=use_loopback_process_worker"] if kind == "worker" else []
        # Beam starts it as `python`.
        env = {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
        with streaming(tmp_path / "dataset", *how, *flink, *more, env=env) as running:
            running.wait_for_generations(len(running.manifests()) + rng.randrange(1, 3))
            time.sleep(rng.random() / 2)
            if kind == "command":
                running.kill()
                continue
            (victim,) = running.below(KILLED[kind])
            os.kill(victim, signal.SIGKILL)
            assert running.process.wait(240) == 1
            errors = running.errors.splitlines()
            assert len(errors) == 1, errors
            assert errors[0].endswith("; the same command goes on")
    with streaming(tmp_path / "dataset", *how, *flink) as running:
        running.wait_for(lambda made: counts_of(made)["announced"] == len(lines))
        running.wait_for(lambda made: counts_of(made)["tracks"] == number)
        running.end()
    there = known.load(str(tmp_path / "dataset"), uri=uri)
    counts = counts_of(there.manifests)
    settled = ("tracks", "merged", "duplicates", "malformed", "too_long")
    assert counts["announced"] == len(lines) == sum(counts[name] for name in settled)
    assert (counts["malformed"], counts["too_long"], there.waiting) == (5, 1, [])
    assert any(manifest.late for manifest in there.manifests)
    assert_no_gap(there.manifests, {str(p): end for p, end in enumerate(committed(broker, name))})
    (tmp_path / "music").symlink_to(library.audio_dir)
    made = compaction.compact(str(tmp_path / "dataset"))
    folder = tmp_path / f"dataset/generations/{made.generation:06d}"
    assert shards_of(folder) == shards_of(batch(tmp_path, rows))


@pytest.mark.integration
def test_a_stream_on_prism_outlasts_a_kill_and_its_broker(tmp_path, broker, name, prism, made_up):
    """The command is killed, then the broker is away, and audio comes after what announces it.

    The first announcement is hours newer than the others, one is a duplicate, one has a megabyte.
    """
    away = float(os.environ.get("SOAK_STREAM_AWAY", 2))
    late = (made_up / "7.mp3").rename(tmp_path / "7.mp3")
    broker.make_topic(name, partitions=3)
    times = [14_400, *(track % 2 * 300 for track in range(1, 20))]
    lines = lines_of(*(announced(track, at=at) for track, at in enumerate(times)), b"no json")
    lines += [lines[3], b"x" * 1_000_000]
    uri = f"kafka://{broker.address}/{name}"
    how = [f"--source={uri}", f"--audio_dir={made_up}", "--poll=1s", *prism]
    dataset = tmp_path / "dataset"
    with streaming(dataset, *how, made_up=True) as running:
        broker.send(name, [(0, lines[0])])
        running.wait_for(lambda made: counts_of(made)["announced"] == 1)
        broker.send(name, ((at % 3, line) for at, line in enumerate(lines[1:11])))
        running.wait_for(lambda made: counts_of(made)["announced"] == 11)
        assert running.below("--job_port")  # Prism
        running.kill()
    with streaming(dataset, *how, made_up=True) as running:
        broker.kill()
        time.sleep(away)
        late.rename(made_up / "7.mp3")
        broker.start()
        broker.send(name, ((at % 3, line) for at, line in enumerate(lines[11:])))
        running.wait_for(lambda made: counts_of(made)["announced"] == len(lines))
        made = running.wait_for(lambda made: counts_of(made)["tracks"] == 20)
        running.end()
    assert sum(manifest.late for manifest in made) == 19
    ends = dict(zip("012", committed(broker, name), strict=True))
    counts = {"announced": 23, "tracks": 20, "too_long": 1, "malformed": 1, "undecodable": 1}
    assert counts_of(made) - Counter(counts) in (Counter(merged=1), Counter(duplicates=1))
    assert_no_gap(made, ends)
    compacted = compaction.compact(str(dataset))
    folder = dataset / f"generations/{compacted.generation:06d}"
    assert shards_of(folder) == shards_of(batch(tmp_path, [row(track) for track in range(20)]))


def assert_no_gap(manifests, ends):
    """The offsets of each partition follow on one another, from 0 to the end."""
    spans = {}
    for manifest in manifests:
        for part, span in manifest.source["offsets"].items():
            spans.setdefault(part, []).append(span)
    assert {part: mine[-1][1] for part, mine in spans.items()} == ends
    for mine in spans.values():
        assert mine[0][0] == 0
        assert all(before[1] == after[0] for before, after in itertools.pairwise(mine))


@pytest.mark.integration
def test_a_broker_that_goes_away_is_waited_for(
    tmp_path, broker, name, made_up, monkeypatch, capsys
):
    """It dies while it is read, with more to come than the client has at once."""
    number = 600
    monkeypatch.setattr(kafka, "_AT_ONCE", 10)
    broker.make_topic(name, partitions=3)
    broker.send(name, ((at % 3, b"%d " % at + b"x" * 50_000) for at in range(number)))
    with topic(broker, name, once=False) as source:
        lines = source.lines({})
        found = [next(lines)]
        broker.kill()
        with topic(broker, name, patient_for=2) as impatient:
            words = f"{name}: has not answered for .* s .*; nothing is lost"
            with pytest.raises(UserFacingError, match=words):
                stream(tmp_path, source=impatient)
        assert capsys.readouterr().out.count("trying again") == 1
        assert not list(tmp_path.glob("dataset/generations/*"))

        pauses = []

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 3:
                broker.start()
            time.sleep(seconds)

        monkeypatch.setattr(patience, "sleep", pause)
        found += lines
    places = [int(line.data.partition(b" ")[0]) for line in found]
    assert sorted(places) == list(range(number))
    assert len({line.where for line in found}) == number
    assert capsys.readouterr().out.count("trying again") == 1


@pytest.mark.integration
def test_what_is_gone_before_it_was_read_is_named_and_counted(tmp_path, broker, name, made_up):
    broker.make_topic(name, partitions=2)
    broker.send(name, ((1, line) for line in lines_of(*map(announced, range(5)))))
    with topic(broker, name) as source:
        stream(tmp_path, source=source)
        later = lines_of(*(announced(track, at=300) for track in range(5, 12)))
        broker.send(name, ((1, line) for line in later))
        broker.delete_before(name, partition=1, offset=8)
        with pytest.raises(UserFacingError, match=r"partition 1: offsets 5 to 7 .*--skip_expired"):
            stream(tmp_path, source=source)
    assert len(list(tmp_path.glob("dataset/generations/*"))) == 1
    with topic(broker, name, skip_expired=True) as source:
        (manifest,) = stream(tmp_path, source=source)
        assert manifest.source["offsets"] == {"1": [5, 12]}
        assert manifest.counts == {"announced": 4, "expired": 3, "tracks": 4}
        broker.delete_before(name, partition=1, offset=12)
        assert not stream(tmp_path, source=source)


@pytest.mark.integration
def test_a_topic_that_was_made_anew_or_is_not_there_is_refused(tmp_path, broker, name, made_up):
    with topic(broker, name) as source, pytest.raises(UserFacingError, match="Unknown topic"):
        stream(tmp_path, source=source)
    for number in (5, 2):
        broker.make_topic(name, partitions=1)
        broker.send(name, ((0, line) for line in lines_of(*map(announced, range(number)))))
        if number == 5:
            with topic(broker, name) as source:
                stream(tmp_path, source=source)
            broker.delete_topic(name)
            time.sleep(1)
    with topic(broker, name) as source, pytest.raises(UserFacingError, match="ends at offset 2"):
        stream(tmp_path, source=source)


@pytest.mark.integration
def test_credentials_come_from_a_file_and_are_never_shown(tmp_path, name, monkeypatch, capfd):
    right, wrong = "open-sesame", "wrong-secret"
    path = tmp_path / "client.properties"
    monkeypatch.setenv("KAFKA_PROPERTIES", str(path))
    with Broker(tmp_path / "broker", user="ada", password=right) as broker:
        broker.make_topic(name, partitions=1)
        broker.send(name, [(0, b"no json")])
        for password in (right, wrong):
            given = broker.client | {"sasl.password": password}
            text = "# of the broker\n" + "".join(f"{key}={value}\n" for key, value in given.items())
            path.write_text(text)
            with topic(broker, name) as source:
                if password == right:
                    (manifest,) = stream(tmp_path, source=source)
                    continue
                with pytest.raises(UserFacingError, match="Authentication failed") as refused:
                    stream(tmp_path, source=source)
    assert manifest.rejected == {"malformed": 1}
    assert "KAFKA_PROPERTIES" in str(refused.value)
    shown = "".join(capfd.readouterr()) + str(refused.value)
    written = [path.read_text() for path in (tmp_path / "dataset").rglob("*") if path.is_file()]
    assert written and not any(secret in "".join([shown, *written]) for secret in (right, wrong))


@pytest.mark.parametrize(
    "uri",
    [
        "kafka://broker/topic",
        "kafka://ada:open-sesame@broker:9092/topic",
        "kafka://broker:9092/topic?sasl.password=open-sesame",
        "kafka://broker:9092/two/topics",
    ],
)
def test_another_uri_is_refused_and_not_repeated(uri):
    with pytest.raises(UserFacingError, match="--source=kafka") as refused:
        sources.of(uri, once=True, skip_expired=False)
    assert "sesame" not in str(refused.value) and "KAFKA_PROPERTIES" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sasl.passwort=open-sesame", "sasl.passwort: no such property"),
        ("security.protocol=open-sesame", "security.protocol: no such property, or not such"),
        ("open-sesame", "line 1 is not key=value"),
        (b"\xffopen-sesame", "can't be read"),
        (None, "can't be read"),
    ],
)
def test_a_wrong_file_of_properties_is_named_and_not_repeated(tmp_path, monkeypatch, text, words):
    path = tmp_path / "client.properties"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("KAFKA_PROPERTIES", str(path))
    with pytest.raises(UserFacingError, match=words) as refused:
        sources.of("kafka://localhost:1/topic", once=True, skip_expired=False)
    assert str(path) in str(refused.value) and "sesame" not in str(refused.value)


def test_without_the_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "beam_pipelines.stream.kafka")
    with pytest.raises(UserFacingError, match=r"confluent_kafka.*pip install"):
        sources.of("kafka://localhost:1/topic", once=True, skip_expired=False)
