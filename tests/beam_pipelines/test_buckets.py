"""The same job on gs://, against a storage emulator; what Dataflow is handed there."""

import concurrent.futures
import copy
import csv
import dataclasses
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import zipfile

import google.auth
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from beam_pipelines import pipeline
from beam_pipelines.stream import compaction, written_generation
from common import dataset_reader, files
from common.errors import UserFacingError
from common.generations import Manifest
from tests.support import streams
from tests.support.bucket_server import BucketServer
from tests.support.commands import IN_MEMORY, assert_refused, files_of, run_module

pytestmark = pytest.mark.integration

SPLIT = "--config.split_sizes=(0.5,0.25,0.25)"


@pytest.fixture(scope="module")
def server():
    with BucketServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture(scope="module")
def bucket(server):
    return Client(project="project", credentials=AnonymousCredentials()).bucket("bucket")


@pytest.fixture(scope="module", autouse=True)
def anonymous(tmp_path_factory):
    """Beam looks for credentials for 20 s in each process; the emulator wants none."""
    folder = tmp_path_factory.mktemp("anonymous")
    (folder / "sitecustomize.py").write_text(
        "import google.auth\n"
        "from google.auth.credentials import AnonymousCredentials\n"
        "google.auth.default = lambda *_, **__: (AnonymousCredentials(), 'project')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "project"))
        yield


@pytest.fixture(autouse=True)
def counted_from_zero(server):
    server.reset()
    yield
    server.reset()  # before the library is uploaded for the next test


def upload(source, destination):
    return run_module(
        "beam_pipelines.upload_library", f"--source={source}", f"--destination={destination}"
    )


def counts(stdout: str) -> dict[str, int]:
    """The number of files in each row of the table of an upload."""
    found = re.findall(r"^(\w.*?) {2,}([\d,]+)(?: {2,}[\d,]+)?$", stdout, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in found}


def build_in_bucket(name, *arguments):
    return run_module(
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        "--tracks_csv=gs://bucket/fma/fma_metadata/tracks.csv",
        "--audio_dir=gs://bucket/fma/fma_small",
        f"--output_dir=gs://bucket/{name}",
        "--max_reject_fraction=0.2",
        *arguments,
    )


def objects(bucket, prefix) -> dict[str, bytes]:
    """What lies below a folder of the bucket, by its path there."""
    return {
        blob.name.removeprefix(f"{prefix}/"): blob.download_as_bytes()
        for blob in bucket.client.list_blobs(bucket, prefix=f"{prefix}/")
    }


def files_below(folder) -> dict[str, bytes]:
    return {
        f"{folder.name}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def uploaded(bucket, library, tmp_path_factory):
    """The library at gs://bucket/fma: the audio from a zip, the catalogue from a folder."""
    path = tmp_path_factory.mktemp("zip") / "fma_small.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files_below(library.audio_dir).items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
        archive.writestr("__MACOSX/fma_small/._000", b"notes")
    for source in (path, library.tracks_csv.parent):
        result = upload(source, "gs://bucket/fma/")
        assert result.returncode == 0, result.stderr
    return path


def test_a_library_is_uploaded_as_it_is(bucket, library, uploaded):
    expected = files_below(library.audio_dir) | files_below(library.tracks_csv.parent)
    assert objects(bucket, "fma") == expected
    result = upload(uploaded, "gs://bucket/fma")
    audio = files_below(library.audio_dir)
    assert counts(result.stdout) == {
        "uploaded": 0,
        "already there": len(audio),
        "failed": 0,
        "hidden or links, left out": 1,
    }

    # Its folder is the same to a bucket; what was damaged or lost there is mended.
    damaged, lost = [name for name, data in sorted(audio.items()) if data][:2]
    bucket.blob(f"fma/{damaged}").upload_from_string(bytes(len(audio[damaged])))
    bucket.blob(f"fma/{lost}").delete()
    result = upload(library.audio_dir, "gs://bucket/fma")
    assert counts(result.stdout)["uploaded"] == 2
    assert counts(result.stdout)["already there"] == len(audio) - 2
    assert objects(bucket, "fma") == expected


def test_what_fails_is_listed_and_the_same_command_goes_on(bucket, server, tmp_path):
    path, big = tmp_path / "music.zip", random.Random(1).randbytes(20_000_000)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("music/big.wav", big)  # goes in three parts
        archive.writestr("music/empty.mp3", b"")
        archive.writestr("music/song.mp3", b"a song")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"a song", b"a sing"))
    result = upload(path, "gs://bucket/some")
    assert_refused(result, "1 of 3 files are not in gs://bucket/some; the same command")
    assert "failed: music/song.mp3: Bad CRC-32 for file 'music/song.mp3'" in result.stdout
    assert objects(bucket, "some") == {"music/big.wav": big, "music/empty.mp3": b""}
    path.write_bytes(whole)
    result = upload(path, "gs://bucket/some")
    assert result.returncode == 0, result.stderr
    assert counts(result.stdout) == {"uploaded": 1, "already there": 2, "failed": 0}

    # A bucket that takes nothing is not asked 8,000 times.
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(200):
            archive.writestr(f"music/{number}.mp3", b"a song")
    server.reset(read_only=True)
    result = upload(path, "gs://bucket/forbidden")
    assert_refused(result, "200 of 200 files are not in gs://bucket/forbidden")
    assert counts(result.stdout)["not tried"] > 100
    assert "failed: music/0.mp3: 403 POST" in result.stdout


