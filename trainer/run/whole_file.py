"""Files that are there whole or not at all, on a local disk or gs://."""

import os

import tensorflow as tf


def write(folder: str, name: str, data: bytes) -> None:
    """Writes a file under a temporary name, then renames it.

    Before that a local one is on the disk: after a loss of power some file systems know the new
    name and not yet the bytes.

    Raises:
        tf.errors.OpError, OSError: it can't be written.
    """
    temporary = tf.io.gfile.join(folder, f".tmp-{name}")
    with tf.io.gfile.GFile(temporary, "wb") as file:
        file.write(data)
    if "://" not in folder:
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    tf.io.gfile.rename(temporary, tf.io.gfile.join(folder, name), overwrite=True)
