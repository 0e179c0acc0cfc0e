"""How every command of the project starts and ends: a config, and one line for what is wrong.

Whatever is raised ends here, on every engine: what the user or their machine has to see to as one
line, an interruption as one, and a mistake of ours as one that names the log with the traceback.
"""

import contextlib
import errno
import gc
import os
import resource
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from common import output
from common.errors import UserFacingError, is_of_killed_worker, machine_error_in, user_error_in
from common.interruption import Interruption, end_with_line
from common.printable import printable

_DEBUG = flags.DEFINE_bool(
    "debug", False, "Show all that is printed to stderr, and the traceback of what goes wrong."
)

# What was kept back of stderr, for the log; the last of it where it is long.
_kept_back = bytearray()
_MOST_KEPT_BACK = 1 << 20
_SECONDS_TO_KEEP = 0.5
# Where the command's own lines go, if stderr is kept back to the end.
_own_lines: list[int] = []

# What no command does without: the limit, its letter in ulimit, how much it is at least.
_LEAST = {"RLIMIT_NOFILE": ("n", 256), "RLIMIT_NPROC": ("u", 128), "RLIMIT_AS": ("v", 2 << 30)}
# Less address space than this and TensorFlow aborts the process.
WITH_TENSORFLOW = 4 << 30
_LONGEST_LINE, _LONGEST_MESSAGE = 5_000, 400


def define_config(example: str) -> "flags.FlagHolder[Any]":
    """The flag --config, a Python file with `get_config()`; --config.key=value overrides a key."""
    holder: flags.FlagHolder[Any] = config_flags.DEFINE_config_file(
        "config", None, f"A config, such as {example}."
    )
    return holder


def config_values(holder: "flags.FlagHolder[Any]") -> dict[str, Any]:
    """The values of --config as a plain dict.

    Raises:
        UserFacingError: the flag is not given, or its file can't be loaded.
    """
    if holder.value is None:
        raise UserFacingError(f"--config is not given. {flags.FLAGS[holder.name].help}")
    try:
        values: dict[str, Any] = holder.value.to_dict()
        return values
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
    there: Any = flags.FlagValues()  # type: ignore[no-untyped-call]
    holder = config_flags.DEFINE_config_file("config", flag_values=there, sys_argv=argv)
    with flag_mistakes():
        there(argv, known_only=True)
    values: dict[str, Any] = holder.value.to_dict()
    return values


@contextlib.contextmanager
def kept_back_stderr(*, to_the_end_of_a_failure: bool = False) -> Iterator[None]:
    """Keeps what this process and its children write to stderr for the log of what goes wrong.

    Beam's tracebacks of a mistake in one cell of the catalogue, an mp3 decoder's notes about a
    damaged clip and TensorFlow's about its own build tell the user nothing. --debug shows them.

    Args:
        to_the_end_of_a_failure: whether, if the block fails, all that is written until the process
            ends is kept back but the command's own lines.
    """
    if flags.FLAGS.is_parsed() and _DEBUG.value:
        yield
        return
    # A pipe, not a file: where the disk of temporary files is full, a worker of Beam that can't
    # print what went wrong does not report it either, and the job waits for ever.
    reading, writing = os.pipe()
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    keeper = threading.Thread(target=_keep, args=(reading,), daemon=True)
    keeper.start()
    try:
        yield
    except BaseException:
        if to_the_end_of_a_failure:
            _own_lines.append(stderr)
        raise
    finally:
        if stderr not in _own_lines:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            # Processes that were started inside may print on, which is kept as well.
            keeper.join(timeout=_SECONDS_TO_KEEP)


def _keep(reading: int) -> None:
    with open(reading, "rb", buffering=0) as file:
        while block := file.read(1 << 16):
            _kept_back.extend(block)
            del _kept_back[:-_MOST_KEPT_BACK]


@contextlib.contextmanager
def flag_mistakes() -> Iterator[None]:
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


