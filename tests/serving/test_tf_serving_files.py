"""The files for TensorFlow Serving, read as its server, Docker and Kubernetes would read them."""

import json
import re
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from common.signatures import MAX_BATCH
from serving.client import MODEL_NAME
from tests.support.paths import ROOT
from trainer.model import export

FOLDER = ROOT / "serving" / "tf_serving"
KUBERNETES = "1.34"


def declared(messages: dict[str, list[tuple]]):
    """Message classes that tensorflow-serving-api leaves out, by name.

    Each field is (name, number, type, label), the type a scalar's or a message's name.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    for message, fields in messages.items():
        made = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            new = made.field.add(name=name, number=number, label=getattr(field, f"LABEL_{label}"))
            if "." in kind:
                new.type, new.type_name = field.TYPE_MESSAGE, kind
            else:
                new.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"x.{name}")) for name in messages}


_INT = ".google.protobuf.Int64Value"
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto and
# tensorflow_serving/config/monitoring_config.proto
PROTOS = declared(
    {
        "BatchingParameters": [
            ("max_batch_size", 1, _INT, "OPTIONAL"),
            ("batch_timeout_micros", 2, _INT, "OPTIONAL"),
            ("max_enqueued_batches", 3, _INT, "OPTIONAL"),
            ("num_batch_threads", 4, _INT, "OPTIONAL"),
            ("thread_pool_name", 5, ".google.protobuf.StringValue", "OPTIONAL"),
            ("allowed_batch_sizes", 6, "INT64", "REPEATED"),
            ("pad_variable_length_inputs", 7, "BOOL", "OPTIONAL"),
        ],
        "PrometheusConfig": [("enable", 1, "BOOL", "OPTIONAL"), ("path", 2, "STRING", "OPTIONAL")],
        "MonitoringConfig": [("prometheus_config", 1, ".x.PrometheusConfig", "OPTIONAL")],
    }
)


def read(name: str, message):
    return text_format.Parse((FOLDER / name).read_text(), message)


@pytest.fixture(scope="module")
def monitoring():
    return read("monitoring.config", PROTOS["MonitoringConfig"]()).prometheus_config


def manifests() -> list[dict]:
    found = []
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml")):
        found += yaml.safe_load_all(path.read_text())
    return found


def manifest(kind: str) -> dict:
    (found,) = [values for values in manifests() if values["kind"] == kind]
    return found


def test_models_and_labels():
    """The same on both, but for where the export lies."""
    by_file = {}
    for name in ("models.config", "kubernetes/models.config"):
        config = read(name, model_server_config_pb2.ModelServerConfig())
        (model,) = config.model_config_list.config
        assert model.name == MODEL_NAME
        served = set(model.model_version_policy.specific.versions)
        assert model.version_labels.keys() == {"stable", "canary"}
        assert set(model.version_labels.values()) <= served
        by_file[name] = model
    plain, kubernetes = by_file.values()
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["tf_serving"]
    assert plain.base_path in {volume["target"] for volume in compose["volumes"]}
    assert kubernetes.base_path.startswith("gs://BUCKET/")
    kubernetes.base_path = plain.base_path
    assert kubernetes == plain


def test_batches_are_those_that_the_export_is_warm_for():
    batching = read("batching.config", PROTOS["BatchingParameters"]())
    sizes = tuple(batching.allowed_batch_sizes)
    assert sizes == export.BATCH_SIZES
    assert sizes[-1] == batching.max_batch_size.value  # what TensorFlow Serving demands
    assert sizes[-1] == MAX_BATCH


def test_compose_is_one(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema=vendor.compose-spec",
            str(FOLDER / "compose.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    for service in yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"].values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")
        for volume in service["volumes"]:
            assert volume["read_only"]
            if volume["source"].startswith("."):
                assert (FOLDER / volume["source"]).exists()


def test_manifests_are_kubernetes():
    """Whatever is applied together is of Kubernetes' own kinds, and asks for nothing else."""
    resources = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    files = {f"kubernetes/{path.name}" for path in (FOLDER / "kubernetes").glob("*.yaml")}
    assert files - set(resources) == {"kubernetes/monitoring.yaml"}
    for path in resources:
        for values in yaml.safe_load_all((FOLDER / path).read_text()):
            kubernetes_validate.validate(values, KUBERNETES, strict=True)
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
    (generated,) = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"]
    for volume in pod["volumes"]:
        assert "emptyDir" in volume or volume["configMap"]["name"] == generated["name"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH")
def test_kubectl_builds_them():
    built = subprocess.run(
        ["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    found = list(yaml.safe_load_all(built.stdout))
    for values in found:
        kubernetes_validate.validate(values, KUBERNETES, strict=True)
    (config,) = [values["data"] for values in found if values["kind"] == "ConfigMap"]
    assert config["models.config"] == (FOLDER / "kubernetes" / "models.config").read_text()


def test_flags_and_files_fit(monitoring):
    """The flags of both, each with a file that is there; the scrapes where the metrics are."""
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["tf_serving"]
    assert set(container["args"]) - set(compose["command"]) == {
        "--port=8500",
        "--rest_api_port=8501",
        "--file_system_poll_wait_seconds=10",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=60000",
    }
    assert set(compose["command"]) <= set(container["args"])
    (generated,) = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"]
    files = dict(file.split("=") if "=" in file else (file, file) for file in generated["files"])
    for path in re.findall(r"=/config/(\S+)", " ".join(container["args"])):
        assert (FOLDER / path).exists() and (FOLDER / files[path]).exists()
    assert container["image"] == compose["image"]
    pinned = re.search(r"tensorflow-serving-api==(\S+)", (ROOT / "constraints.txt").read_text())
    assert container["image"] == f"tensorflow/serving:{pinned[1]}"
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert {"cpu", "memory"} == container["resources"]["limits"].keys()

    assert monitoring.enable
    (scrape,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    (endpoint,) = manifest("PodMonitor")["spec"]["podMetricsEndpoints"]
    annotations = manifest("Deployment")["spec"]["template"]["metadata"]["annotations"]
    paths = {scrape["metrics_path"], endpoint["path"], annotations["prometheus.io/path"]}
    assert paths == {monitoring.path}


def test_selectors_find_the_pods():
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert manifest("PodMonitor")["metadata"]["namespace"] == kustomization["namespace"]
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert manifest(kind)["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert json.dumps(labels) in json.dumps(manifest("Deployment")["spec"]["selector"])
