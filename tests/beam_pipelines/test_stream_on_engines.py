"""The stream as one pipeline without an end: the bytes of --once, on whatever engine."""

import dataclasses
import shutil
import time

import pytest

from beam_pipelines import output_folder, pipeline
from beam_pipelines.stream import driver, known, sources, unbounded, written_generation
from common import catalogue, dataset_reader, lock
from common.errors import UserFacingError
from tests.support.commands import assert_refused, run_module
from tests.support.flink_cluster import Cluster
from tests.support.streaming import streaming
from tests.support.streams import (
    CONFIG,
    RULES,
    MadeUp,
    announce,
    announced,
    everything_in,
    make_music,
    stream,
)


@pytest.fixture
def music(monkeypatch, tmp_path):
    """Music, and a decoder that takes a moment."""
    monkeypatch.setattr(pipeline, "Decoder", MadeUp)
    return make_music(tmp_path / "music")


@pytest.fixture(autouse=True)
def _no_driver_left():
    yield
    driver.stop_all()


# ---- without an engine


@pytest.fixture
def streamed(tmp_path, music):
    """A stream into a folder that is begun; its looks at the source follow on one another."""
    written_generation.begin_dataset(str(tmp_path / "dataset"), CONFIG)
    (tmp_path / "announced").mkdir()
    return driver.Stream(
        uri=str(tmp_path / "announced"),
        skip_expired=False,
        output_dir=str(tmp_path / "dataset"),
        audio_dir=str(music),
        rules=RULES,
        poll=0.05,
        metrics_file=None,
    )


class Engine:
    """What an engine does with the parts of the pipeline, in this process."""

    def __init__(self, stream):
        self._source = unbounded.Orders(stream)
        (self._part,) = self._source.split(20)
        config = written_generation.config_of(dataset_reader.first_info(stream.output_dir))
        self.writer = unbounded.WriteOrder(config, stream.audio_dir)
        self.writer.setup()

    def reader(self, mark=None):
        """A reader that goes on after a mark, as the engine has kept it."""
        coder = self._source.get_checkpoint_mark_coder()
        return self._part.create_reader(None, mark and coder.decode(coder.encode(mark)))

    def orders(self, reader, number, *, is_started=False):
        """The next orders that a reader gives."""
        found, end = [], time.monotonic() + 120.0
        ask = reader.advance if is_started else reader.start
        while len(found) < number:
            if ask():
                found.append(reader.get_current())
            assert time.monotonic() < end
            ask = reader.advance
            time.sleep(0.01)
        return found


