"""What of a folder or a zip is handed on, and what is refused."""

import concurrent.futures
import errno
import os
import random
import zipfile

import pytest

from beam_pipelines.upload.library_files import Stream, open_library
from common.errors import UserFacingError
from tests.support.commands import assert_refused, run_module


def read_whole(file) -> tuple[bytes, bytes, int]:
    """What a stream of a file gives, its CRC32C, and how many bytes it told of."""
    told = []
    stream, blocks = Stream(file, told.append), []
    while block := stream.read(1000):
        blocks.append(block)
    stream.close()
    return b"".join(blocks), stream.crc32c, sum(told)


def contents(source) -> dict[str, bytes]:
    with open_library(str(source)) as library:
        return {file.name: read_whole(file)[0] for file in library.files}


def make_zip(path, members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    return path


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_folder_and_its_zip_hold_the_same(tmp_path, compression):
    rng = random.Random(5)
    members = {
        f"music/{number // 9:03d}/{number:06d}.mp3": rng.randbytes(rng.randrange(9_000))
        for number in range(40)
    } | {"music/empty.mp3": b"", "music/digits": b"123456789", "music/ü ☃.csv": b"a,b\n" * 9_999}
    hidden = {"music/.hidden": b"x", "music/.git/config": b"x", "music/__MACOSX/._a.mp3": b"x"}
    for name, data in (members | hidden).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "music" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "music" / "broken.mp3").symlink_to("nowhere")
    path = make_zip(tmp_path / "some.zip", members | hidden, compression)
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("music/folder") if hasattr(archive, "mkdir") else None
        link = zipfile.ZipInfo("music/link.mp3")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert contents(path) == contents(tmp_path / "music") == members
    for source, left_out in ((path, 4), (tmp_path / "music", 5)):
        with open_library(str(source)) as library:
            assert library.left_out == left_out
            assert [file.name for file in library.files] == sorted(members)
            # All at once, as the workers of an upload read them; one with a known checksum.
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                read = dict(zip(library.files, pool.map(read_whole, library.files), strict=True))
            for file, (data, checksum, told) in read.items():
                assert data == members[file.name]
                assert told == file.size == len(data)
                if data == b"123456789":  # RFC 3720's check value
                    assert checksum.hex() == "e3069283"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../up.mp3", "leads out of the library"),
        ("music/../../up.mp3", "leads out of the library"),
        ("music/./a.mp3", "leads out of the library"),
        ("music//a.mp3", "leads out of the library"),
        ("/etc/passwd", "is not relative"),
        ("music\\a.mp3", "is not relative"),
        ("music/a\nb.mp3", "has control characters"),
        ("music/" + "a" * 1020, "is longer than 1,024 bytes"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name, problem):
    path = make_zip(tmp_path / "some.zip", {"music/good.mp3": b"x", name: b"x"})
    with pytest.raises(UserFacingError, match=problem):
        contents(path)


def test_what_no_library_is_like_is_refused(tmp_path):
    bomb = make_zip(tmp_path / "bomb.zip", {"music/zeros.csv": bytes(10_000_000)})
    with pytest.raises(UserFacingError, match=r"zeros\.csv' claims to be [\d,]+ times its size"):
        contents(bomb)
    members = {"music/a.mp3": b"a" * 100}
    whole = make_zip(tmp_path / "whole.zip", members).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    with pytest.raises(UserFacingError, match=r"cut\.zip: neither a folder nor a whole zip"):
        contents(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "huge.zip", "w") as archive:
        archive.writestr("music/a.mp3", b"x")
        archive.filelist[0].file_size = archive.filelist[0].compress_size = 5 << 30
    with pytest.raises(UserFacingError, match="claims 5,368,709,120 bytes"):
        contents(tmp_path / "huge.zip")
    with zipfile.ZipFile(tmp_path / "secret.zip", "w") as archive:
        archive.writestr("music/a.mp3", b"x")
        archive.filelist[0].flag_bits |= 1
    with pytest.raises(UserFacingError, match="is encrypted"):
        contents(tmp_path / "secret.zip")
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("music/a.mp3", b"x")
        archive.writestr("music/a.mp3", b"y")
    with pytest.raises(UserFacingError, match="is there twice"):
        contents(tmp_path / "twice.zip")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserFacingError, match="holds no files"):
        contents(tmp_path / "nothing")
    with pytest.raises(UserFacingError, match="no such folder or zip"):
        contents(tmp_path / "none")


def test_a_folder_that_can_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    for name in ("open", "closed"):
        (tmp_path / "music" / name).mkdir(parents=True)
        (tmp_path / "music" / name / "a.mp3").write_bytes(b"x")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all
    with pytest.raises(UserFacingError, match=r"music/closed: can't be read \(Permission denied\)"):
        contents(tmp_path / "music")


def test_an_upload_without_credentials_is_one_line(tmp_path):
    make_zip(tmp_path / "some.zip", {"music/a.mp3": b"x"})
    none = os.fspath(tmp_path / "none.json")
    result = run_module(
        "beam_pipelines.upload_library",
        f"--source={tmp_path / 'some.zip'}",
        "--destination=gs://bucket/music",
        env={"GOOGLE_APPLICATION_CREDENTIALS": none, "STORAGE_EMULATOR_HOST": ""},
    )
    assert_refused(result, "gs://bucket/music: no credentials", none)
