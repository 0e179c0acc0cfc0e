"""Decoder processes that the system or a song ends: replaced, and the next song is decoded."""

import contextlib
import dataclasses
import io
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from common import contained_process, rejection
from common.contained_process import NotStartedError
from common.model_info import ModelInfo
from common.spectrogram import SpectrogramParams
from serving.model.decoder_pool import DecoderPool, NoDecoderError
from serving.model.song_process import SongDecoder
from tests.support import processes

INFO = ModelInfo(
    class_names=("low", "high"),
    thresholds=(100,),
    signal=SpectrogramParams(),
    min_seconds=1.0,
    silence_dbfs=-80.0,
    dataset_fingerprint="",
    evaluation=None,
)
# A decoder that answers the name of a fault with that fault, and all else as too short.
FAULTS = """
import os, signal, sys, time
from common.rejection import ClipError
from common.contained_process import answer_requests
start = sys.argv[1]
if os.path.exists(start):
    with open(start) as file: fault = file.read()
    if fault == "hang": time.sleep(600)
    if fault: os.kill(os.getpid(), signal.SIGKILL)
def answer(bounds, data):
    if data[:1] == b"!": os.kill(os.getpid(), int(data[1:]))
    raise ClipError("too_short", "as all are")
answer_requests(answer)
"""


def make_pool(start_file, *, count=2, start_seconds=30.0):
    """A pool of decoders that start as the text of a file says."""

    def make_decoder():
        return SongDecoder(
            INFO,
            timeout_seconds=20,
            max_seconds=100,
            max_samples=10**9,
            command=[sys.executable, "-c", FAULTS, str(start_file)],
            start_seconds=start_seconds,
        )

    return DecoderPool(make_decoder, count=count, wait_seconds=20)


@pytest.fixture
def start_file(tmp_path):
    return tmp_path / "start"


@pytest.fixture
def pool(start_file):
    others = processes.descendants(os.getpid())  # of the process that runs the tests
    pool = make_pool(start_file)
    pool.start()
    yield pool
    there = processes.descendants(os.getpid()) - others
    pool.close()
    processes.wait_until_ended(there)


def decoders() -> set[int]:
    there = processes.descendants(os.getpid())
    return {pid for pid in there if "answer_requests" in processes.command_line(pid)}


def kill_all():
    """Returns when all decoders have ended."""
    there = decoders()
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    processes.wait_until_ended(there, seconds=30)


def wait_until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_answers(pool, times=4):
    for _ in range(times):
        with pytest.raises(rejection.ClipError) as error:
            pool.dispatch(b"x")
        assert error.value.reason == "too_short"


def test_idle_processes_that_are_killed_are_no_fault_of_the_next_songs(pool):
    kill_all()
    assert_answers(pool)
    wait_until(lambda: pool.num_ready() == 2)


def test_idle_processes_are_replaced_while_nobody_asks(pool):
    """Or a load balancer that asks whether it is ready would never send a song again."""
    kill_all()
    wait_until(pool.is_ready)
    wait_until(lambda: pool.is_ready() and pool.num_ready() == 2)


def test_a_song_is_asked_once_more(pool, tmp_path):
    """One that ends two processes by a fault of its own is a bad one; the system's kill is not."""
    with pytest.raises(rejection.ClipError) as error:
        pool.dispatch(b"!%d" % signal.SIGSEGV)
    assert error.value.code == "undecodable"
    for number in (signal.SIGKILL, signal.SIGTERM):
        with pytest.raises(NoDecoderError, match="killed from outside"):
            pool.dispatch(b"!%d" % number)
    assert_answers(pool)
    wait_until(lambda: pool.num_ready() == 2)


def test_a_process_that_is_killed_while_it_starts_takes_no_songs(pool, start_file):
    start_file.write_text("die")
    with contextlib.suppress(rejection.ClipError, NoDecoderError):
        pool.dispatch(b"!%d" % signal.SIGSEGV)  # both end, and can't start
    assert not pool.is_ready()
    os.truncate(start_file, 0)
    wait_until(lambda: pool.num_ready() == 2)
    assert pool.is_ready()
    assert_answers(pool)


def test_others_take_the_songs_meanwhile(pool, start_file):
    start_file.write_text("die")
    victim = min(decoders())
    os.kill(victim, signal.SIGKILL)
    processes.wait_until_ended({victim}, seconds=30)
    assert_answers(pool, 6)
    assert pool.is_ready() and pool.num_ready() == 1
    os.truncate(start_file, 0)
    wait_until(lambda: pool.num_ready() == 2)


def test_a_start_has_a_limit(start_file):
    start_file.write_text("hang")
    pool = make_pool(start_file, start_seconds=1.0)
    with pytest.raises(NotStartedError, match="within 1 s"):
        pool.start()
    pool.close()
    assert not decoders()


def test_a_limit_that_passes_while_this_process_waits_for_its_turn(start_file, monkeypatch):
    class AtOnce:
        def __init__(self, _, function):
            self.start, self.cancel = function, lambda: None

    monkeypatch.setattr(contained_process.threading, "Timer", AtOnce)
    start_file.write_text("hang")
    pool = make_pool(start_file, start_seconds=1.0)
    with pytest.raises(NotStartedError, match="within 1 s"):
        pool.start()
    pool.close()


def test_closing_ends_a_process_that_starts(pool, start_file):
    start_file.write_text("hang")
    with contextlib.suppress(rejection.ClipError, NoDecoderError):
        threading.Timer(0.5, pool.close).start()
        pool.dispatch(b"!%d" % signal.SIGSEGV)
    wait_until(lambda: not decoders(), seconds=10)


def test_a_model_that_knows_more_than_a_command_line_takes():
    """Linux takes 128 KiB in an argument."""
    cities = tuple(f"{number} {'Ж' * 100}" for number in range(256))
    info = dataclasses.replace(INFO, vocabularies={"city": cities})
    decoder = SongDecoder(info, timeout_seconds=60, max_seconds=100, max_samples=10**9)
    try:
        with pytest.raises(rejection.ClipError, match="not recognised"):
            decoder.decode(b"no song")
    finally:
        decoder.close()


@pytest.mark.integration
def test_real_decoders_that_are_killed_while_they_work():
    """Whatever moment it is, each song is decoded or it is said that it was not its fault."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (5 * 44_100, 2))
    soundfile.write(file, noise, 44_100, format="WAV", subtype="PCM_16")
    song = file.getvalue()

    def make_decoder():
        return SongDecoder(INFO, timeout_seconds=60, max_seconds=100, max_samples=10**9)

    pool = DecoderPool(make_decoder, count=2, wait_seconds=60)
    pool.start()
    try:
        expected = pool.dispatch(song)
        random, outcomes = np.random.default_rng(0), []
        for _ in range(6):
            there = processes.descendants(os.getpid())
            victims = [pid for pid in there if "song_process" in processes.command_line(pid)]

            def kill(victim):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)

            threading.Timer(random.uniform(0, 0.1), kill, [victims[0]]).start()
            with contextlib.suppress(NoDecoderError):
                outcomes.append(pool.dispatch(song))
        assert outcomes
        for outcome in outcomes:
            assert outcome.seconds == expected.seconds
            np.testing.assert_array_equal(outcome.windows[0].picture, expected.windows[0].picture)
    finally:
        pool.close()
