"""The contained decoder: what kills it is only a bad clip."""

import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from beam_pipelines import clip_record, decoder_process
from common import rejection
from common.audio import load_waveform
from common.catalogue import Track
from common.clips import even_windows
from common.dataset_config import DatasetConfig
from configs import dataset_artist
from tests.support import processes
from tests.support.paths import ROOT

CONFIG = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
TRACK = Track(7, "000/000007.mp3", 2_000, 3, "Rock", -1, "")
THRESHOLDS = (1_000, 3_500)


@pytest.fixture
def decoder():
    decoder = decoder_process.Decoder(CONFIG)
    yield decoder
    decoder.close()


@pytest.fixture
def song(library):
    return max(library.audio_dir.rglob("*.mp3"), key=os.path.getsize).read_bytes()


def decode(decoder, data):
    return decoder.decode(TRACK, data, thresholds=THRESHOLDS)


def test_records_are_those_of_this_process(decoder, song):
    params = CONFIG.spectrogram
    waveform = load_waveform(song, sample_rate=params.sample_rate)
    (window,) = even_windows(waveform, num_samples=params.num_samples)
    expected = clip_record.record_of(TRACK, window, CONFIG, thresholds=THRESHOLDS)
    decoded = decode(decoder, song)
    assert decoded.records == [expected]
    assert decoded.audio_seconds == pytest.approx(29.97, abs=0.01)


def test_reasons_come_through(decoder, song):
    for data, reason in [
        (b"", "empty_file"),
        (b"text", "undecodable"),
        (song[:20_000], "too_short"),
    ]:
        with pytest.raises(rejection.ClipError) as error:
            decode(decoder, data)
        assert error.value.reason == reason
    assert decode(decoder, song).records


def test_the_length_is_the_songs_and_not_the_windows(decoder):
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 70 * 22_050)
    for seconds in (5, 70):
        soundfile.write(file, noise[: seconds * 22_050], 22_050, format="WAV")
        assert decode(decoder, file.getvalue()).audio_seconds == seconds
        file.seek(0)


def test_a_decoder_that_is_killed_costs_no_clip(decoder, song):
    expected = decode(decoder, song).records
    decoder._process.kill()  # as a system without memory would
    assert decode(decoder, song).records == expected


def starting(code: str) -> list[str]:
    """A command that does `code` where the decoder would answer."""
    return [sys.executable, "-c", "from common.contained_process import *\n" + code]


def test_a_song_that_crashes_every_decoder_is_a_bad_clip(song):
    command = starting("answer_requests(lambda *_: os.abort())")
    decoder = decoder_process.Decoder(CONFIG, command=command)
    with pytest.raises(rejection.ClipError, match="the decoder crashed") as error:
        decode(decoder, song)
    assert error.value.reason == "undecodable"


def test_a_decoder_that_computes_for_ever_is_stopped(song):
    """By its own time, since what else the machine does must not decide on a clip."""
    command = starting(
        "def answer(*_):\n"
        "    allow_processor_seconds(0.5)\n"
        "    time.sleep(3)\n"
        "    while True: pass\n"
        "answer_requests(answer)"
    )
    decoder = decoder_process.Decoder(CONFIG, command=command)
    started = time.monotonic()
    with pytest.raises(rejection.ClipError, match="too much time of a processor") as error:
        decode(decoder, song)
    assert (error.value.reason, error.value.code) == ("undecodable", "too_slow_to_decode")
    assert time.monotonic() - started > 3


def test_a_decoder_that_hangs_is_stopped(song):
    code = (
        "import sys, time\n"
        "sys.stdout.buffer.write((5).to_bytes(8, 'little') + b'ready')\n"
        "sys.stdout.flush()\n"
        "time.sleep(60)"
    )
    decoder = decoder_process.Decoder(
        CONFIG, command=[sys.executable, "-c", code], timeout_seconds=0.5
    )
    started = time.monotonic()
    with pytest.raises(rejection.ClipError, match=r"longer than 0\.5 s") as error:
        decode(decoder, song)
    assert (error.value.reason, error.value.code) == ("undecodable", "too_slow_to_decode")
    assert time.monotonic() - started < 10


def test_each_song_has_the_whole_time(song):
    """The time of a process that has rested since its last song begins anew."""
    code = (
        "import sys, time\n"
        "from common.contained_process import _receive, _send\n"
        "requests, answers = sys.stdin.buffer, sys.stdout.buffer\n"
        "_send(answers, b'ready')\n"
        "for seconds in (0, 0, 0, 60):\n"
        "    _receive(requests), _receive(requests), time.sleep(seconds)\n"
        '    _send(answers, b\'{"num_parts": 0, "audio_seconds": 1, "decode_ms": 1, \'\n'
        '        b\'"picture_ms": 1, "how": "whole"}\')\n'
    )
    decoder = decoder_process.Decoder(
        CONFIG, command=[sys.executable, "-c", code], timeout_seconds=2.0
    )
    for _ in range(3):
        assert decode(decoder, song[:1_000]).records == []
        time.sleep(1.2)
    with pytest.raises(rejection.ClipError, match="longer than 2 s"):
        decode(decoder, song[:1_000])


def test_a_decoder_that_can_not_start_is_no_bad_clip(song):
    decoder = decoder_process.Decoder(CONFIG, command=[sys.executable, "-c", "1/0"])
    with pytest.raises(RuntimeError, match="did not start"):
        decode(decoder, song)


def test_a_bug_is_no_bad_clip(decoder, song):
    with pytest.raises(RuntimeError, match="track 7:"):
        decoder.decode(TRACK._replace(genre="\udcff"), song, thresholds=THRESHOLDS)
    assert decode(decoder, song).records


def test_a_decoder_that_hangs_ends_with_its_parent():
    """It is in a session of its own, so no signal to a terminal's processes would end it."""
    decoder = (
        "import time; from common.contained_process import answer_requests; "
        "answer_requests(lambda header, data: time.sleep(60))"
    )
    parent = (
        "import sys; from common.contained_process import ContainedProcess; "
        f"command = [sys.executable, '-c', {decoder!r}]; "
        "ContainedProcess(command, timeout_seconds=60).ask(None, b'')"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    end = time.monotonic() + 20
    while not (started := processes.descendants(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(started) == 1
    time.sleep(0.5)
    process.kill()
    process.wait()
    processes.wait_until_ended(started)


def test_a_decoder_that_nobody_holds_ends():
    """As when a worker drops those of a step that is done."""
    decoder = decoder_process.Decoder(CONFIG)
    pid = decoder.start().pid
    with pytest.raises(rejection.ClipError) as error:
        decode(decoder, b"text")
    del decoder, error  # whose traceback holds it, too
    processes.wait_until_ended({pid}, seconds=60.0)


def test_an_interrupt_is_not_for_the_decoder(song):
    """Ctrl-C goes to all processes of a terminal; what is being decoded then is no bad clip."""
    code = (
        "import signal, sys; from beam_pipelines import decoder_process; "
        "from tests.beam_pipelines.test_decoder_process import CONFIG, THRESHOLDS, TRACK; "
        "decoder, data = decoder_process.Decoder(CONFIG), sys.stdin.buffer.read(); "
        "decode = lambda: decoder.decode(TRACK, data, thresholds=THRESHOLDS); "
        "signals = []; signal.signal(signal.SIGINT, lambda *_: signals.append(1)); "
        "decode(); print('ready', flush=True)\n"
        "while not signals: decode()\n"
        "decode(); print('done')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    process.stdin.write(song)
    process.stdin.close()
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.read() == b"done\n"
    assert process.wait() == 0
