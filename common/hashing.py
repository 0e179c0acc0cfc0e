"""The hash behind splits and shuffle keys, the same on every machine and in every run."""

import hashlib

HASH_RANGE = 1 << 63


def stable_hash(key: str, *, salt: str) -> int:
    """Returns a 63-bit hash (BLAKE2b) that is the same on every machine and in every run."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, salt=_salt_bytes(salt)).digest()
    return int.from_bytes(digest, "big") >> 1  # Beam pickles an int that is not an int64


def _salt_bytes(salt: str) -> bytes:
    return hashlib.blake2b(salt.encode(), digest_size=hashlib.blake2b.SALT_SIZE).digest()
