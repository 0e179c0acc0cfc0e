"""What is found in the errors of engines and libraries, which wrap what was raised first."""

import errno
import os

import pytest

from common.errors import UserFacingError, machine_error_in, user_error_in

BEAM = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in process
  File "pipeline.py", line 181, in _write
    file.write(record)
{} [while running 'write shard/ParDo(WriteShard)']
"""


def raised(*errors: Exception, chained: bool = True) -> Exception:
    """The last of some errors, each raised from, or while handling, the one before."""
    try:
        if len(errors) == 1:
            raise errors[0]
        try:
            raise raised(*errors[:-1], chained=chained)
        except Exception as before:
            if chained:
                raise errors[-1] from before
            raise errors[-1]  # noqa: B904
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        UserFacingError("x.csv: row 3 has no id"),
        UserFacingError("x.csv: row 3 has no id [while running 'read catalogue']"),
        RuntimeError(BEAM.format("common.errors.UserFacingError: x.csv: row 3 has no id")),
        RuntimeError("Pipeline failed:\nUserFacingError: x.csv: row 3 has no id\nat java.lang"),
        raised(UserFacingError("x.csv: row 3 has no id"), RuntimeError("bundle 3 failed")),
    ],
)
def test_the_users_mistake_in_whatever_wraps_it(error):
    assert str(user_error_in(error)) == "x.csv: row 3 has no id"


FULL = "/data/train: No space left on device; free some space"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/data/train"),
        RuntimeError(BEAM.format("OSError: [Errno 28] No space left on device: '/data/train'")),
        RuntimeError(
            "IO: OSError: [Errno 28] No space left on device: '/data/train'\\n\\tat org.apache"
        ),
        RuntimeError("{{function_node x}} /data/train; No space left on device [Op:Save]"),
        raised(OSError(errno.ENOSPC, "", "/data/train"), RuntimeError("bundle 3 failed")),
        raised(OSError(errno.ENOSPC, "", "/data/train"), KeyError("x"), chained=False),
    ],
)
def test_a_full_disk_in_whatever_wraps_it(error):
    assert machine_error_in(error).startswith(FULL)
    assert machine_error_in(error).endswith("; the same command goes on")


def test_a_write_that_does_not_know_of_what():
    line = machine_error_in(
        RuntimeError(BEAM.format("OSError: [Errno 28] No space left on device"))
    )
    assert line.startswith("No space left on device; free some space")


@pytest.mark.parametrize(
    "number",
    [errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.EIO, errno.ENOENT, errno.EACCES],
)
def test_every_refusal_has_path_cause_and_what_to_do(number):
    line = machine_error_in(OSError(number, "", "/data"))
    assert line.startswith(f"/data: {os.strerror(number)}; ")
    assert line.count(";") >= 2


def test_a_mistake_of_ours_is_not_taken_for_the_machines():
    """A file that was looked for and is not there is how much of a program goes."""
    looked_for = FileNotFoundError(errno.ENOENT, "", "/etc/optional")
    for error in (KeyError("x"), raised(looked_for, KeyError("x"), chained=False)):
        assert machine_error_in(error) is None
        assert user_error_in(error) is None
