"""`song.load_song` in a process of its own, which a stranger's file may crash or hang.

python -m serving.model.song_process MODEL_INFO_JSON, as `SongDecoder` starts it.
"""

import dataclasses
import json
import sys
from typing import Any

import numpy as np

from common import metadata
from common.contained_process import START_SECONDS, ContainedProcess, answer_requests
from common.model_info import ModelInfo
from serving.model.song import Song, Window, load_song


class SongDecoder(ContainedProcess):
    """A process that decodes songs for a model, started when it is needed.

    Args:
        info: of the model.
        timeout_seconds: how long a song may take.
        max_seconds: the longest song that is taken.
        max_samples: the most samples of all channels that are decoded.
        command: starts the process; another one in tests.
        start_seconds: how long its start may take.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        timeout_seconds: float,
        max_seconds: float,
        max_samples: int,
        command: list[str] | None = None,
        start_seconds: float = START_SECONDS,
    ):
        # Without what only the answers need, which may be longer than an argument may be.
        hearing = dataclasses.replace(info, evaluation=None, vocabularies={}, reference=None)
        values = json.dumps(dataclasses.asdict(hearing))
        super().__init__(
            command or [sys.executable, "-m", "serving.model.song_process", values],
            timeout_seconds=timeout_seconds,
            start_seconds=start_seconds,
            quiet=True,
        )
        self._shapes = {"spectrogram": info.signal.shape} | {
            name: row.shape[1:]
            for name, row in metadata.unknown(info.inputs, info.signal).items()
            if name in ("chroma", "tempo")
        }
        self._bounds = {"max_seconds": max_seconds, "max_samples": max_samples}

    def decode(self, data: bytes | bytearray) -> Song:
        """Decodes as `song.load_song` does; ClipError also if the file crashes or hangs it."""
        answer, levels = self.ask(self._bounds, data)
        rest = iter(levels)
        windows = [
            Window(
                start,
                {
                    name: np.frombuffer(next(rest), np.uint8).reshape(shape)
                    for name, shape in self._shapes.items()
                },
            )
            for start in answer["starts"]
        ]
        return Song(answer["seconds"], windows, answer["middle"])


def main() -> None:
    """Answers until stdin ends."""
    from common import audio_features

    info = ModelInfo.from_json(sys.argv[1])
    audio_features.load_banks(info.signal, info.inputs)

    def answer(bounds: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[bytes]]:
        song = load_song(data, info, **bounds)
        starts = [window.start for window in song.windows]
        header = {"seconds": song.seconds, "middle": song.middle, "starts": starts}
        return header, [
            levels.tobytes() for window in song.windows for levels in window.heard.values()
        ]

    answer_requests(answer)


if __name__ == "__main__":
    main()
