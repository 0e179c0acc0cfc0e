"""Every parser of foreign bytes, as a function that may refuse them and may do nothing else.

A target takes bytes and returns, whatever they are. What it is allowed to raise it catches itself:
UserFacingError, or a refusal by the server. Anything else is a mistake of ours.
"""

import asyncio
import base64
import dataclasses
import io
import json
import logging
import random
import struct
from collections.abc import Callable

import google_crc32c
from starlette.requests import Request

from beam_pipelines.stream import announcements
from common import catalogue, dataset_info, generations, metadata, model_info, mp3_frames, records
from common.dataset_config import DatasetConfig
from common.errors import UserFacingError
from common.inputs import Inputs
from common.pieces import Pieces
from common.spectrogram import SpectrogramParams
from configs import dataset_artist
from serving.web.limits import Limits, Refusal
from serving.web.upload import Uploads, uploaded_of_json

# It warns of each form that it refuses.
logging.getLogger("python_multipart").setLevel(logging.ERROR)
INPUTS = Inputs(categories=("genre", "license"), numbers=("duration",), texts=("title",))


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        parse: of whatever bytes.
        seeds: texts that it takes, from which a fuzzer goes on.
        words: what the format is made of, for a fuzzer to put in.
    """

    parse: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()


def parse_catalogue(data: bytes) -> None:
    try:
        for track in catalogue.read_tracks(
            io.BytesIO(data), name="tracks.csv", subset="small", inputs=INPUTS
        ):
            # As Beam would hand it on.
            assert catalogue.Track.unpacked(track.packed()).track_id == track.track_id
            assert 0 <= track.track_id < 10**18 and 0 <= track.listens < 10**18
            json.dumps(track.genre).encode()
    except UserFacingError as error:
        str(error).encode()  # is shown


def parse_columns(data: bytes) -> None:
    try:
        for _ in catalogue.read_columns(io.BytesIO(data), name="echonest.csv", inputs=INPUTS):
            pass
    except UserFacingError as error:
        str(error).encode()


def parse_dataset_info(data: bytes) -> None:
    try:
        info = dataset_info.DatasetInfo.from_json(data)
    except UserFacingError as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    # What is taken can be used: counted, compared, written again to the same.
    assert info.num_examples >= 0
    assert set(info.splits) >= {"train", "validation", "test"}
    assert dataset_info.DatasetInfo.from_json(info.to_json()) == info
    for split in info.splits.values():
        for shard in split.shards:
            assert ".." not in shard.file.split("/") and shard.bytes >= 0
            assert shard.file.startswith("generations/") or "/" not in shard.file


def parse_manifest(data: bytes) -> None:
    try:
        manifest = generations.Manifest.from_json(data)
    except UserFacingError as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    assert generations.Manifest.from_json(manifest.to_json()) == manifest


def parse_announcement(data: bytes) -> None:
    try:
        found = announcements.parse(data, inputs=INPUTS, now=NOW)
        announcements.check_path(found.path)
    except announcements.Unusable as error:
        assert error.reason in (
            announcements.MALFORMED,
            announcements.TOO_LONG,
            announcements.OUTSIDE,
        )
        str(error).encode()
        return
    # What is taken can be waited for, placed in a window, and read as a row of a catalogue.
    assert found.seconds < NOW + 100_000
    assert found.listens is None or found.listens >= 0
    assert not found.path.startswith("/") and ".." not in found.path.split("/")
    row = {"track_id": str(found.track_id)} | found.cells
    text = announcements.catalogue_text([row | {"listens": str(found.listens or 0)}])
    (track,) = catalogue.read_tracks(io.BytesIO(text), name="", subset="full", inputs=INPUTS)
    assert (track.track_id, track.path) == (found.track_id, found.path)


def parse_model_info(data: bytes) -> None:
    try:
        info = model_info.ModelInfo.from_json(data)
    except UserFacingError as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    assert len(info.thresholds) == len(info.class_names) - 1
    assert all(isinstance(value, str) for known in info.vocabularies.values() for value in known)
    assert info.signal.shape[0] > 0
    if info.reference is not None:
        for histogram in info.reference.histograms.values():
            assert len(histogram.counts) == len(histogram.edges) + 1
        assert len(info.reference.labels) == len(info.class_names)


def parse_mp3(data: bytes) -> None:
    """The frames of an mp3, and an excerpt of some of them."""
    pieces = Pieces.whole(data)
    for is_listed in (False, True):
        frames = mp3_frames.frames_of(pieces, is_listed=is_listed)
        if frames is None:
            continue
        starts = [frames.start(index) for index in range(min(frames.num_frames, 1_000) + 1)]
        assert starts == sorted(set(starts)) and frames.start(frames.num_frames) <= len(data)
        assert 0 <= frames.length <= frames.num_frames * frames.header.samples
        span = frames.span(frames.length // 3, frames.length // 2)
        assert 0 <= span.carrier <= span.first <= span.last <= frames.num_frames
        if mp3_frames.is_as_told(pieces, frames, span):
            excerpt, before = mp3_frames.excerpt(pieces, frames, span)
            assert mp3_frames.frames_of(Pieces.whole(excerpt), is_listed=True) or not before


def parse_tfrecord(data: bytes) -> None:
    for record in records.scan_records(io.BytesIO(data), name="a shard"):
        if not isinstance(record, records.DamagedRecord):
            parse_example(record)


def parse_example(data: bytes) -> None:
    try:
        values = records.decode_example(data)
        # As an export is asked with it.
        metadata.of_record(values, INPUTS, SpectrogramParams())
    except UserFacingError as error:
        str(error).encode("utf-8", "backslashreplace")


def parse_json_upload(data: bytes) -> None:
    try:
        uploaded = uploaded_of_json(data)
        assert len(uploaded.song) <= len(data)
    except Refusal as refusal:
        assert refusal.status == 400


BOUNDARY = "boundary"


def parse_form(data: bytes) -> None:
    """A multipart body; its first line may be another content type."""
    kind = f"multipart/form-data; boundary={BOUNDARY}".encode()
    if data.startswith(b"multipart/"):
        kind, _, data = data.partition(b"\n")

    async def receive() -> dict[str, object]:
        nonlocal data
        piece, data = data[:1000], data[1000:]
        return {"type": "http.request", "body": piece, "more_body": bool(data)}

    async def read() -> None:
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}
        uploads = Uploads(Limits())
        try:
            async with uploads.song(Request(scope, receive)) as uploaded:
                assert isinstance(bytes(uploaded.song), bytes)
        except Refusal as refusal:
            assert 400 <= refusal.status < 500
        assert uploads.held == 0

    asyncio.run(read())


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(data: bytes, *, length: int | None = None) -> bytes:
    """A record with right checksums, whatever length it says."""
    size = struct.pack("<Q", len(data) if length is None else length)
    return size + masked_crc(size) + data + masked_crc(data)


def parse_records_of_examples(data: bytes) -> None:
    """TFRecord files with right checksums, which no mutation of bytes would find.

    The first byte of each piece of the data says what is done with it.
    """
    file = io.BytesIO()
    while data:
        kind, size = data[0], data[1] if len(data) > 1 else 0
        piece, data = data[2 : 2 + size], data[2 + size :]
        if kind % 4 == 0:
            length = int.from_bytes(piece[:8], "little")
            file.write(framed(piece, length=length))
        else:
            file.write(framed(piece))
    parse_tfrecord(file.getvalue())


FMA = """,album,album,artist,artist,set,set,track,track,track,track,track,track
,id,title,id,name,split,subset,date_created,duration,genre_top,license,listens,title
track_id,,,,,,,,,,,,
2,1,"AWOL, a way",1,AWOL,training,small,2008-11-26 01:48:12,168,Hip-Hop,CC,1293,Food
5,1,AWOL,1,AWOL,validation,small,2008-11-26,206.5,"Rock ""n"" Roll",CC,1151,"This
World"
10,6,Constant Hitmaker,6,Kurt Vile,test,large,2008-11-25T17:49:06+0100,161,,,50135,
"""
PLAIN = """track_id,path,listens,artist,genre,date_created,counted_at,license,title
1,a.mp3,10,A,Rock,2020-01-01,2021-01-01,CC,x
2,b/\udcff.mp3,0,,,,,,
"""
TABLE = """,echonest,echonest
,metadata,metadata
,license,duration
track_id,,
2,CC,3.5
3,,nan
"""
EXAMPLE = {
    "spectrogram": bytes(range(12)),
    "label": 1,
    "listens": 12,
    "track_id": 7,
    "artist_id": -1,
    "genre": b"Rock",
    "date_created": -1,
    "category/license": b"CC",
    "number/duration": 1.5,
    "text/title": "Ä".encode(),
}
SHARD = {"file": "train.tfrecord-00000-of-00001", "num_examples": 1, "bytes": 9, "sha256": "0" * 64}


def an_info() -> dict[str, object]:
    config = DatasetConfig.from_dict(dataset_artist.get_config().to_dict() | {"inputs": INPUTS})
    splits = {
        name: {
            "num_examples": 1,
            "class_counts": {"low": 1, "medium": 0, "high": 0},
            "num_artists": 1,
            "shards": [SHARD | {"file": SHARD["file"].replace("train", name)}],
        }
        for name in ("train", "validation", "test")
    }
    number = {"count": 1, "mean": 0.0, "deviation": 1.0, "quantiles": [0.0] * 33}
    bands = [0.0] * config.spectrogram.shape[0]
    return {
        "format_version": 1,
        "fingerprint": "0" * 64,
        "config": config.to_dict(),
        "features": dataset_info.features(config),
        "class_names": ["low", "medium", "high"],
        "thresholds": [10, 100],
        "splits": splits,
        "rejected": {"silent": 1},
        "missing_audio": 0,
        "split_check": {"by": "artist", "groups_in_two_splits": 0},
        "catalog_sha256": "0" * 64,
        "versions": {"numpy": "2"},
        "statistics": {
            "spectrogram": {"mean": bands, "deviation": bands},
            "numbers": {"duration": number},
            "categories": {"genre": ["Rock"]},
            "texts": {"title": ["x"]},
        },
    }


def a_manifest() -> dict[str, object]:
    info = an_info()
    return {
        "format_version": 1,
        "generation": 1,
        "base_fingerprint": "0" * 64,
        "fingerprint": "0" * 64,
        "splits": info["splits"],
        "rejected": {"silent": 1},
        "missing_audio": 0,
        "window": ["2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"],
        "source": {"uri": "folder", "offsets": {"a": [0, 3]}},
        "late": 0,
        "counts": {"announced": 3},
        "new_artists": {"train": 1},
        "split_check": {"groups_in_two_splits": 0, "artists_in_two_splits": 0},
        "replaces": [],
        "versions": {"numpy": "2"},
        "statistics": info["statistics"],
        "corrected": {
            "sha256": "0" * 64,
            "class_counts": {"train": {"low": -1}, "validation": {}, "test": {}},
        },
    }


MODEL = {
    "class_names": ["low", "medium", "high"],
    "thresholds": [10, 100],
    "signal": dataclasses.asdict(SpectrogramParams()),
    "min_seconds": 1.0,
    "silence_dbfs": -80.0,
    "dataset_fingerprint": "0" * 64,
    "evaluation": {"accuracy": 0.5},
    "inputs": INPUTS.to_dict(),
    "dataset_generations": [0, 1],
    "vocabularies": {"genre": ["Rock"], "license": []},
    "reference": {
        name: {"edges": [1.5, 20.0], "counts": [3, 4, 3]}
        for name in ("level", "contrast", "brightness", "motion", "expected_class")
    }
    | {"labels": [5, 0, 5]},
}
NOW = 1_800_000_000
ANNOUNCEMENT = {
    "track_id": 7,
    "path": "ada/rivers.mp3",
    "announced_at": "2026-11-25T10:00:00Z",
    "listens": 1200,
    "artist_id": 3,
    "artist": "Ada Rivers",
    "genre": "Folk",
    "date_created": "2026-11-24",
    "license": "CC",
    "duration": 31.5,
    "title": "Rivers",
}
SONG = base64.b64encode(b"RIFF....WAVE").decode()
FORM = (
    b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n'
    b"Content-Type: audio/mpeg\r\n\r\nID3...\r\n"
    b'--boundary\r\nContent-Disposition: form-data; name="genre"\r\n\r\nRock\r\n--boundary--\r\n'
)


def as_json(values: object) -> tuple[bytes, ...]:
    return json.dumps(values, separators=(",", ":")).encode(), json.dumps(values, indent=2).encode()


_JSON = tuple(
    word.encode()
    for word in ("null", "true", "NaN", "Infinity", "1e999", "-1", "[]", "{}", '""', "[[", '{"a":')
)
# Frames of 104 bytes, which are silent; those of a song that has a first one of the encoder's.
FRAME = b"\xff\xfb\x10\xc4" + bytes(100)
END = b"TAG" + bytes(125)
INFO = FRAME[:21] + b"Info\0\0\0\1\0\0\0\x50LAME3.100\1" + bytes(10) + b"\x24\5\0" + bytes(48)
TARGETS = {
    "mp3": Target(
        parse_mp3,
        (FRAME * 80, INFO + FRAME * 80, b"ID3\3\0\0\0\0\0\3abc" + FRAME * 60 + END),
        (FRAME[:4], b"\xff\xfb\x12\xc4", b"\xff\xf3\x10\xc4", b"Xing", b"Info", b"ID3", b"TAG"),
    ),
    "catalogue": Target(
        parse_catalogue,
        (FMA.encode(), PLAIN.encode("utf-8", "surrogateescape"), b"\xef\xbb\xbf" + FMA.encode()),
        (b"track_id", b'"', b",", b"\n", b"\r", b"\0", b"2008-11-26T01:48:12+0100", b"0001-01-01",
         b"9999-12-31T23:59:59-2359", b"nan", b"1e39", b"small", b"training", b"\xff"),
    ),
    "columns": Target(parse_columns, (TABLE.encode(),), (b"track_id", b",", b"\n", b'"', b"nan")),
    "dataset_info": Target(
        parse_dataset_info,
        as_json(an_info()),
        (*_JSON, b'"file"', b"../", b'"config"', b'"inputs"'),
    ),
    "manifest": Target(parse_manifest, as_json(a_manifest()), (*_JSON, b'"window"', b'"offsets"')),
    "announcement": Target(
        parse_announcement,
        as_json(ANNOUNCEMENT),
        (*_JSON, b'"listens"', b"../", b"gs://", b"2026-11-25T10:00:00+25:00", b"\\ud800"),
    ),
    "model_info": Target(
        parse_model_info,
        as_json(MODEL),
        (*_JSON, b'"signal"', b'"thresholds"', b'"inputs"', b'"reference"'),
    ),
    "tfrecord": Target(parse_tfrecord, (records.frame(b"") + records.frame(b"abc"),)),
    "framed_records": Target(
        parse_records_of_examples,
        (b"\1\3abc\0\x08" + b"\xff" * 8, bytes([1, len(records.encode_example({"a": 1}))])
         + records.encode_example({"a": 1})),
    ),
    "example": Target(
        parse_example,
        (records.encode_example(EXAMPLE), b""),
        tuple(name.encode() for name in EXAMPLE),
    ),
    "json_upload": Target(
        parse_json_upload,
        as_json({"audio": SONG})
        + as_json({"audio": SONG, "inputs": {"genre": "Rock", "duration": 3.5, "x": None}}),
        (*_JSON, b'"audio"', b'"inputs"', b"\\/", b"\\u002f", b"\\n"),
    ),
    "form": Target(
        parse_form,
        (FORM, b"multipart/form-data; boundary=x; charset=punycode\n"
         + FORM.replace(b"boundary", b"x")),
        (b"--boundary", b"--", b"\r\n", b"Content-Disposition: form-data; ", b'name="file"',
         b'filename="', b"filename*=utf-8''", b"Content-Transfer-Encoding: base64", b"; boundary="),
    ),
}  # fmt: skip


def mutated(target: Target, *, seed: int, number: int) -> bytes:
    """Returns a text near a seed: bytes and stretches changed, cut out, doubled, words put in."""
    rng = random.Random(f"{seed} {number}")
    data = bytearray(target.seeds[number % len(target.seeds)])
    words = target.words or (b"\0", b"\xff" * 8)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        place, other = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice([1, 1, 4, 30]))
        way = rng.randrange(6)
        if way == 0:
            data[place:end] = rng.randbytes(end - place)
        elif way == 1:
            del data[place:end]
        elif way == 2:
            data[place:place] = data[other : other + rng.choice([1, 8, 60])]
        elif way == 3:
            data[place:end] = rng.choice(words)
        elif way == 4:
            data[place:place] = rng.choice(words)
        elif place < len(data):
            data[place] ^= 1 << rng.randrange(8)
    return bytes(data)
