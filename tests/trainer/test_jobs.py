"""The jobs in configs/jobs: what their engines take, and that they are trainings as ours are."""

import json
import os
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from google.cloud.aiplatform_v1.types import CustomJobSpec
from google.protobuf import json_format

from tests.support import images
from tests.support.commands import run_module, start_module
from tests.support.paths import ROOT
from trainer.launch import free_ports
from trainer.run import cluster
from trainer.run.stop_signal import EXIT_STOPPED

JOBS = ROOT / "configs" / "jobs"
SERVICE, JOB = yaml.safe_load_all((JOBS / "kubernetes_job.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
CUSTOM_JOB = yaml.safe_load((JOBS / "vertex_custom_job.yaml").read_text())
POOLS = CUSTOM_JOB["workerPoolSpecs"]


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("resource", [SERVICE, JOB], ids=["service", "job"])
def test_kubernetes_takes_it(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


def test_vertex_takes_it():
    json_format.ParseDict(CUSTOM_JOB, CustomJobSpec.pb(CustomJobSpec()))
    assert POOLS[0]["replicaCount"] == 1  # which Vertex wants of the chief's


@pytest.mark.parametrize(
    "arguments",
    [CONTAINER["args"], *[pool["containerSpec"]["args"] for pool in POOLS]],
    ids=["kubernetes", "chief", "worker"],
)
def test_the_trainer_takes_its_flags(arguments):
    result = run_module("trainer.train", *arguments, "--only_check_args")
    assert result.returncode == 0, result.stderr
    result = run_module("trainer.train", *arguments, "--only_check_args", "--none")
    assert result.returncode == 1


def test_the_pods_find_each_other():
    """By the names that an Indexed Job and a headless Service give them."""
    spec, name = JOB["spec"], JOB["metadata"]["name"]
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert POD["subdomain"] == SERVICE["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    (port,) = (port["port"] for port in SERVICE["spec"]["ports"])
    assert CONTAINER["ports"] == [{"containerPort": port}]
    index, tf_config = CONTAINER["env"]
    assert "job-completion-index" in index["valueFrom"]["fieldRef"]["fieldPath"]
    for number in range(spec["completions"]):
        # Kubernetes replaces what comes before it in the list.
        text = tf_config["value"].replace(f"$({index['name']})", str(number))
        assert cluster.workers_of(text) == spec["completions"]
        values = json.loads(text)
        address = f"{name}-{number}.{POD['subdomain']}:{port}"
        assert values["cluster"]["worker"][number] == address
        assert values["task"]["index"] == number


def test_what_kubernetes_tries_again():
    rules = [
        rule["onExitCodes"] | {"action": rule["action"]}
        for rule in JOB["spec"]["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    ]
    assert {rule["containerName"] for rule in rules} == {CONTAINER["name"]}
    found = {code: rule["action"] for rule in rules for code in rule["values"]}
    assert found == {EXIT_STOPPED: "Ignore", 1: "FailJob"}


# Found by Python in the image's tree as it starts: there the project is where this tree is alone.
NO_EDITABLE_INSTALL = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in f"{f} {f.__module__}"]
"""


@pytest.mark.integration
def test_the_image_trains_and_exports(small_dataset_dir, tmp_path):
    """What is copied into it stands alone, to the verified export and the evaluation after it."""
    tree = images.copy_tree(ROOT / "trainer" / "Dockerfile", tmp_path / "project")
    (tree / "sitecustomize.py").write_text(NO_EDITABLE_INSTALL)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )

    names = ["common", "configs", "serving", "trainer"]
    code = (
        "import importlib, sys; print(*(importlib.import_module(n).__file__ for n in sys.argv[1:]))"
    )
    where = run("-c", code, *names)
    assert where.stdout.split() == [f"{tree / name / '__init__.py'}" for name in names], (
        where.stderr
    )
    model_dir = tmp_path / "model"
    flags = [f"--dataset_dir={small_dataset_dir}", f"--model_dir={model_dir}"]
    small = ["--config.epochs=1", "--config.network.convolutions=2"]
    result = run("-m", "trainer.train", CONTAINER["args"][0], *flags, *small)
    assert result.returncode == 0, result.stderr
    assert f"exported: {model_dir / 'export' / '1'}" in result.stdout
    result = run("-m", "trainer.evaluate", *flags)
    assert result.returncode == 0, result.stderr


def start_pools(dataset_dir, model_dir, *flags) -> list[subprocess.Popen]:
    """The chief and the worker of the custom job as Vertex AI starts them, on this machine."""
    chief, worker = (f"localhost:{port}" for port in free_ports(2))
    tf_config = {"cluster": {"chief": [chief], "worker": [worker]}, "environment": "cloud"}
    processes = []
    for kind, pool in zip(("chief", "worker"), POOLS, strict=True):
        arguments = [arg for arg in pool["containerSpec"]["args"] if "gs://" not in arg]
        folders = [f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}"]
        place = tf_config | {"task": {"type": kind, "index": 0}}
        env = {"TF_CONFIG": json.dumps(place)}
        command = ("trainer.train", *arguments, *folders, *flags)
        processes.append(start_module(*command, env=env, stderr=subprocess.PIPE))
    return processes


@pytest.mark.integration
def test_a_chief_whose_worker_is_gone(small_dataset_dir, tmp_path):
    """It ends with the code that is tried again, and all go on together."""
    small = ["--config.network.convolutions=2", "--config.epochs=12", "--config.batch_size=2"]
    arguments = small_dataset_dir, tmp_path / "model", *small
    chief, worker = start_pools(*arguments)
    while "epoch  1/12" not in (line := chief.stdout.readline()):
        assert line, chief.stderr.read()
    worker.kill()
    _, errors = chief.communicate(timeout=120)
    worker.communicate()
    assert chief.returncode == EXIT_STOPPED, errors
    assert "stopped, since another worker is gone (" in errors

    processes = start_pools(*arguments)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "resumed after epoch" in outputs[0][0]
    assert "exported: " in outputs[0][0]
    assert outputs[1][0] == "waiting for 2 workers\n"