def test_a_dataset_in_a_bucket_is_the_local_one(bucket, uploaded, dataset_dir):
    result = build_in_bucket("dataset", SPLIT)
    assert result.returncode == 0, result.stderr
    assert objects(bucket, "dataset") == files_of(dataset_dir)

    shown = run_module(
        "beam_pipelines.inspect_dataset", "--dataset_dir=gs://bucket/dataset", "--verify"
    )
    assert "every checksum and count as described" in shown.stdout, shown.stderr

    again = build_in_bucket("dataset", SPLIT)
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stdout
    other = build_in_bucket("dataset", SPLIT, "--config.min_seconds=20")
    assert_refused(other, "config.min_seconds is 3.0 there and 20.0 here")
    assert objects(bucket, "dataset") == files_of(dataset_dir)

    where = ["--dataset_dir=gs://bucket/dataset", "--card=gs://bucket/dataset"]
    card = run_module("beam_pipelines.inspect_dataset", *where)
    assert card.returncode == 0, card.stderr
    added = objects(bucket, "dataset").keys() - files_of(dataset_dir).keys()
    assert "dataset_card.md" in added
    assert all(name.startswith("dataset_card") for name in added)


def test_a_busy_bucket_is_asked_again(bucket, library, uploaded, dataset_dir, server):
    server.reset(busy_every=8)  # the first of each kind, too
    result = build_in_bucket("busy", SPLIT, *IN_MEMORY)
    server.busy_every = None
    assert result.returncode == 0, result.stderr
    assert objects(bucket, "busy") == files_of(dataset_dir)
    for kind in ("list", "read", "look", "upload", "batch"):
        assert server.turned_away[kind] >= 1, server.turned_away

    server.reset(busy_every=4)
    result = upload(library.tracks_csv.parent, "gs://bucket/again")
    assert result.returncode == 0, result.stdout
    assert server.turned_away["upload"] >= 1
    assert server.turned_away["list"] >= 1
    server.reset()
    assert objects(bucket, "again") == files_below(library.tracks_csv.parent)


