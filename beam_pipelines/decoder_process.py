"""Decoding in a process of its own, so that a clip that crashes or hangs it is only a bad clip.

A worker hands the bytes of a clip to its decoder and gets the records back. If the decoder dies
or takes too long, the clip is rejected and the next one gets a new decoder.

Messages go over the decoder's stdin and stdout: a length of 8 bytes, then that many bytes; first
a JSON header, then what the header announces. The process imports no Beam.
"""

import json
import os
import struct
import subprocess
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO, NamedTuple

from beam_pipelines import audio
from beam_pipelines.catalogue import Track
from beam_pipelines.dataset_config import DatasetConfig

TIMEOUT_SECONDS = 8.0


class Decoded(NamedTuple):
    """The records of a clip, and what they cost."""

    records: list[bytes]
    audio_seconds: float
    decode_ms: int
    picture_ms: int


class Decoder:
    """The process that decodes, started when it is needed.

    Args:
        config: of the dataset.
        command: starts the process; another one in tests.
        timeout_seconds: how long a clip may take.
    """

    def __init__(
        self,
        config: DatasetConfig,
        *,
        command: list[str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ):
        self._command = command or [
            sys.executable,
            "-m",
            "beam_pipelines.decoder_process",
            json.dumps(config.to_dict()),
        ]
        self._timeout_seconds = timeout_seconds
        self._process = None
        self._is_ready = False
        # Runners may give a worker process several threads; its decoder takes one clip at a time.
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts the process, so that it loads its libraries while the worker does other things."""
        environment = {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            # A worker for each core is all the parallelism there is to have.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # Keep the memory of one clip for the next: fetching it anew from the system for each
            # large array takes a fifth of the time of a clip.
            "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        }
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._is_ready = False

    def decode(self, track: Track, data: bytes, *, thresholds: tuple[int, ...]) -> Decoded:
        """The records of a clip.

        Args:
            track: its row of the catalogue.
            data: the bytes of its audio file.
            thresholds: of the classes, in listens.

        Raises:
            audio.ClipError: the clip can't be used; `undecodable` if it kills the process or
                takes too long.
        """
        with self._lock:
            if self._process is None:
                self.start()
            if not self._is_ready:
                self._wait_until_ready()
            timer = threading.Timer(self._timeout_seconds, self._process.kill)
            timer.start()
            started = time.monotonic()
            try:
                _send(self._process.stdin, json.dumps([track, thresholds]).encode(), data)
                answer = json.loads(_receive(self._process.stdout))
                records = [_receive(self._process.stdout) for _ in range(answer["num_records"])]
            except (EOFError, BrokenPipeError):
                self._process.wait()
                self._process = None
                if time.monotonic() - started >= self._timeout_seconds:
                    problem = f"decoding took longer than {self._timeout_seconds:g} s"
                else:
                    problem = "the decoder crashed"
                raise audio.ClipError("undecodable", f"{len(data):,} bytes: {problem}") from None
            finally:
                timer.cancel()
        if "bug" in answer:
            raise RuntimeError(f"track {track.track_id}:\n{answer['bug']}")
        if "reason" in answer:
            raise audio.ClipError(answer["reason"], answer["message"])
        return Decoded(records, answer["audio_seconds"], answer["decode_ms"], answer["picture_ms"])

    def _wait_until_ready(self) -> None:
        """Waits for its first message, since loading its libraries is not the clip's time."""
        try:
            _receive(self._process.stdout)
            self._is_ready = True
        except EOFError:
            code = self._process.wait()
            raise RuntimeError(f"the decoder process did not start (exit code {code})") from None

    def close(self) -> None:
        """Ends the process, which stops when its stdin does."""
        with self._lock:
            if self._process is not None:
                self._process.stdin.close()
                self._process.wait()
                self._process = None


def _send(file: BinaryIO, *parts: bytes) -> None:
    for part in parts:
        file.write(struct.pack("<Q", len(part)))
        file.write(part)
    file.flush()


def _receive(file: BinaryIO) -> bytes:
    header = file.read(8)
    if len(header) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", header)
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _answer(
    track: Track, data: bytes, config: DatasetConfig, thresholds: tuple[int, ...]
) -> tuple[dict[str, Any], list[bytes]]:
    """The header of an answer, and the records that follow it."""
    # Here, so that a worker that only starts this process does not load what it needs.
    from beam_pipelines import clip_record

    started = time.perf_counter()
    try:
        windows = clip_record.windows_of(data, config)
    except audio.ClipError as error:
        return {"reason": error.reason, "message": str(error)}, []
    decoded = time.perf_counter()
    records = [
        clip_record.record_of(track, window, config, thresholds=thresholds) for window in windows
    ]
    finished = time.perf_counter()
    return {
        "audio_seconds": len(windows) * config.spectrogram.seconds,
        "decode_ms": round(1000 * (decoded - started)),
        "picture_ms": round(1000 * (finished - decoded)),
    }, records


def main() -> None:
    """Answers until stdin ends."""
    from beam_pipelines import spectrogram

    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    config = DatasetConfig.from_dict(json.loads(sys.argv[1]))
    spectrogram.mel_filter_bank(config.spectrogram)
    _send(answers, b"ready")
    while True:
        try:
            track, thresholds = json.loads(_receive(requests))
            data = _receive(requests)
        except EOFError:
            return
        try:
            header, records = _answer(Track(*track), data, config, tuple(thresholds))
        except Exception:
            header, records = {"bug": traceback.format_exc()}, []
        _send(answers, json.dumps(header | {"num_records": len(records)}).encode(), *records)


if __name__ == "__main__":
    main()
