r"""Predicts the popularity of songs with an exported model.

python -m serving.predict --export_dir=export song.mp3 …

Prints a JSON line for each file: its class and the probability of each class, or what is wrong
with it. Exits with 1 if anything was.
"""

import json
from typing import Any

import numpy as np
from absl import flags

from beam_pipelines import audio, command
from beam_pipelines.command import InputError
from serving.exported_model import ExportedModel

_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where trainer.train put the export.", required=True
)


def predict_file(model: ExportedModel, path: str) -> dict[str, Any]:
    """The line for one file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        with command.kept_back_stderr():
            window = model.window(data)
    except OSError as error:
        return {"file": path, "error": error.strerror}
    except audio.ClipError as error:
        return {"file": path, "error": f"{error.reason}: {error}"}
    (probabilities,) = model.probabilities(window[np.newaxis])
    names = model.info["class_names"]
    return {
        "file": path,
        "label": names[int(probabilities.argmax())],
        "probabilities": {
            name: round(float(value), 6) for name, value in zip(names, probabilities, strict=True)
        },
    }


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        raise InputError("no file is named; python -m serving.predict --export_dir=export song.mp3")
    model = ExportedModel(_EXPORT_DIR.value)
    exit_code = 0
    for path in argv[1:]:
        line = predict_file(model, path)
        exit_code |= "error" in line
        print(json.dumps(line), flush=True)
    return exit_code


if __name__ == "__main__":
    command.run(main)
