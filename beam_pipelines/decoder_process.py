"""The job's decoder: bytes of a song in, records out, in a process that a bad one may crash.

If it dies, a new decoder tries again; if it dies again or takes too long, the clip is rejected. It
imports no Beam.
"""

import json
import sys
import time
from typing import Any, NamedTuple

from common import song_parts
from common.catalogue import Track
from common.contained_process import (
    ContainedProcess,
    Crashed,
    allow_processor_seconds,
    answer_requests,
)
from common.dataset_config import DatasetConfig
from common.pieces import NotAtHand, Pieces

# Of a processor, so that what is rejected does not depend on what else the machine does. The
# longest song that is taken (audio.MAX_SECONDS) needs less than half of it.
PROCESSOR_SECONDS = 8.0
# For what hangs without computing, or a machine that has no time for it.
TIMEOUT_SECONDS = 120.0


class Decoded(NamedTuple):
    """The records of a track, how long it is, what they cost, and how it was decoded.

    `how` is that of `song_parts.Parts`.
    """

    records: list[bytes]
    audio_seconds: float
    decode_ms: int
    picture_ms: int
    how: str = song_parts.WHOLE


class Decoder(ContainedProcess):
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
        module = "beam_pipelines.decoder_process"
        command = command or [sys.executable, "-m", module, json.dumps(config.to_dict())]
        super().__init__(command, timeout_seconds=timeout_seconds)

    def decode(
        self, track: Track, data: bytes | Pieces, *, thresholds: tuple[float, ...]
    ) -> Decoded:
        """Returns the records of a song.

        Args:
            track: its row of the catalogue.
            data: the bytes of its audio file, or those of them that are wanted.
            thresholds: of the classes, in what the config's popularity is.

        Raises:
            rejection.ClipError: the clip can't be used; `undecodable` if it kills the process twice
                or takes too long.
            NotAtHand: all bytes are needed.
        """
        pieces = data if isinstance(data, Pieces) else Pieces.whole(data)
        places = [(start, len(part)) for start, part in pieces.parts.items()]
        request = [track, thresholds, pieces.size, places]
        together = b"".join(pieces.parts.values())
        try:
            try:
                answer, records = self.ask(request, together)
            except Crashed:  # the system may have ended it, for want of memory
                answer, records = self.ask(request, together)
        except RuntimeError as error:
            raise RuntimeError(f"track {track.track_id}:\n{error}") from None
        if "not_at_hand" in answer:
            raise NotAtHand(*answer["not_at_hand"])
        return Decoded(
            records,
            audio_seconds=answer["audio_seconds"],
            decode_ms=answer["decode_ms"],
            picture_ms=answer["picture_ms"],
            how=answer["how"],
        )


def main() -> None:
    """Answers until stdin ends."""
    # Here, so that a worker that only starts this process does not load what it needs.
    from beam_pipelines import clip_record
    from common import audio_features, clips

    config = DatasetConfig.from_dict(json.loads(sys.argv[1]))
    audio_features.load_banks(config.spectrogram, config.inputs)

    def answer(header: Any, data: bytes) -> tuple[dict[str, Any], list[bytes]]:
        allow_processor_seconds(PROCESSOR_SECONDS)
        track, thresholds, size, places = header
        started = time.perf_counter()
        try:
            windows, seconds, how = clips.decode_records(pieces_of(data, size, places), config)
        except NotAtHand as missing:
            return {"not_at_hand": [missing.start, missing.stop]}, []
        decoded = time.perf_counter()
        records = [
            clip_record.record_of(Track(*track), window, config, thresholds=tuple(thresholds))
            for window in windows
        ]
        finished = time.perf_counter()
        return {
            "audio_seconds": seconds,
            "decode_ms": round(1000 * (decoded - started)),
            "picture_ms": round(1000 * (finished - decoded)),
            "how": how,
        }, records

    answer_requests(answer)


def pieces_of(data: bytes, size: int, places: list[tuple[int, int]]) -> Pieces:
    """Returns the pieces of a file from their bytes in a row, and (start, length) of each."""
    pieces, place = Pieces(size), 0
    for start, length in places:
        pieces.add(start, data[place : place + length])
        place += length
    return pieces


if __name__ == "__main__":
    main()
