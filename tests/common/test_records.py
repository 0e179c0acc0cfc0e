"""TFRecords written without TensorFlow, against TensorFlow."""

import io

import numpy as np
import pytest
import tensorflow as tf

from common import records

VALUES = {
    "spectrogram": bytes(range(256)),
    "genre": "Folk – Ünïcode".encode(),
    "label": 2,
    "listens": 2**40,
    "date_created": -1,
    "empty": b"",
    "zero": 0,
}


def by_tensorflow(data: bytes) -> dict:
    features = tf.train.Example.FromString(data).features.feature
    return {name: (f.bytes_list.value or f.int64_list.value)[0] for name, f in features.items()}


def test_examples_are_tensorflows():
    data = records.encode_example(VALUES)
    assert by_tensorflow(data) == VALUES
    assert records.decode_example(data) == VALUES


def test_equal_values_give_equal_bytes_in_any_order():
    backwards = dict(reversed(VALUES.items()))
    assert records.encode_example(VALUES) == records.encode_example(backwards)


def test_files_are_tensorflows(tmp_path):
    rng = np.random.default_rng(0)
    written = [rng.bytes(size) for size in (0, 1, 100, 20_000)]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"".join(records.frame(record) for record in written))
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in written:
            writer.write(record)
    assert ours.read_bytes() == theirs.read_bytes()
    assert list(records.read_records(io.BytesIO(theirs.read_bytes()), name="x")) == written


def test_every_damaged_byte_is_found():
    data = bytearray(b"".join(records.frame(bytes([i]) * 20) for i in range(3)))
    for place in range(len(data)):
        damaged = data.copy()
        damaged[place] ^= 1
        with pytest.raises(records.DamagedRecord, match=f"some shard, record {place // 36}:"):
            list(records.read_records(io.BytesIO(damaged), name="some shard"))


def test_a_file_that_is_cut_off_is_found():
    data = records.frame(b"abc") + records.frame(b"defg")
    whole = (0, len(records.frame(b"abc")), len(data))
    for length in range(len(data)):
        if length not in whole:
            with pytest.raises(records.DamagedRecord):
                list(records.read_records(io.BytesIO(data[:length]), name="x"))


def test_a_length_beyond_the_file_is_damage():
    """However much it says, and with a right checksum: memory is taken for what is there."""
    for size in (4, 2**40, 2**63, 2**64 - 1):
        length = size.to_bytes(8, "little")
        data = length + records._masked_crc(length) + b"abc"
        (found,) = records.scan_records(io.BytesIO(data), name="some shard")
        assert str(found) == "some shard, record 0: its data is damaged"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"abc",
        b"\x0a\x05\x0a\x03\x0a\x01a",  # a feature without a kind
        b"\x0a\x09\x0a\x07\x0a\x01a\x12\x02\x0a\x00",  # a list without a value
        b"\x0a\x07\x0a\x05\x0a\x01\xff\x12\x00",  # a name that is not UTF-8
    ],
)
def test_what_is_no_example(data):
    with pytest.raises(records.DamagedRecord, match=r"not a tf\.Example"):
        records.decode_example(data)
