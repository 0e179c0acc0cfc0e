"""A subscription, of Google's own fake, becomes what a folder of the same announcements does."""

import contextlib
import json
import time

import pytest

from beam_pipelines import pipeline
from beam_pipelines.stream import compaction, known, pubsub, sources, written_generation
from common.errors import UserFacingError
from tests.support import direct_job
from tests.support.commands import assert_refused, run_module
from tests.support.pubsub_fake import Fake
from tests.support.streaming import streaming
from tests.support.streams import (
    NOW,
    Killed,
    MadeUp,
    announce,
    announced,
    counts_of,
    everything_in,
    make_music,
    stream,
)


@pytest.fixture(scope="module")
def fake():
    with Fake().running() as fake:
        yield fake


@pytest.fixture
def name(request):
    """A subscription's, of this test alone."""
    return request.node.name.replace("[", "-").strip("]")


@pytest.fixture(autouse=True)
def music(monkeypatch, tmp_path):
    """Music, and a decoder that takes a moment."""
    monkeypatch.setattr(pipeline, "Decoder", MadeUp)
    return make_music(tmp_path / "music")


@contextlib.contextmanager
def subscription(uri, **how):
    how = {"once": True, "patient_for": 60} | how
    with contextlib.closing(pubsub.Subscription(uri, **how)) as found:
        yield found


def lines_of(*values):
    return [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values]


def manifests_in(tmp_path):
    return known.load(str(tmp_path / "dataset"), uri="").manifests


@pytest.mark.integration
@pytest.mark.parametrize("killed", ["not", "before the manifest", "after it", "and compacted"])
def test_it_becomes_what_a_folder_does(tmp_path, fake, name, monkeypatch, killed):
    """Each message is accounted for once, and then acknowledged, wherever the run is killed."""
    name = f"s-{len(killed)}"
    uri = fake.subscribe(name)
    lines = lines_of(*(announced(track, at=track % 3 * 300) for track in range(12)))
    # If the first of these came again, it would be a later look at its label.
    lines += lines_of(announced(20, listens=5), announced(20, at=1, listens=7), announced(1))
    lines += [b"no json", b"x" * 1_000_000]
    fake.publish(name, *lines)
    write_manifest = written_generation.write_manifest

    def die(folder, manifest):
        if killed != "before the manifest":
            write_manifest(folder, manifest)
        raise Killed

    with subscription(uri) as source, monkeypatch.context() as patched:
        if killed != "not":
            patched.setattr(written_generation, "write_manifest", die)
        with contextlib.nullcontext() if killed == "not" else pytest.raises(Killed):
            stream(tmp_path, source=source)
    assert fake.deliverable(name) == ([] if killed == "not" else sorted(lines))
    if killed == "and compacted":
        with subscription(uri) as source:
            source.lines = lambda *_: iter(())  # what waits is written
            assert len(stream(tmp_path, source=source)) == 2
        compaction.compact(str(tmp_path / "dataset"))
        compaction.remove_replaced(str(tmp_path / "dataset"))
    with subscription(uri) as source:
        stream(tmp_path, source=source)
    assert fake.deliverable(name) == []
    with subscription(uri) as source:
        assert not stream(tmp_path, source=source)

    counts = counts_of(manifests_in(tmp_path))
    assert counts == {
        "announced": 17,
        "duplicates": 1,
        "merged": 1,
        "tracks": 13,
        "malformed": 1,
        "too_long": 1,
    }
    if killed != "and compacted":
        announce(tmp_path / "announced", *lines)
        stream(tmp_path, output="folder")
        ours, theirs = (everything_in(tmp_path / output) for output in ("dataset", "folder"))
        for file in theirs:
            assert ours[file] == theirs[file] or file.endswith("000001/rejected.jsonl")


@pytest.mark.integration
def test_a_stream_on_prism_becomes_what_a_folder_does(tmp_path, fake, name, prism):
    """Each message is acknowledged after its manifest, and the command is killed in between."""
    uri = fake.subscribe(name)
    lines = lines_of(*(announced(track, at=track % 2 * 300) for track in range(10)), b"no json")
    fake.publish(name, *lines[:6], lines[1])
    how = [f"--source={uri}", f"--audio_dir={tmp_path / 'music'}", "--poll=1s"]
    env = {"PUBSUB_EMULATOR_HOST": fake.address}
    with streaming(tmp_path / "dataset", *how, *prism, made_up=True, env=env) as running:
        running.wait_for(lambda made: counts_of(made)["tracks"] == 6)
        running.kill()
    fake.publish(name, *lines[6:])
    with streaming(tmp_path / "dataset", *how, *prism, made_up=True, env=env) as running:
        running.wait_for(lambda made: counts_of(made)["tracks"] == 10)
        running.end()
    assert fake.deliverable(name) == []
    counts = counts_of(manifests_in(tmp_path))
    assert (counts["announced"], counts["malformed"]) == (12, 1)
    made = compaction.compact(str(tmp_path / "dataset"))
    announce(tmp_path / "announced", *lines)
    stream(tmp_path, output="folder")
    theirs = compaction.compact(str(tmp_path / "folder"))
    assert (made.fingerprint, made.splits) == (theirs.fingerprint, theirs.splits)


