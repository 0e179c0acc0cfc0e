"""How every command of the project starts and ends: a config, and one line for what is wrong."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from common.errors import UserFacingError


def define_config(example: str) -> flags.FlagHolder:
    """The flag --config, a Python file with `get_config()`; --config.key=value overrides a key."""
    return config_flags.DEFINE_config_file("config", None, f"A config, such as {example}.")


def config_values(holder: flags.FlagHolder) -> dict[str, Any]:
    """The values of --config as a plain dict.

    Raises:
        UserFacingError: the flag is not given, or its file can't be loaded.
    """
    if holder.value is None:
        raise UserFacingError(f"--config is not given. {flags.FLAGS[holder.name].help}")
    try:
        return holder.value.to_dict()
    except OSError as error:
        problem = " ".join(str(error).split()).rpartition("[Errno")
        raise UserFacingError(f"--config can't be loaded: {problem[1]}{problem[2]}") from None


def config_file_values(path: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of a config file as a plain dict, overridden by those of `arguments`.

    Args:
        path: of the Python file with `get_config()`.
        arguments: flags, of which only such as --config.key=value are looked at.

    Raises:
        UserFacingError: the file can't be loaded, or a key or value is not possible.
    """
    argv = ["", f"--config={path}", *arguments]
    there = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=there, sys_argv=argv)
    with flag_mistakes():
        there(argv, known_only=True)
    return holder.value.to_dict()


@contextlib.contextmanager
def kept_back_stderr():
    """Shows what this process and its children write to stderr only if the block fails badly.

    Beam's tracebacks of a mistake in one cell of the catalogue, an mp3 decoder's notes about a
    damaged clip and TensorFlow's about its own build tell the user nothing. a UserFacingError tells
    all there is to say, so it is no bad failure.
    """
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        failed_badly = False
        try:
            yield
        except (UserFacingError, KeyboardInterrupt):
            raise
        except BaseException:
            failed_badly = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed_badly:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))


@contextlib.contextmanager
def flag_mistakes():
    """Turns what the parsing of flags raises into a UserFacingError."""
    try:
        yield
    except (AttributeError, KeyError) as error:  # how ml_collections says it
        raise UserFacingError(f"the config has no key {error.args[0]}") from None
    except flags.Error as error:
        raise UserFacingError(" ".join(str(error).split())) from None
    except Exception as error:  # a config is a program, and anything may go wrong in it
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserFacingError(f"--config: {problem}") from None


def run(main, flags_parser=None):
    """`absl.app.run` for a `main(argv)`; a UserFacingError ends as one line and exit code 1."""

    def guarded(argv):
        try:
            return main(argv)
        except UserFacingError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on", file=sys.stderr)
            return 130

    def parse(argv):
        try:
            with flag_mistakes():
                return (flags_parser or flags.FLAGS)(argv)
        except UserFacingError as error:
            print(f"error: {error} (--help lists the flags)", file=sys.stderr)
            sys.exit(1)

    # Set, not defaulted: absl raises a verbosity that has its default to INFO.
    flags.FLAGS["verbosity"].value = logging.WARNING
    flags.FLAGS["verbosity"].using_default_value = False
    app.run(guarded, flags_parser=parse)
