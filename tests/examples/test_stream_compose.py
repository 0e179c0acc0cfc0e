"""The compose file of the stream, read as Docker would read it: what it names is there."""

import re
import subprocess
import sys

import pytest
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from beam_pipelines import engines
from tests.support import images
from tests.support.paths import ROOT

FILE = ROOT / "examples" / "stream_compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
BUILT = {name: service for name, service in SERVICES.items() if "build" in service}
# Those that run a command of ours; the others are workers, which their image starts.
OURS = {name: service for name, service in BUILT.items() if "entrypoint" in service}


def mounts(service) -> dict[str, dict]:
    return {mount["target"]: mount for mount in service["volumes"]}


def flags_of(service) -> dict[str, str]:
    """The flags of its command, {name: value}."""
    return dict(flag.removeprefix("--").split("=", 1) for flag in service["command"])


def test_it_is_of_compose():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec"]
    result = subprocess.run([*command, str(FILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    for service in SERVICES.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for name, needed in service.get("depends_on", {}).items():
            assert needed["condition"] != "service_healthy" or "healthcheck" in SERVICES[name]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_command_is_in_its_image_and_has_these_flags(name):
    service = OURS[name]
    build = service["build"]
    assert (FILE.parent / build["context"]).resolve() == ROOT
    dockerfile = ROOT / build["dockerfile"]
    for argument in build.get("args", ()):
        assert f"ARG {argument}=" in dockerfile.read_text()
    python, option, module = service["entrypoint"]
    assert (python, option) == ("python", "-m")
    path = f"{module.replace('.', '/')}.py"
    there = images.copied_files(dockerfile)
    assert path in there
    defined = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (ROOT / path).read_text())
    defined += re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (ROOT / "serving/model_flags.py").read_text())
    flags = flags_of(service)
    others = flags.keys() - {"config", *defined}
    if module.startswith("beam_pipelines."):  # Beam's, of which none but these is taken
        engines.options([f"--{flag}={flags[flag]}" for flag in others])
    else:
        assert not others
    # What it reads and writes is mounted; a config may be in the image, whose folder /project is.
    for value in flags.values():
        if value.startswith("/"):
            assert any(value.startswith(f"{target}/") for target in mounts(service)), value
    if "config" in flags:
        config = flags["config"].removeprefix("/")
        assert (ROOT / config).exists()
        assert config in there or "/configs" in mounts(service)
    assert service["read_only"] is True and service["tmpfs"] == ["/tmp"]


def test_each_hands_the_next_one_its_folder():
    stream, follow, app = (flags_of(OURS[name]) for name in ("stream", "follow", "app"))
    assert stream["output_dir"] == follow["dataset_dir"]
    assert follow["export_dir"] == app["export_dir"]
    sources = [mounts(service)["/data"]["source"] for service in BUILT.values()]
    assert {source.split(":")[0].strip("${}") for source in sources} == {"DATA_DIR"}
    topic = SERVICES["topic"]["command"]
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    address, name = stream["source"].removeprefix("kafka://").split("/")
    assert f"PLAINTEXT://{address}" in listeners and f"--topic={name}" in topic
    assert OURS["stream"]["build"]["args"] == {"EXTRA": "stream"}


def test_the_stream_is_on_a_cluster_whose_parts_find_one_another():
    """As a test of the stream has them as processes, which start no containers either."""
    stream, server = OURS["stream"], flags_of(SERVICES["jobserver"])
    flags = flags_of(stream)
    managers = {name: service for name, service in SERVICES.items() if "network_mode" in service}
    assert flags["parallelism"] == str(len(managers)) == "2"
    for service in managers.values():
        kind, workers = service["network_mode"].split(":")
        assert kind == "service" and SERVICES[workers]["build"] == stream["build"]
        # Where Beam's image has them wait.
        assert SERVICES[workers]["command"] == ["--worker_pool"]
        assert SERVICES[workers]["working_dir"] in SERVICES[workers]["tmpfs"]
        assert flags["environment_config"] == "localhost:50000"
        assert f"staging:{server['artifacts-dir']}:ro" in service["volumes"]
        properties = yaml.safe_load(service["environment"]["FLINK_PROPERTIES"])
        assert properties["taskmanager.numberOfTaskSlots"] == 1
        assert properties["jobmanager.rpc.address"] == "jobmanager"
    assert len({service["network_mode"] for service in managers.values()}) == len(managers)
    assert server["flink-master"] == "jobmanager:8081"
    assert flags["job_endpoint"] == f"{server['job-host']}:8099" == "jobserver:8099"


def test_its_flink_is_one_of_beam():
    name, version = SERVICES["jobserver"]["image"].removeprefix("apache/").split(":")
    assert f"apache-beam=={version}" in (ROOT / "constraints.txt").read_text().splitlines()
    (flink,) = re.findall(r"beam_flink([\d.]+)_job_server", name)
    assert flink in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    for service in ("jobmanager", "taskmanager-1", "taskmanager-2"):
        assert SERVICES[service]["image"].startswith(f"flink:{flink}.")


def test_the_stream_reads_its_config_from_where_it_is_mounted():
    """It is outside of the image, so nothing but what is installed may be needed to read it."""
    text = (ROOT / "configs" / "dataset_artist.py").read_text()
    assert re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE) == ["ml_collections"]
