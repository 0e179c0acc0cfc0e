r"""Gives parsers of foreign bytes what nobody would write, until one of them breaks.

python -m tests.fuzz.run --seconds=600 dataset_info form

Without names all targets are tried, one after the other. Where atheris is installed (Linux, Python
3.11 or later) the mutations follow the coverage of the code; elsewhere they are drawn around the
seeds. What reached new code stays in --corpus/TARGET, and the next run goes on from there. A text
that a parser does not take is kept in --corpus/TARGET.found/, and the exit code is 1. The memory of
a parser is limited, and so is its time for one text.
"""

import importlib.util
import itertools
import pathlib
import resource
import signal
import subprocess
import sys
import time

from absl import flags

from common import command
from common.errors import UserFacingError

_SECONDS = flags.DEFINE_float("seconds", 60, "How long, for each target.", lower_bound=0)
_CORPUS = flags.DEFINE_string("corpus", "build/fuzz", "The folder of what reached new code.")
_MEGABYTES = flags.DEFINE_integer("megabytes", 2_000, "How much memory a parser may take.")
_LONGEST = flags.DEFINE_integer("longest", 8_192, "The longest text, in bytes.")
_SEED = flags.DEFINE_integer("seed", 1, "Of the mutations.", lower_bound=1)
_ATHERIS = flags.DEFINE_bool(
    "atheris", importlib.util.find_spec("atheris") is not None, "Follow the coverage."
)
_CHILD = flags.DEFINE_bool("child", False, "Be the process that is limited.")

# One text may take so long, on however busy a machine.
_SECONDS_A_TEXT = 30
_INSTRUMENTED = (
    "common",
    "beam_pipelines.stream",
    "serving.web",
    "starlette.formparsers",
    "python_multipart",
)


def main(argv: list[str]) -> int:
    if _CHILD.value:
        (name,) = argv[1:]
        return fuzz_by_coverage(name) if _ATHERIS.value else fuzz_around_seeds(name)
    from tests.fuzz.targets import TARGETS

    names = argv[1:] or list(TARGETS)
    for name in names:
        if name not in TARGETS:
            raise UserFacingError(f"{name}: no target; there are {', '.join(TARGETS)}")
    broken = []
    for name in names:
        for folder in (corpus_of(name), found_of(name)):
            folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(TARGETS[name].seeds):
            (corpus_of(name) / f"seed-{number}").write_bytes(seed)
        # Of a process of its own: libFuzzer ends the one that it runs in.
        words = [sys.executable, "-m", "tests.fuzz.run", "--child", *flags_given(), name]
        if subprocess.run(words, check=False).returncode:
            broken.append(name)
            print(f"{name}: broke; the text is in {found_of(name)}", flush=True)
        else:
            texts = len(list(corpus_of(name).iterdir()))
            print(f"{name}: nothing found in {_SECONDS.value:g} s; {texts} texts kept", flush=True)
    return int(bool(broken))


def flags_given() -> list[str]:
    holders = (_SECONDS, _CORPUS, _MEGABYTES, _LONGEST, _SEED, _ATHERIS)
    return [f"--{holder.name}={holder.value}" for holder in holders]


def corpus_of(name: str) -> pathlib.Path:
    return pathlib.Path(_CORPUS.value, name)


def found_of(name: str) -> pathlib.Path:
    return pathlib.Path(_CORPUS.value, f"{name}.found")


def fuzz_by_coverage(name: str) -> int:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=list(_INSTRUMENTED), enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    words = corpus_of(name).with_name(f"{name}.words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, round(_SECONDS.value))}",
        f"-rss_limit_mb={_MEGABYTES.value}",
        f"-malloc_limit_mb={_MEGABYTES.value}",
        f"-timeout={_SECONDS_A_TEXT}",
        f"-max_len={_LONGEST.value}",
        f"-seed={_SEED.value}",
        *([f"-dict={words}"] if target.words else []),
        f"-artifact_prefix={found_of(name)}/",
        "-verbosity=0",
        "-print_final_stats=1",
        str(corpus_of(name)),
    ]
    atheris.Setup(arguments, target.parse)
    atheris.Fuzz()
    return 0


def _escaped(word: bytes) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def fuzz_around_seeds(name: str) -> int:
    from tests.fuzz.targets import TARGETS, mutated

    target = TARGETS[name]
    resource.setrlimit(resource.RLIMIT_AS, (_MEGABYTES.value << 20, -1))
    end = time.monotonic() + _SECONDS.value
    tried = 0
    for tried in itertools.count(1):
        data = mutated(target, seed=_SEED.value, number=tried)[: _LONGEST.value]
        signal.alarm(_SECONDS_A_TEXT)
        try:
            target.parse(data)
        except BaseException:
            (found_of(name) / f"seed-{_SEED.value}-{tried}").write_bytes(data)
            raise
        finally:
            signal.alarm(0)
        if time.monotonic() >= end:
            break
    print(f"{name}: {tried} texts", flush=True)
    return 0


if __name__ == "__main__":
    command.run(main)
