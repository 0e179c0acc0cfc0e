"""Damaged audio of every kind: an example or a line in rejected.jsonl, and the job goes on."""

import contextlib
import csv
import io
import json
import os
import pathlib
import random
import shutil
import time
import zipfile
from collections import Counter

import numpy as np
import pytest
import soundfile

from beam_pipelines.decoder_process import Decoder
from common import dataset_reader
from common.catalogue import Track, clip_path
from common.dataset_config import DatasetConfig
from common.rejection import ClipError
from configs import dataset_artist
from tests.support.commands import build, read_csv, write_csv
from tests.support.paths import FMA_SAMPLE

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
    with contextlib.closing(Decoder(CONFIG)) as decoder:
        seconds_of(decoder, audio / os.fsdecode(names[0]))  # loads its libraries
        seconds = {name: seconds_of(decoder, audio / os.fsdecode(name)) for name in names}
    assert max(seconds.values()) < 10, max(seconds, key=seconds.get)

    names += [b"a folder.mp3", b"a pipe.mp3", b"1 GB.mp3", b"https://example.org/song.mp3"]
    (audio / "a folder.mp3").mkdir()
    os.mkfifo(audio / "a pipe.mp3")
    with (audio / "1 GB.mp3").open("wb") as file:
        file.truncate(1_000_000_000)
    catalog = tmp_path / "songs.csv"
    with catalog.open("w", newline="", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "path", "listens"])
        writer.writerows([i, os.fsdecode(name), 10 * i] for i, name in enumerate(names))
    out = tmp_path / "out"
    result = build(catalog, audio, out, "--max_reject_fraction=1")
    assert result.returncode == 0, result.stderr
    info = dataset_reader.load_dataset_info(str(out))
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
    assert {line["reason"] for line in lines if line["track_id"] >= len(names) - 4} == {
        "undecodable"
    }
    assert by_damage["empty.mp3"] == {"empty_file"}
    assert by_damage["zip_file.mp3"] == {"undecodable"}
    assert "untouched.mp3" not in by_damage
    assert info.num_examples + len(lines) == len(names)
    print(Counter((line["reason"], line["message"].partition(":")[2]) for line in lines))


def mp3_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 44_100, format="MP3")
    return file.getvalue()


@pytest.mark.integration
def test_the_faults_of_fma_small(library, tmp_path):
    """The clips of fma_small that are known to be bad, made as FMA's usage notes describe them."""
    noise = np.random.default_rng(0).normal(0, 0.1, (60_000, 2))
    tag = b"ID3\x03\x00\x00\x00\x00\x0d\x4e"  # which says that 1,742 bytes follow
    seconds = {98565: 1.6, 98567: 0.5, 98569: 1.5}
    faults = {track_id: mp3_of(np.resize(noise, (round(44_100 * s), 2)))
              for track_id, s in seconds.items()}  # fmt: skip
    faults |= {99134: mp3_of(noise)[:300], 108925: tag + bytes(90), 133297: tag + bytes(1_742)}
    assert len(faults[133297]) == 1_752
    rows = read_csv(library.tracks_csv)
    songs = [row for row in rows[3:] if (library.audio_dir / clip_path(int(row[0]))).exists()]
    audio = tmp_path / "fma_small"
    shutil.copytree(library.audio_dir, audio)
    for track_id, data in faults.items():
        path = audio / clip_path(track_id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        songs.append([str(track_id), *songs[0][1:]])
    write_csv(tmp_path / "tracks.csv", [*rows[:3], *songs])
    result = build(tmp_path / "tracks.csv", audio, tmp_path / "out", "--max_reject_fraction=0.5")
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    rejected = {line["track_id"]: line for line in map(json.loads, lines)}
    for track_id, length in seconds.items():
        assert rejected[track_id]["reason"] == "too_short"
        assert float(rejected[track_id]["message"].partition(" s")[0]) == pytest.approx(
            length, abs=0.1
        )
    assert {rejected[i]["reason"] for i in faults.keys() - seconds.keys()} == {"undecodable"}
    assert rejected.keys() == faults.keys() | library.rejected.keys()
