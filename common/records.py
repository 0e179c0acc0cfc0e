"""TFRecords of tf.Examples, written and read without TensorFlow.

Importing TensorFlow costs every Beam worker over 600 MB. The file format is four fields a record
(length, masked CRC-32C of the length, data, masked CRC-32C of the data:
https://www.tensorflow.org/tutorials/load_data/tfrecord), and tf.Example is a protobuf message of
three kinds of lists, declared here in a descriptor pool of its own so that TensorFlow, where it
is loaded too, does not find its names taken.
"""

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from common.errors import UserFacingError

Value = bytes | int | float

# What is read at once, in bytes.
_BLOCK = 1 << 20
# Bytes of a length and its checksum, and of the checksum behind the data.
_HEADER, _CRC = 12, 4


class DamagedRecord(UserFacingError):
    """A record whose bytes are not what was written."""


def _declare_example() -> Any:
    """Declares the message tensorflow.Example (tensorflow/core/example/{example,feature}.proto)."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="example.proto", package="tensorflow", syntax="proto3"
    )

    def message(parent: Any, name: str) -> Any:
        new = parent.message_type if hasattr(parent, "message_type") else parent.nested_type
        return new.add(name=name)

    def add(
        to: Any,
        name: str,
        number: int,
        kind: Any,
        *,
        repeated: bool = False,
        type_name: str | None = None,
        **more: Any,
    ) -> None:
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        to.field.add(name=name, number=number, type=kind, label=label, type_name=type_name, **more)

    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        add(message(file, name), "value", 1, kind, repeated=True)
    feature = message(file, "Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), start=1):
        type_name = f".tensorflow.{name.title().replace('_', '')}"
        add(feature, name, number, field.TYPE_MESSAGE, type_name=type_name, oneof_index=0)
    features = message(file, "Features")
    entry = message(features, "FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, field.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    entry_type = ".tensorflow.Features.FeatureEntry"
    add(features, "feature", 1, field.TYPE_MESSAGE, repeated=True, type_name=entry_type)
    example = message(file, "Example")
    add(example, "features", 1, field.TYPE_MESSAGE, type_name=".tensorflow.Features")

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _declare_example()


def encode_example(values: Mapping[str, Value]) -> bytes:
    """Returns a serialized tf.Example of one value a feature; equal values, equal bytes.

    A float is stored as float32.
    """
    example = _Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return bytes(example.SerializeToString(deterministic=True))


def decode_example(data: bytes) -> dict[str, Value]:
    """Returns the values of a serialized tf.Example that `encode_example` wrote.

    Raises:
        DamagedRecord: it is none, or has a feature that is not one value.
    """
    try:
        features = _Example.FromString(data).features.feature
        return {
            name: (f.bytes_list.value or f.int64_list.value or f.float_list.value)[0]
            for name, f in features.items()
        }
    except (DecodeError, UnicodeDecodeError, IndexError):
        raise DamagedRecord("not a tf.Example of one value a feature") from None


def frame(record: bytes) -> bytes:
    """Returns a record as it stands in a TFRecord file."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def read_records(file: BinaryIO, *, name: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
        DamagedRecord: naming file and index of the first record that is cut off or fails its
            checksum.
    """
    for record in scan_records(file, name=name):
        if isinstance(record, DamagedRecord):
            raise record
        yield record


def scan_records(file: BinaryIO, *, name: str) -> Iterator["bytes | DamagedRecord"]:
    """Yields the records of a TFRecord file, and for a damaged one what is wrong with it.

    Where a length is damaged nobody knows where the next record begins, so that is the last.
    """
    index = 0
    while header := file.read(_HEADER):
        try:
            size = _size_in(header, f"{name}, record {index}")
        except DamagedRecord as error:
            yield error
            return
        try:
            yield _data(file, size, f"{name}, record {index}")
        except DamagedRecord as error:
            yield error
        index += 1


def records_at(file: BinaryIO, indices: Collection[int], *, name: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord file at some indices, in their order; skips the others.

    Args:
        file: one in which places can be sought.
        indices: counted from 0.
        name: of the file, in messages.

    Raises:
        DamagedRecord: naming file and index of a record that is damaged; of those that are skipped
            only the lengths are looked at.
    """
    for index in range(max(indices, default=-1) + 1):
        where = f"{name}, record {index}"
        size = _size_in(file.read(_HEADER), where)
        if index in indices:
            yield _data(file, size, where)
        else:
            file.seek(size + _CRC, os.SEEK_CUR)


def _size_in(header: bytes, where: str) -> int:
    """Returns how long the data behind a header is."""
    length = header[:8]
    if len(header) < _HEADER or header[8:] != _masked_crc(length):
        raise DamagedRecord(f"{where}: its length is damaged")
    return int.from_bytes(length, "little")


def _data(file: BinaryIO, size: int, where: str) -> bytes:
    """Reads the data of a record, and its checksum behind it."""
    data, crc = _read(file, size), file.read(_CRC)
    if len(data) < size or crc != _masked_crc(data):
        raise DamagedRecord(f"{where}: its data is damaged")
    return data


def _read(file: BinaryIO, size: int) -> bytes:
    """Reads so many bytes, or all there are: whatever size is said, memory is taken for those."""
    if size <= _BLOCK:
        return file.read(size)
    blocks = []
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