def wait_until(holds, *, seconds=120.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_orders_come_again_where_they_are_lost_and_are_filled_once(tmp_path, streamed):
    """They are where a reader goes on from an older checkpoint, or begins."""
    announce(tmp_path / "announced", *(announced(track, at=track % 2 * 300) for track in range(12)))
    engine = Engine(streamed)
    first = engine.reader()
    lost = engine.orders(first, 1)
    older = first.get_checkpoint_mark()
    lost += engine.orders(first, 2, is_started=True)
    for mark in (older, None):
        again = engine.orders(engine.reader(mark), 3)
        assert again == lost
    for order in [*again, again[0]]:  # one comes twice
        engine.writer.process(order)
    for number in (1, 2):
        manifest = tmp_path / f"dataset/generations/{number:06d}/manifest.json"
        wait_until(manifest.exists)
        if number == 1:
            for order in engine.orders(engine.reader(older), 3):
                engine.writer.process(order)
    stream(tmp_path, output="once")
    made = everything_in(tmp_path / "dataset")
    made.pop(".lock")
    assert made == everything_in(tmp_path / "once")


def test_a_reader_that_goes_on_where_the_last_one_was_gets_nothing_twice(tmp_path, streamed):
    """Flink makes one for each bundle, and each would have all orders that are being filled."""
    announce(tmp_path / "announced", *(announced(track) for track in range(12)))
    engine = Engine(streamed)
    reader, orders = engine.reader(), []
    while len(orders) < 3:
        orders += engine.orders(reader, 1)
        reader = engine.reader(reader.get_checkpoint_mark())
    assert len({order["name"] for order in orders}) == 3
    for _ in range(3):
        assert not reader.start()
        reader = engine.reader(reader.get_checkpoint_mark())


def test_an_order_that_is_out_of_date_does_no_harm(tmp_path, streamed, monkeypatch):
    """One that is begun too late, and one whose generation is taken over as it is written."""
    announce(tmp_path / "announced", *(announced(track) for track in range(12)))
    engine = Engine(streamed)
    reader = engine.reader()
    old = engine.orders(reader, 3)
    driver.stop_all()
    other = engine.reader()  # of another process, it might be
    new = engine.orders(other, 3)
    folder = tmp_path / "dataset/generations/000001"
    engine.writer.process(old[0])
    assert not list(folder.glob("*.tfrecord-*"))

    decode, plan = MadeUp.decode, folder / ".plan.json"
    is_of_run = plan.read_text()

    def taken_over(self, *arguments, **how):
        plan.write_text(is_of_run.replace(new[1]["run_id"], "0" * 32))
        return decode(self, *arguments, **how)

    with monkeypatch.context() as patched:
        patched.setattr(MadeUp, "decode", taken_over)
        train = next(order for order in new if order["tracks"])
        engine.writer.process(train)
    assert not list(folder.glob("*.tfrecord-*")) and not list(folder.glob(".writing-*"))
    plan.write_text(is_of_run)
    for order in new:
        engine.writer.process(order)
    wait_until(lambda: (folder / "manifest.json").exists())
    before = everything_in(folder)
    for order in [*old, *new]:
        engine.writer.process(order)
    assert everything_in(folder) == before


@pytest.mark.parametrize("damaged", ["shard", "note"])
def test_shards_that_are_not_what_their_notes_say_are_made_anew(tmp_path, streamed, damaged):
    """A worker that was taken for dead has written over one, to a file of the same size."""
    announce(tmp_path / "announced", *(announced(track) for track in range(12)))
    engine = Engine(streamed)
    reader = engine.reader()
    orders = engine.orders(reader, 3)
    folder = tmp_path / "dataset/generations/000001"
    pattern = "t*.tfrecord-*" if damaged == "shard" else ".done-t*.json"
    first, second, last = sorted(orders, key=lambda order: order["name"], reverse=True)
    engine.writer.process(first)
    engine.writer.process(second)
    (path,) = (path for path in folder.glob(pattern) if "train" in path.name)
    path.write_bytes(path.read_bytes()[::-1])
    wanted = [last]
    while not (folder / "manifest.json").exists():
        for order in wanted:
            engine.writer.process(order)
        wanted = [reader.get_current()] if reader.advance() else []
        time.sleep(0.01)
    stream(tmp_path, output="once")
    expected = everything_in(tmp_path / "once/generations/000001")
    assert everything_in(folder) == expected


def test_what_the_driver_ends_with_is_raised_by_the_reader(tmp_path, streamed):
    shutil.rmtree(tmp_path / "announced")
    engine = Engine(streamed)
    reader = engine.reader()
    with pytest.raises(UserFacingError, match="announced: no such folder"):
        engine.orders(reader, 1)
    announce(tmp_path / "announced", announced(1))
    assert engine.orders(engine.reader(), 3)  # an engine tries again


def test_one_process_at_a_time_drives_it_and_none_that_nobody_asks(tmp_path, streamed, monkeypatch):
    announce(tmp_path / "announced", announced(1))
    engine = Engine(streamed)
    reader = engine.reader()
    engine.orders(reader, 3)
    assert driver.of(streamed) is driver.of(streamed)
    with (
        pytest.raises(UserFacingError, match="another run is at work there"),
        lock.hold(streamed.output_dir),
    ):
        pass
    monkeypatch.setattr(driver, "IDLE_SECONDS", 0.2)
    time.sleep(0.5)
    with (  # the engine may still be at it
        pytest.raises(UserFacingError, match="another run is at work there"),
        lock.hold(streamed.output_dir),
    ):
        pass
    reader.close()
    with lock.hold(streamed.output_dir, wait_seconds=120):
        pass
    monkeypatch.setattr(driver, "IDLE_SECONDS", 120.0)
    assert len(engine.orders(reader, 3)) == 3  # the reader was only slow


@pytest.mark.parametrize(("now", "seconds"), [(1_000.0, 5.0), (1_196.0, 4.0), (1_200.0, 5.0)])
def test_it_looks_when_a_window_has_ended_and_not_later_than_poll(streamed, now, seconds):
    assert driver.seconds_to_next_look(now, dataclasses.replace(streamed, poll=5.0)) == seconds


class Messages:
    """A subscription: each look gives two messages more, and notes which are known to it."""

    uri, is_urgent, may_have_more = "pubsub://projects/p/subscriptions/s", False, True

    def __init__(self):
        self.spans, self.counts, self.messages, self.told = {}, {}, [], []

    def lines(self, position, messages):
        self.told.append(list(messages))
        self.messages = [f"{len(self.told)}-{number}" for number in "ab"]
        return [sources.Line(message, b"no json") for message in self.messages]

    def accounted_for(self):
        pass

    def close(self):
        pass


def test_the_newest_messages_are_remembered_and_no_others(streamed, monkeypatch):
    """By a driver as it goes on, which does not read the dataset anew, and as it starts."""
    source, loads, load = Messages(), [], known.load

    def count_loads(*arguments, **how):
        loads.append(load(*arguments, **how))
        return loads[-1]

    monkeypatch.setattr(known, "MOST_MESSAGES", 5)
    monkeypatch.setattr(known, "load", count_loads)
    monkeypatch.setattr(sources, "of", lambda *_, **__: source)
    streaming = driver.of(streamed)
    wait_until(lambda: len(source.told) > 6)
    streaming.stop()
    assert len(loads) == 1
    newest = ["4-b", "5-a", "5-b", "6-a", "6-b"]
    assert source.told[:4] + source.told[6:7] == [
        [],
        ["1-a", "1-b"],
        ["1-a", "1-b", "2-a", "2-b"],
        ["1-b", "2-a", "2-b", "3-a", "3-b"],
        newest,
    ]
    with lock.hold(streamed.output_dir, wait_seconds=120):  # it has ended
        made = load(streamed.output_dir, uri=source.uri)
    assert (
        list(made.messages) == [f"{n}-{x}" for n in range(1, made.next_number) for x in "ab"][-5:]
    )


# ---- on an engine


def real_rows(library, number):
    with library.tracks_csv.open("rb") as file:
        tracks = list(catalogue.read_tracks(file, name="", subset="small"))[:number]
    columns = ("track_id", "path", "listens", "artist_id", "genre")
    return [{column: getattr(track, column) for column in columns} for track in tracks]


def test_a_shard_that_two_workers_write_leaves_one_record_and_no_note(
    tmp_path, streamed, monkeypatch
):
    announce(tmp_path / "announced", *(announced(track) for track in range(12)))
    engine = Engine(streamed)
    orders = engine.orders(engine.reader(), 3)
    folder, note = tmp_path / "dataset/generations/000001", output_folder.write_done

    def noted_after_the_end(*arguments):
        monkeypatch.undo()
        monkeypatch.setattr(pipeline, "Decoder", MadeUp)
        for order in orders:  # the other worker
            engine.writer.process(order)
        wait_until(lambda: (folder / "manifest.json").exists())
        note(*arguments)

    monkeypatch.setattr(output_folder, "write_done", noted_after_the_end)
    engine.writer.process(orders[0])
    assert not list(folder.glob(".*"))


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["prism", "flink"])
def test_the_bytes_of_a_stream_are_those_of_once(engine, request, library, tmp_path):
    """Real clips in two windows, the second announced while it runs; then Ctrl-C."""
    flags = request.getfixturevalue(engine)
    rows = real_rows(library, 12)
    early, late = ({"announced_at": f"2026-11-25T1{hour}:00:00Z"} for hour in (0, 1))
    announce(tmp_path / "announced", *(values | early for values in rows[:8]), b"no json")
    how = [f"--source={tmp_path / 'announced'}", f"--audio_dir={library.audio_dir}"]
    how += ["--audio_wait=0s", "--poll=1s", f"--metrics_file={tmp_path / 'stream.prom'}"]
    with streaming(tmp_path / "dataset", *how, *flags) as running:
        running.wait_for_generations(1)
        announce(tmp_path / "announced", *(values | late for values in [*rows[8:], rows[0]]))
        manifests = running.wait_for_generations(2)
        if engine == "prism":
            again = run_module(
                *("beam_pipelines.stream_dataset", f"--output_dir={tmp_path / 'dataset'}"),
                *(*how, *flags),
            )
            assert_refused(again, "another run is at work there")
        wait_until(lambda: (tmp_path / "stream.prom").exists())
        out = running.end()
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "generation 000001",
        "generation 000002",
    ]
    assert "fma_stream_generations 2.0" in (tmp_path / "stream.prom").read_text()
    (tmp_path / "music").symlink_to(library.audio_dir)
    rules = dataclasses.replace(RULES, audio_wait=0)
    (tmp_path / "once").mkdir()
    stream(tmp_path, output="once", rules=rules)
    expected = everything_in(tmp_path / "once")
    # One run, or two: which of them counted an announcement is the only difference.
    assert everything_in(tmp_path / "dataset") == expected
    assert manifests[1].counts["duplicates"] == 1