def run(
    main: Callable[[list[str]], int | None],
    flags_parser: Callable[[list[str]], list[str]] | None = None,
    *,
    least_memory: int = _LEAST["RLIMIT_AS"][1],
) -> None:
    """`absl.app.run` for a `main(argv)`, all of whose errors end as one line.

    Exit codes: 1 of an error, 130 of Ctrl-C. SIGTERM, SIGHUP and, once nobody reads stdout,
    SIGPIPE end the process as they do any other, after it has put its things away.

    Args:
        main: takes what is left of the command line, and returns the exit code, None for 0.
        flags_parser: takes the command line and returns what is left; absl's unless given.
        least_memory: the address space that it needs, in bytes; with less it is refused.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            with flag_mistakes():
                return (flags_parser or flags.FLAGS)(argv)
        except UserFacingError as error:
            raise UserFacingError(f"{error} (--help lists the flags)") from None

    interruption, out = Interruption(), output.Output()
    interruption.listen()
    out.take()
    sys.unraisablehook = _keep_unraisable
    threading.excepthook = lambda raised: _thread_failed(raised, interruption)
    # Set, not defaulted: absl raises a verbosity that has its default to INFO.
    flags.FLAGS["verbosity"].value = logging.WARNING
    flags.FLAGS["verbosity"].using_default_value = False
    code = 0
    try:
        try:
            _require_text(sys.argv[1:])
            _require_limits(least_memory)
            app.run(main, flags_parser=parse)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
            if isinstance(end.code, str):
                _print_to_stderr(end.code)
        out.flush()
    except output.OutputClosed as closed:
        if interruption.signal is None and closed.error.errno == errno.EPIPE:
            output.end_of_broken_pipe()
        _print_to_stderr(f"error: stdout: {closed.error.strerror}")
        code = 1
    except BaseException as error:
        if interruption.signal is None:
            _print_to_stderr(f"error: {_line_of(error)}")
        code = 1
    if interruption.signal is not None and code != 0:
        with contextlib.suppress(output.OutputClosed):
            out.flush()
        interruption.end()
    # What is left goes with the process. Looking for garbage in it once more takes Python more than
    # a CPU-second where TensorFlow is loaded.
    gc.freeze()
    sys.exit(code)


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            if argument.startswith("-"):
                shown = os.fsencode(argument).decode(errors="backslashreplace")
                raise UserFacingError(f"{shown}: no UTF-8; rename what it names") from None


def _require_limits(least_memory: int) -> None:
    """Raises UserFacingError where a shell's limits leave too little to work with.

    The libraries beneath do not say so: gRPC waits for ever for a file that it can't open, and
    aborts where it gets no memory or no thread.
    """
    for name, (letter, least) in (_LEAST | {"RLIMIT_AS": ("v", least_memory)}).items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        soft, hard = resource.getrlimit(kind)
        if soft == resource.RLIM_INFINITY or soft >= least:
            continue
        if hard == resource.RLIM_INFINITY or hard >= least:
            resource.setrlimit(kind, (least, hard))
            continue
        raise UserFacingError(
            f"ulimit -{letter}: the shell allows {_amount(letter, soft)}, and at least "
            f"{_amount(letter, least)} are needed; raise that limit"
        )


def _amount(letter: str, limit: int) -> str:
    unit = {"n": "open files", "u": "processes", "v": "kB of memory"}[letter]
    return f"{limit // 1024 if letter == 'v' else limit:,} {unit}"


def _line_of(error: BaseException) -> str:
    """What is wrong, in a line; where it is not the user's, with the path of a log."""
    if flags.FLAGS.is_parsed() and _DEBUG.value:
        traceback.print_exception(error)
    if clear := user_error_in(error):
        return printable(" ".join(str(clear).splitlines()), at_most=_LONGEST_LINE)
    line = machine_error_in(error)
    if line is None:
        message = printable(" ".join(str(error).split()), at_most=_LONGEST_MESSAGE)
        line = f"{type(error).__name__}: {message}; a mistake of this program"
    return f"{line}{_logged(error)}"


def _logged(error: BaseException) -> str:
    """Writes the log of an error; what the line says of it."""
    name = getattr(sys.modules["__main__"].__spec__, "name", "command")
    try:
        number, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log")
        with open(number, "wb") as file:
            file.write(_kept_back)
            file.write("".join(traceback.format_exception(error)).encode(errors="replace"))
    except OSError:
        return " (--debug shows all of it)"
    return f" (log: {path}; --debug shows it)"


def _thread_failed(raised: threading.ExceptHookArgs, interruption: Interruption) -> None:
    """Says that a thread has died, unless all are to end."""
    error = raised.exc_value
    if interruption.signal is not None or error is None or isinstance(error, output.OutputClosed):
        return
    line = _line_of(error)
    if is_of_killed_worker(error):  # for whom the main thread may wait for ever
        end_with_line(f"error: {line}", exit_code=1)
    _print_to_stderr(f"warning: {line}")


def _keep_unraisable(raised: "sys.UnraisableHookArgs") -> None:
    """Keeps for the log what is raised where nobody can take it, such as a destructor."""
    if raised.exc_value is not None:
        _kept_back.extend("".join(traceback.format_exception(raised.exc_value)).encode())


def _print_to_stderr(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is closed, or the disk behind it is full
        if _own_lines:
            os.write(_own_lines[-1], f"{text}\n".encode(errors="backslashreplace"))
        else:
            print(text, file=sys.stderr, flush=True)
