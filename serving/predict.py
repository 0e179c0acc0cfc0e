r"""Predicts the popularity of songs with an exported model.

python -m serving.predict --export_dir=export song.mp3 …

Prints a JSON line for each file: its class and the probability of each class, or what is wrong
with it. Exits with 1 if anything was. The model runs in this process, or with --tf_serving on a
server.
"""

import json
from collections.abc import Iterator

import numpy as np
from absl import flags

from common import command, export_folder, files, metadata
from common.errors import UserFacingError, require
from common.model_info import ModelInfo
from serving import client, model_flags
from serving.client import Client, FilePrediction
from serving.model import song
from serving.model.exported_model import ExportedModel
from serving.model_flags import EXPORT_DIR, TF_SERVING, TF_SERVING_VERSION

flags.adopt_module_key_flags(model_flags)
_INPUTS = flags.DEFINE_string(
    "inputs", None, "A JSON file of what else is known, for a model that takes more than sound: "
    '{"song.mp3": {"genre": "Rock"}}, or {"genre": "Rock"} of all the files.'
)  # fmt: skip

Told = dict[str, metadata.Metadata]


def read_inputs(path: str, info: ModelInfo, paths: list[str]) -> Told:
    """Reads what --inputs says of each file: {path: what is known of its track}.

    Raises:
        UserFacingError: it is not that, or the model does not take it.
    """
    try:
        values = json.loads(files.read_bytes(path))
    except OSError as error:
        raise UserFacingError(f"{path}: {error.strerror or 'not found'}") from None
    except (ValueError, RecursionError):
        raise UserFacingError(f"{path}: not JSON") from None
    require(isinstance(values, dict), f"{path}: not an object of inputs by file")
    names = metadata.names(info.inputs)
    if values and all(key in names for key in values):  # of all files
        values = dict.fromkeys(paths, values)
    told: Told = {}
    for name, given in values.items():
        require(name in paths, f"{path}: {name} is no file that is asked about")
        try:
            told[name] = metadata.checked(given, info.inputs)
        except UserFacingError as error:
            raise UserFacingError(f"{path}: {error}") from None
    return told


def predict_here(model: ExportedModel, paths: list[str], told: Told) -> Iterator[FilePrediction]:
    """Predicts for each file with a version in this process."""
    for path in paths:
        with command.kept_back_stderr():
            window = client.decode_file(path, lambda data: song.middle_waveform(data, model.info))
        if isinstance(window, str):
            yield FilePrediction(path, error=window)
        else:
            known = [told.get(path, {})]
            (probabilities,) = model.probabilities_of_waveforms(window[np.newaxis], known)
            yield client.file_prediction(path, probabilities, model.info)


def predict_there(
    tf_serving: str, version: str | None, info: ModelInfo, paths: list[str], told: Told
) -> Iterator[FilePrediction]:
    """Predicts for each file with a version on a server."""
    with Client(f"grpc://{tf_serving}", info, version=version) as server:
        answers = server.predict_files(paths, told=told)
        while True:
            with command.kept_back_stderr():
                answer = next(answers, None)
            if answer is None:
                return
            yield answer


def line(answer: FilePrediction) -> str:
    """Returns the line of JSON for a file."""
    if answer.error is not None:
        return json.dumps({"file": answer.path, "error": answer.error})
    rounded = {name: round(value, 6) for name, value in (answer.probabilities or {}).items()}
    return json.dumps({"file": answer.path, "label": answer.label, "probabilities": rounded})


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        raise UserFacingError(
            "no file is named; python -m serving.predict --export_dir=export song.mp3"
        )
    require(
        bool(TF_SERVING.value) or not TF_SERVING_VERSION.value,
        "--tf_serving_version: of which server? --tf_serving names it",
    )
    export_dir, paths = EXPORT_DIR.value, argv[1:]
    path = files.join(export_dir, str(export_folder.newest_version(export_dir)))
    info = export_folder.load_info(path)
    told = read_inputs(_INPUTS.value, info, paths) if _INPUTS.value else {}
    if TF_SERVING.value:
        answers = predict_there(TF_SERVING.value, TF_SERVING_VERSION.value, info, paths, told)
    else:
        answers = predict_here(ExportedModel(path), paths, told)
    exit_code = 0
    for answer in answers:
        exit_code |= answer.error is not None
        print(line(answer), flush=True)
    return exit_code


if __name__ == "__main__":
    command.run(main, least_memory=command.WITH_TENSORFLOW)