@pytest.mark.integration
def test_a_cluster_spreads_the_shards_over_its_task_managers(flink, library, tmp_path):
    """As examples/stream_compose.yaml has it; then a task manager is killed."""
    bad = {*library.rejected, *library.missing_audio}
    songs = [each for each in real_rows(library, None) if each["track_id"] not in bad]
    for track in range(20):
        at = {"announced_at": f"2026-11-25T1{track // 10}:00:00Z"}
        announce(tmp_path / "announced", songs[track % len(songs)] | at | {"track_id": track})
    how = [f"--source={tmp_path / 'announced'}", f"--audio_dir={library.audio_dir}", *flink]
    jar, dataset = flink[-1].partition("=")[2], tmp_path / "dataset"
    with (
        Cluster(tmp_path / "cluster", jar, task_managers=2) as cluster,
        streaming(dataset, *how, "--poll=1s", *cluster.flags) as running,
    ):
        running.wait_for_generations(2)
        # What Flink says is some seconds late. There are six shards, handed out in turn.
        wait_until(lambda: min(cluster.elements_of("write shard").values()) > 1)
        cluster.kill_a_task_manager()
        assert running.process.wait(240) == 1
        (line,) = running.errors.splitlines()
    assert line.startswith("error: a worker of the engine has ended")
    (tmp_path / "music").symlink_to(library.audio_dir)
    (tmp_path / "once").mkdir()
    stream(tmp_path, output="once")
    made = everything_in(dataset)
    made.pop(".lock", None)
    assert made == everything_in(tmp_path / "once")


@pytest.mark.integration
def test_a_mistake_of_the_source_ends_the_command_with_a_line(prism, tmp_path, music):
    announce(tmp_path / "announced", announced(1))
    source, dataset = f"--source={tmp_path / 'announced'}", tmp_path / "dataset"
    with streaming(dataset, source, f"--audio_dir={music}", *prism, made_up=True) as running:
        running.wait_for_generations(1)
        (tmp_path / "announced/a.jsonl").write_text("")
        assert running.process.wait(240) == 1
        (line,) = running.errors.splitlines()
    assert "may grow, but not change" in line and line.startswith("error: ")