@pytest.mark.integration
def test_messages_are_held_until_their_window_ends(tmp_path, fake, name):
    """Without --once: no run in between writes anything, and nobody else is given them."""
    uri = fake.subscribe(name)
    begin = NOW - 86_400
    with subscription(uri, once=False) as source:
        for step in range(3):
            fake.publish(name, *lines_of(announced(step), announced(step)))
            assert not stream(tmp_path, source=source, now=begin + 10 * step)
        assert fake.deliverable(name) == []
        (manifest,) = stream(tmp_path, source=source, now=begin + 300)
        assert manifest.counts == {"announced": 6, "merged": 3, "tracks": 3}
        fake.publish(name, *lines_of(announced(7, at=300)))
        assert not stream(tmp_path, source=source, now=begin + 310)
    assert fake.deliverable(name) == lines_of(announced(7, at=300))  # given back at the end
    with subscription(uri) as source:  # with --once it is accounted for, and waits
        (manifest,) = stream(tmp_path, source=source, now=begin + 320)
        assert (manifest.window, manifest.source["waiting"]) == (None, 1)
    assert fake.deliverable(name) == []
    with subscription(uri) as source:
        (manifest,) = stream(tmp_path, source=source, now=begin + 600)
    assert manifest.counts["tracks"] == 1 and counts_of(manifests_in(tmp_path))["announced"] == 7


@pytest.mark.integration
def test_a_lease_lasts_as_long_as_the_job(tmp_path, fake, name, monkeypatch):
    monkeypatch.setattr(pubsub, "_LEASE", 3)
    monkeypatch.setattr(pubsub, "_EXTEND", 0.5)
    uri = fake.subscribe(name)
    fake.publish(name, *lines_of(*map(announced, range(5))))

    def slow(job):
        time.sleep(6)
        assert fake.deliverable(name) == []
        direct_job.run(job)

    with subscription(uri) as source:
        (manifest,) = stream(tmp_path, source=source, job=slow)
    assert manifest.counts["tracks"] == 5 and fake.deliverable(name) == []


@pytest.mark.integration
def test_a_service_that_goes_away_is_waited_for(tmp_path, fake, name, monkeypatch, capsys):
    monkeypatch.setattr(pubsub, "_REQUEST", 1.0)
    uri = fake.subscribe(name)
    fake.publish(name, *lines_of(announced(1)))
    with subscription(uri, patient_for=2) as source:
        with fake.stopped(), pytest.raises(UserFacingError, match="has not answered for"):
            stream(tmp_path, source=source)
        assert capsys.readouterr().out.count("trying again") == 1
        # It may have been delivered to a request that had ended, for the ten seconds of a lease.
        end = time.monotonic() + 60
        while not (made := stream(tmp_path, source=source)) and time.monotonic() < end:
            pass
    assert [manifest.counts["tracks"] for manifest in made] == [1]


@pytest.mark.integration
def test_command(tmp_path, fake, name):
    uri = fake.subscribe(name)
    fake.publish(name, b"no json", b"[]")

    def grow(uri):
        return run_module(
            "beam_pipelines.stream_dataset",
            "--config=configs/dataset_artist.py",
            f"--source={uri}",
            f"--audio_dir={tmp_path / 'music'}",
            f"--output_dir={tmp_path / 'dataset'}",
            "--once",
            env={"PUBSUB_EMULATOR_HOST": fake.address},
        )

    result = grow(uri)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "generation 000001: 0 examples of 0 tracks, 2 malformed\n"
    assert fake.deliverable(name) == []
    assert_refused(grow("pubsub://projects/p/subscriptions/none"), "/none: no such subscription")


@pytest.mark.parametrize("uri", ["pubsub://p/s", "pubsub://projects/p/topics/t", "pubsub://"])
def test_another_uri_is_refused(uri):
    with pytest.raises(UserFacingError, match=r"--source=pubsub.* GOOGLE_APPLICATION_CREDENTIALS"):
        sources.of(uri, once=True, skip_expired=False)