def test_folders_of_thousands(bucket, server):
    files._client.cache_clear()
    number = 3050
    bucket.blob("many/[1]*/first").upload_from_string(b"1")
    keeper = server.emulator._storage
    first = keeper.get_file_obj("bucket", "many/[1]*/first")
    names = ["first", *(f"{index:05d}" for index in range(number - 1))]
    for folder in ("many/[1]*", "many/[1]*/below", "many/1x"):
        for name in names:
            resource = copy.deepcopy(first) | {"name": f"{folder}/{name}"}
            keeper.create_file("bucket", resource["name"], b"1", resource)

    server.reset()
    assert files.has_files("gs://bucket/many")
    assert not files.has_files("gs://bucket/man")
    assert not files.has_files("gs://none")
    assert server.requests["list"] == 3
    server.reset()
    assert files.names_in("gs://bucket/many/[1]*") == sorted(names)
    assert server.requests["list"] == 4  # 3,050 in pages of 1,000, and nothing of what is below

    server.reset(busy_every=11)
    files.delete("gs://bucket/many/[1]*", [*names[:3000], "gone already"])
    assert server.turned_away["batch"] >= 3
    assert server.requests["batch"] - server.turned_away["batch"] == 31
    assert server.requests["look"] == server.requests["delete"] == 0
    server.reset()
    assert files.names_in("gs://bucket/many/[1]*") == sorted(names[3000:])
    assert len(files.names_in("gs://bucket/many/[1]*/below")) == number
    assert len(files.names_in("gs://bucket/many/1x")) == number
    files._client.cache_clear()


def test_what_is_not_there_is_named(bucket, uploaded, library):
    result = build_in_bucket("other", "--tracks_csv=gs://bucket/none.csv")
    assert_refused(result, "gs://bucket/none.csv: no such file")
    result = build_in_bucket("other", "--audio_dir=gs://bucket/none")
    assert_refused(result, "gs://bucket/none: no such folder")
    assert objects(bucket, "other") == {}
    result = build_in_bucket("other", "--output_dir=gs://none/dataset")
    assert_refused(result, "gs://none/dataset: can't be written (no such file or bucket)")
    result = build_in_bucket("other", "--tracks_csv=s3://bucket/tracks.csv")
    assert_refused(result, "s3://bucket/tracks.csv: can't be read (neither a local path nor gs://")
    assert_refused(upload(library.audio_dir, "gs://none/fma"), "gs://none: no such bucket")
    assert_refused(upload("none.zip", "gs://bucket/fma"), "none.zip: no such folder or zip")
    assert_refused(upload(library.audio_dir, "bucket/fma"), "--destination is gs://bucket/folder")


def test_paths_that_no_object_has(bucket, library, tmp_path):
    """Each is a line of the list, and the rest is done."""
    song = next(path for path in library.audio_dir.rglob("*.mp3") if path.stat().st_size > 200_000)
    bucket.blob("odd/good.mp3").upload_from_filename(song)
    names = [b"good.mp3", b"line\nbreak.mp3", b"\xff.mp3", b"x" * 1_100,
             b"https://example.org/song.mp3", b"gs://none/song.mp3"]  # fmt: skip
    catalog = tmp_path / "songs.csv"
    with catalog.open("w", newline="", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "path", "listens"])
        writer.writerows([i, os.fsdecode(name), 10 * i] for i, name in enumerate(names))
    bucket.blob("odd.csv").upload_from_filename(catalog)
    result = build_in_bucket(
        "odd-dataset",
        "--tracks_csv=gs://bucket/odd.csv",
        "--audio_dir=gs://bucket/odd",
        "--max_reject_fraction=1",
        *IN_MEMORY,
    )
    assert result.returncode == 0, result.stderr
    there = objects(bucket, "odd-dataset")
    info = json.loads(there["dataset_info.json"])
    assert sum(split["num_examples"] for split in info["splits"].values()) == 1
    lines = list(map(json.loads, there["rejected.jsonl"].splitlines()))
    assert {line["reason"] for line in lines} == {"undecodable"}
    assert len(lines) + info["missing_audio"] == len(names) - 1


