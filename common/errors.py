"""Errors of the user's input and of their machine, each told in one line."""

import errno
import os
import re
from collections.abc import Iterator


class UserFacingError(ValueError):
    """Something the user gave is wrong; the message is one line naming it and what to do."""


def require(holds: bool, message: str) -> None:
    """Raises UserFacingError with `message` unless the condition holds."""
    if not holds:
        raise UserFacingError(message)


def one_line(error: BaseException, *, at_most: int = 400) -> str:
    """Returns what an error says, on one line and cut off where it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= at_most else f"{text[: at_most - 2]} …"


_FULL = "free some space or inodes there (df -h, df -i)"
_MEMORY = "leave it more memory, or run fewer processes"
# What the machine refuses for want of something, whatever was to be done.
_WANTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "nothing can be written there; mount it writable, or take another folder",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the system has too many files open",
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
    errno.EIO: "the disk or the network behind it fails",
    errno.ESTALE: "the disk or the network behind it fails",
}
_GONE = "is the folder there, or was it removed while this ran?"
_DENIED = "the permission is missing"
_ADVICE = _WANTS | {
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}

# `[Errno 28] No space left on device: 'path'`, as Python says it and Beam quotes it.
_QUOTED = re.compile(r"\[Errno (\d+)\] [^:\[\n]*?(?:: ['\"]([^'\"\n]*)['\"]|(?=[\[\n:]|$))")
# `path; No space left on device`, as TensorFlow says it.
_PHRASES = {os.strerror(number): number for number in _ADVICE if number != errno.EAGAIN}
_PHRASE = re.compile(rf"(?:([^\s;:'\"]+)['\"]?[;:] )?({'|'.join(map(re.escape, _PHRASES))})")
_NO_MEMORY = re.compile(r"\bMemoryError\b|std::bad_alloc|\bOOM when allocating")
_NO_THREAD = re.compile(r"can't start new thread|pthread_create|Thread tf_\S* creation")
_KILLED = re.compile(
    r"\bexit code -9\b|Worker subprocess exited with return code -?\d+|killed by signal 9"
)
_USER_FACING = re.compile(r"\bUserFacingError: (.*?)(?: \[while running|\n|\\n|$)")


def is_of_killed_worker(error: BaseException) -> bool:
    """Whether it says that a worker process of this run has died."""
    return any(_KILLED.search(str(inner)) for inner in _chain(error))


def is_want_of_the_machine(error: OSError) -> bool:
    """Whether it is this machine that has no room, no memory, or too many files open."""
    return error.errno in _WANTS and error.errno not in (errno.EIO, errno.ESTALE, errno.EFBIG)


def user_error_in(error: BaseException) -> UserFacingError | None:
    """The UserFacingError that an error is, came of, or brings as text.

    The workers of an engine send their tracebacks as text, which each engine wraps otherwise.
    """
    for inner in _chain(error):
        if isinstance(inner, UserFacingError):
            return UserFacingError(re.sub(r" \[while running.*", "", str(inner), flags=re.DOTALL))
        if found := _USER_FACING.findall(f"{inner}\n{inner!r}"):
            return UserFacingError(found[0])
    return None


def machine_error_in(error: BaseException) -> str | None:
    """What the machine refused, as one line: path, cause, what to do; None of any other error.

    As in `user_error_in`, it may be wrapped.
    """
    for inner in _chain(error):
        if line := _of_the_machine(inner, is_outermost=inner is error):
            return f"{line}; the same command goes on"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of, the last first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < 100:
        inner = waiting.pop(0)
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        yield inner
        waiting += getattr(inner, "exceptions", ())  # of a group
        if inner.__cause__ is not None:
            waiting.append(inner.__cause__)
        elif inner.__context__ is not None and not inner.__suppress_context__:
            waiting.append(inner.__context__)


def _of_the_machine(error: BaseException, *, is_outermost: bool) -> str | None:
    if isinstance(error, MemoryError):
        return f"the memory is used up; {_MEMORY}"
    if isinstance(error, OSError) and error.errno is not None:
        # One that was being handled may have nothing to do with what went wrong then.
        advice = (_ADVICE if is_outermost else _WANTS).get(error.errno)
        return _line(error.errno, error.filename) if advice else None
    text = str(error)
    for match in reversed(list(_QUOTED.finditer(text))):
        if int(match[1]) in _ADVICE:
            return _line(int(match[1]), match[2])
    for match in reversed(list(_PHRASE.finditer(text))):
        return _line(_PHRASES[match[2]], match[1])
    if _NO_MEMORY.search(text):
        return f"the memory is used up; {_MEMORY}"
    if _NO_THREAD.search(text):
        return f"the system allows no more threads; {_WANTS[errno.EAGAIN]}"
    if _KILLED.search(text):
        return f"a worker was killed, perhaps by the system, for want of memory; {_MEMORY}"
    return None


def _line(number: int, path: str | bytes | int | None) -> str:
    name = f"{os.fsdecode(path)}: " if isinstance(path, (str, bytes)) and path else ""
    return f"{name}{os.strerror(number)}; {_ADVICE[number]}"
