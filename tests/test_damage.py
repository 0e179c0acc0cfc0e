"""Damaged audio of every kind: an example or a line in rejected.jsonl, and the job goes on."""

import contextlib
import csv
import io
import json
import os
import pathlib
import random
import time
import zipfile
from collections import Counter

import pytest

from beam_pipelines import dataset_reader
from beam_pipelines.audio import ClipError
from beam_pipelines.catalogue import Track
from beam_pipelines.dataset_config import DatasetConfig
from beam_pipelines.decoder_process import Decoder
from configs import dataset_artist
from tests.conftest import build
from tests.paths import FMA_SAMPLE

CONFIG = DatasetConfig.from_dict(dataset_artist.get_config().to_dict())
DAMAGED = int(os.environ.get("SOAK_DAMAGED", "100"))


def flipped_bits(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 10, 1_000, 100_000])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def flipped_in_the_head(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 5, 50])):
        damaged[rng.randrange(min(4096, len(damaged)))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(data: bytes, rng: random.Random) -> bytes:
    size = len(data)
    end = rng.choice([rng.randrange(1, 20), rng.randrange(20, 2_000), rng.randrange(1, size)])
    return data[:end]


def without_head(data: bytes, rng: random.Random) -> bytes:
    return data[rng.choice([1, 3, 9, 100, rng.randrange(1, len(data))]) :]


def with_anothers_head(data: bytes, rng: random.Random) -> bytes:
    heads = [b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC\x00\x00\x00\x22", b"OggS\x00\x02", b"ID3\x04"]
    head = rng.choice(heads)
    return head + data[len(head) :]


def wrong_id3_size(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice([0, 1, 127, 2**14, 2**21, 2**28 - 1])
    septets = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + septets + data[10:]


def absurd_wav(data: bytes, rng: random.Random) -> bytes:
    rate = rng.choice([0, 1, 7, 2**31 - 1, 2**32 - 1, 44_100])
    channels = rng.choice([0, 1, 2, 255, 65_535])
    body = data[:200_000]
    claimed = rng.choice([0, 1, len(body), 2**32 - 1])
    return b"".join(
        (
            b"RIFF" + claimed.to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\x01\0",
            channels.to_bytes(2, "little") + rate.to_bytes(4, "little"),
            (rate * 2 % 2**32).to_bytes(4, "little") + b"\x02\0\x10\0data",
            claimed.to_bytes(4, "little") + body,
        )
    )


def empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def zeros(data: bytes, rng: random.Random) -> bytes:
    return bytes(rng.choice([1, 1_000, 1_000_000]))


def zip_file(data: bytes, rng: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("song.mp3", data[:100_000])
    return file.getvalue()


def blocks_in_another_order(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice([417, 4_096, 65_536])
    blocks = [data[i : i + size] for i in range(0, len(data), size)]
    rng.shuffle(blocks)
    return b"".join(blocks)


def untouched(data: bytes, rng: random.Random) -> bytes:
    return data


DAMAGES = (
    *(flipped_bits, flipped_in_the_head, cut, without_head, with_anothers_head, wrong_id3_size),
    *(absurd_wav, empty, zeros, zip_file, blocks_in_another_order, untouched),
)


def seconds_of(decoder: Decoder, path: pathlib.Path) -> float:
    """How long a file takes, whether it becomes an example or is rejected."""
    data = path.read_bytes()
    track = Track(1, path.name, 1_000, -1, "", -1, "")
    started = time.monotonic()
    with contextlib.suppress(ClipError):
        decoder.decode(track, data, thresholds=(1_000, 3_500))
    return time.monotonic() - started


@pytest.mark.integration
def test_every_damaged_clip_is_an_example_or_a_line(library, tmp_path):
    source = FMA_SAMPLE / "fma_small" if FMA_SAMPLE.is_dir() else library.audio_dir
    songs = [path.read_bytes() for path in sorted(source.rglob("*.mp3"))]
    songs = [song for song in songs if len(song) > 50_000]
    rng = random.Random(11)
    audio = tmp_path / "audio"
    audio.mkdir()
    names = []
    for number in range(DAMAGED):
        damage = DAMAGES[number % len(DAMAGES)]
        names.append(f"{number}-{damage.__name__}.mp3".encode())
        (audio / os.fsdecode(names[-1])).write_bytes(damage(rng.choice(songs), rng))
    names.append(b"100 MB.mp3")
    with (audio / "100 MB.mp3").open("wb") as file:
        file.truncate(100_000_000)
    names.append(b'line\nbreak, "quote" and \xff\xfe bytes.mp3')
    (audio / os.fsdecode(names[-1])).write_bytes(songs[0])
    names.append(b"line\nbreak and \xff\xfe damage.mp3")
    (audio / os.fsdecode(names[-1])).write_bytes(songs[0][:500])
    names.append(b"a folder.mp3")
    (audio / "a folder.mp3").mkdir()

    with contextlib.closing(Decoder(CONFIG)) as decoder:
        seconds_of(decoder, audio / os.fsdecode(names[0]))  # loads its libraries
        seconds = {name: seconds_of(decoder, audio / os.fsdecode(name)) for name in names[:-1]}
    assert max(seconds.values()) < 10, max(seconds, key=seconds.get)

    catalog = tmp_path / "songs.csv"
    with catalog.open("w", newline="", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "path", "listens"])
        writer.writerows([i, os.fsdecode(name), 10 * i] for i, name in enumerate(names))
    out = tmp_path / "out"
    result = build(catalog, audio, out, "--max_reject_fraction=1")
    assert result.returncode == 0, result.stderr
    info = dataset_reader.load_info(str(out))
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    ids = [line["track_id"] for line in lines]
    ids += [e["track_id"] for _, e in dataset_reader.read_examples(info, str(out))]
    assert sorted(ids) == list(range(len(names)))
    assert info.missing_audio == 0
    assert info.rejected == Counter(line["reason"] for line in lines)
    by_damage = {}
    for line in lines:
        assert os.fsencode(line["path"]) == names[line["track_id"]]
        assert "took longer" not in line["message"]
        by_damage.setdefault(line["path"].partition("-")[2], set()).add(line["reason"])
    assert by_damage["empty.mp3"] == {"empty_file"}
    assert by_damage["zip_file.mp3"] == {"undecodable"}
    assert "untouched.mp3" not in by_damage
    assert info.num_examples + len(lines) == len(names)
    print(Counter((line["reason"], line["message"].partition(":")[2]) for line in lines))