def staged_for_dataflow(bucket, name, *arguments) -> dict[str, bytes]:
    """What a template of the job has in the bucket, by the last part of its name.

    A template is staged as a job is, and then not started; with --dry_run=True, Beam 2.77 returns
    before it stages anything.
    """
    result = run_module(
        "beam_pipelines.build_dataset",
        "--config=configs/dataset_artist.py",
        f"--tracks_csv=gs://bucket/{name}.csv",
        "--audio_dir=gs://bucket/clips",
        f"--output_dir=gs://bucket/{name}-dataset",
        "--runner=DataflowRunner",
        "--project=project",
        "--region=us-central1",
        f"--temp_location=gs://bucket/{name}",
        f"--template_location=gs://bucket/{name}/template",
        *arguments,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "the job is prepared, and was not started\n"
    assert objects(bucket, f"{name}-dataset") == {}
    return {name.rpartition("/")[2]: data for name, data in objects(bucket, name).items()}


def test_what_dataflow_is_handed(bucket, tmp_path):
    """The project's package, what it needs and the job; no data, however many rows there are."""
    bucket.blob("clips/1.mp3").upload_from_string(b"looked for, and not read")
    staged = {}
    for num_rows in (10, 10_000):
        rows = (f"{number},{number}.mp3,{number}\n" for number in range(1, num_rows + 1))
        csv = "".join(["track_id,path,listens\n", *rows])
        bucket.blob(f"rows{num_rows}.csv").upload_from_string(csv)
        staged[num_rows] = staged_for_dataflow(bucket, f"rows{num_rows}")
    few, many = staged.values()
    files = {"pipeline.pb", "requirements.txt", "template", "workflow.tar.gz"}
    assert few.keys() == many.keys() == files | {"submission_environment_dependencies.txt"}
    assert abs(len(few["pipeline.pb"]) - len(many["pipeline.pb"])) < 100
    assert sum(map(len, many.values())) < 1_000_000
    job = beam_runner_api_pb2.Pipeline.FromString(many["pipeline.pb"])
    assert len(job.components.environments) == 1

    needed = dict(line.split("==") for line in many["requirements.txt"].decode().splitlines())
    assert {"librosa", "ml-collections", "numba", "numpy", "soundfile", "soxr"} <= needed.keys()
    assert not needed.keys() & {"apache-beam", "keras", "matplotlib", "tensorflow"}

    (tmp_path / "workflow.tar.gz").write_bytes(many["workflow.tar.gz"])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    target = tmp_path / "worker"
    subprocess.run([*pip, "--target", target, tmp_path / "workflow.tar.gz"], check=True)
    (described,) = target.glob("*.dist-info")
    always = re.findall(
        r"^Requires-Dist: ([\w-]+)[^;\n]*$", (described / "METADATA").read_text(), re.MULTILINE
    )
    assert set(always) == {"absl-py", "ml_collections", "numpy"}
    code = "import beam_pipelines.pipeline; print(beam_pipelines.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert pathlib.Path(found.stdout.strip()).is_relative_to(target)


def test_an_image_has_what_workers_need_and_a_trial_stages_nothing(bucket):
    bucket.blob("clips/1.mp3").upload_from_string(b"looked for, and not read")
    bucket.blob("image.csv").upload_from_string("track_id,path,listens\n1,1.mp3,1\n")
    image = "--sdk_container_image=somewhere/fma-worker"
    assert staged_for_dataflow(bucket, "image", image, "--dry_run=True") == {}
    staged = staged_for_dataflow(bucket, "image", image)
    assert "workflow.tar.gz" not in staged
    assert b"somewhere/fma-worker" in staged["pipeline.pb"]


def all_below(folder) -> dict[str, bytes]:
    """What lies below a folder, by its path there."""
    return {
        name.removeprefix(f"{folder.name}/"): data for name, data in files_below(folder).items()
    }


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """A dataset of three generations, on this machine."""
    monkeypatch.setattr(pipeline, "Decoder", streams.MadeUp)
    streams.make_music(tmp_path / "music")
    lines = (streams.announced(track, at=track % 3 * 300) for track in range(40))
    streams.announce(tmp_path / "announced", *lines)
    assert len(streams.stream(tmp_path)) == 3
    return tmp_path / "dataset"


def test_a_compaction_in_a_bucket_is_the_local_one(bucket, grown):
    for name, data in all_below(grown).items():
        bucket.blob(f"grown/{name}").upload_from_string(data)
    before = objects(bucket, "grown")
    assert compaction.compact("gs://bucket/grown") == compaction.compact(str(grown))
    after = objects(bucket, "grown")
    assert after == all_below(grown)
    assert before.items() <= after.items()
    info = dataset_reader.load_dataset_info("gs://bucket/grown")
    assert info.generations == (0, 4)
    assert info == dataset_reader.load_dataset_info(str(grown))
    with pytest.raises(UserFacingError, match="gs://bucket/grown: nothing to merge"):
        compaction.compact("gs://bucket/grown")


def test_of_several_runs_one_writes_the_manifest(bucket, grown):
    """None has seen another's: the bucket takes a manifest only where there is none."""
    name = "generations/000001/manifest.json"
    manifest = Manifest.from_json((grown / name).read_text())
    problem = f"gs://bucket/raced/{name}: another run has written it; run the command again"

    def write(number):
        mine = dataclasses.replace(manifest, late=number)
        try:
            written_generation.write_manifest("gs://bucket/raced/generations/000001", mine)
        except UserFacingError as error:
            assert str(error) == problem
            return None
        return mine.to_json().encode()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        (written,) = filter(None, pool.map(write, range(8)))
    assert objects(bucket, "raced") == {name: written}


STREAM = (
    "beam_pipelines.stream_dataset",
    "--source=gs://bucket/announced",
    "--config=configs/dataset_artist.py",
    "--output_dir=gs://bucket/streamed",
)


def prepared(bucket, *flags):
    """What `stream_dataset` says and stages for Dataflow as a template."""
    result = run_module(
        *STREAM,
        *flags,
        "--audio_dir=gs://bucket/clips",
        "--runner=DataflowRunner",
        "--project=project",
        "--region=us-central1",
        "--temp_location=gs://bucket/staged",
        "--template_location=gs://bucket/staged/template",
        "--sdk_container_image=somewhere/fma-worker",
    )
    assert result.returncode == 0, result.stderr
    staged = {name.rpartition("/")[2]: data for name, data in objects(bucket, "staged").items()}
    return result.stdout, beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"])


def test_the_job_of_a_generation_on_dataflow(bucket):
    """Staged as a template is, with the catalogue that it reads; what a killed run wrote stays."""
    bucket.blob("streamed/generations/000001/of-a-killed-run").upload_from_string(b"kept")
    said = {"track_id": 1, "path": "1.mp3", "announced_at": "2026-11-25T10:00:00Z", "listens": 1}
    bucket.blob("announced/first.jsonl").upload_from_string(json.dumps(said) + "\n")
    bucket.blob("clips/1.mp3").upload_from_string(b"looked for, and not read")
    out, job = prepared(bucket, "--once")
    assert "generations/000001: its job is prepared, and was not started" in out
    assert sorted(objects(bucket, "streamed")) == [
        "dataset_info.json",
        "generations/000001/catalogue.csv",
        "generations/000001/of-a-killed-run",
        "rejected.jsonl",
    ]
    (environment,) = job.components.environments.values()
    assert b"somewhere/fma-worker" in environment.payload


def test_the_stream_on_dataflow(bucket):
    """One pipeline, staged as a template is: a source that has no end, of which nothing is read."""
    bucket.blob("clips/1.mp3").upload_from_string(b"looked for, and not read")
    out, job = prepared(bucket, "--output_dir=gs://bucket/endless")
    assert out == "the job of the stream is prepared, and was not started\n"
    assert sorted(objects(bucket, "endless")) == ["dataset_info.json", "rejected.jsonl"]
    assert common_urns.requirements.REQUIRES_SPLITTABLE_DOFN.urn in job.requirements
    unbounded = beam_runner_api_pb2.IsBounded.UNBOUNDED
    collections = job.components.pcollections
    written = [
        transform
        for transform in job.components.transforms.values()
        if transform.unique_name == "write shard"
    ]
    (shards,) = written[0].inputs.values()
    assert collections[shards].is_bounded == unbounded


def test_dataflow_does_not_see_a_folder_of_this_machine(tmp_path):
    result = run_module(*STREAM, f"--audio_dir={tmp_path}", "--runner=DataflowRunner")
    assert_refused(result, "--audio_dir", tmp_path, "gs://")
