"""The compose file of the stream, read as Docker would read it: what it names is there."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.support import images
from tests.support.paths import ROOT

FILE = ROOT / "examples" / "stream_compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


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
    assert flags.keys() <= {"config", *defined}
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
    assert {mounts(service)["/data"]["source"].split(":")[0].strip("${}") for service in
            OURS.values()} == {"DATA_DIR"}  # fmt: skip
    topic = SERVICES["topic"]["command"]
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    address, name = stream["source"].removeprefix("kafka://").split("/")
    assert f"PLAINTEXT://{address}" in listeners and f"--topic={name}" in topic
    assert OURS["stream"]["build"]["args"] == {"EXTRA": "stream"}


def test_the_stream_reads_its_config_from_where_it_is_mounted():
    """It is outside of the image, so nothing but what is installed may be needed to read it."""
    text = (ROOT / "configs" / "dataset_artist.py").read_text()
    assert re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE) == ["ml_collections"]
