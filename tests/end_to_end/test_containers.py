"""Containers run with as few rights as Kubernetes' pod security standard "restricted" leaves.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ and, beyond it, a root file
system that can't be written.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support import images
from tests.support.paths import ROOT

# Who a container is, as a number: Kubernetes can't tell from a name that it is not root.
NOBODY = 65534
# What the standard lets a pod mount.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's specification in the tree, with its file and kind."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.yaml", "*.yml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in listing:
        if name == "mkdocs.yml" or name.startswith("."):
            continue
        for values in yaml.safe_load_all((ROOT / name).read_text()):
            template = (values.get("spec") or {}).get("template")
            if values.get("kind") == "CronJob":
                template = values["spec"]["jobTemplate"]["spec"]["template"]
            if values.get("kind") == "Pod":
                yield f"{name}: Pod", values["spec"]
            elif isinstance(template, dict):
                yield f"{name}: {values['kind']}", template["spec"]


PODS = dict(pods())


def violations(pod: dict[str, Any]) -> list[str]:
    """What of a pod is more than it may be."""
    found = []
    of_pod = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            found.append(name)
    for volume in pod.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    if pod.get("automountServiceAccountToken") is not False:
        found.append("automountServiceAccountToken")
    kinds = ("containers", "initContainers", "ephemeralContainers")
    for container in [each for kind in kinds for each in pod.get(kind, [])]:
        own = container.get("securityContext", {})
        both = of_pod | own
        if both.get("runAsNonRoot") is not True:
            found.append("runAsNonRoot")
        if not both.get("runAsUser"):
            found.append("runAsUser")
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
        if own.get("privileged"):
            found.append("privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            found.append("capabilities.drop")
        if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append("capabilities.add")
        if own.get("readOnlyRootFilesystem") is not True:
            found.append("readOnlyRootFilesystem")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append("hostPort")
        mounts = {mount["name"]: mount for mount in container.get("volumeMounts", [])}
        temporary = {volume["name"] for volume in pod.get("volumes", []) if "emptyDir" in volume}
        if "/tmp" not in {mounts[name]["mountPath"] for name in mounts.keys() & temporary}:
            found.append("/tmp")
    return found


def test_there_are_pods():
    assert {name.split(": ")[1] for name in PODS} >= {"Deployment", "Job"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_more_rights_than_it_needs(name):
    assert not violations(PODS[name])
    assert all("sizeLimit" in v["emptyDir"] for v in PODS[name]["volumes"] if "emptyDir" in v)


WORSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "runAsNonRoot": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda pod: pod["securityContext"].update(runAsUser=0),
    "seccompProfile": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "automountServiceAccountToken": lambda pod: pod.pop("automountServiceAccountToken"),
    "volume hostPath": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "/tmp": lambda pod: pod["containers"][0].pop("volumeMounts"),
    "readOnlyRootFilesystem": lambda pod: pod["containers"][0]["securityContext"].pop(
        "readOnlyRootFilesystem"
    ),
    "allowPrivilegeEscalation": lambda pod: pod["containers"][0]["securityContext"].update(
        allowPrivilegeEscalation=True
    ),
    "capabilities.drop": lambda pod: pod["containers"][0]["securityContext"].update(
        capabilities={"drop": ["KILL"]}
    ),
    "capabilities.add": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(
        add=["SYS_ADMIN"]
    ),
}


@pytest.mark.parametrize("what", WORSE)
def test_the_check_finds(what):
    pod = copy.deepcopy(next(iter(PODS.values())))
    WORSE[what](pod)
    assert violations(pod) == [what]


@pytest.mark.parametrize("image", ["serving", "trainer"])
def test_an_image_is_not_roots(image):
    """The last USER is a number, and comes after all that is installed."""
    lines = (ROOT / image / "Dockerfile").read_text().splitlines()
    users = [place for place, line in enumerate(lines) if line.startswith("USER ")]
    assert [lines[place] for place in users] == [f"USER {NOBODY}:{NOBODY}"]
    assert not [line for line in lines[users[-1] :] if line.startswith(("RUN ", "COPY ", "ADD "))]
    assert environment(image)["HOME"] == "/tmp"


def test_the_services_of_compose_are_not_roots():
    compose = yaml.safe_load((ROOT / "serving/tf_serving/compose.yaml").read_text())
    for service in compose["services"].values():
        assert service["user"] == f"{NOBODY}:{NOBODY}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def environment(image: str) -> dict[str, str]:
    """What a Dockerfile sets."""
    text = (ROOT / image / "Dockerfile").read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in line.split())


# Leaves one folder that can be written, in a mount namespace, and starts a command without rights:
# uid 0 without capabilities is bound by the modes of files as anybody is.
CONFINED = """
set -e
mount --make-rprivate /
mount -t tmpfs none "$1"
while read -r _ _ _ _ point _; do
    case "$point" in
        /proc* | /sys* | /dev* | "$1") ;;
        *) mount -o remount,bind,ro "$point" 2> /dev/null || true ;;
    esac
done < /proc/self/mountinfo
shift
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.mark.integration
@pytest.mark.parametrize("image", ["serving", "trainer"])
def test_an_image_writes_nowhere_but_into_tmp(
    image, library, small_dataset_dir, model_dir, tmp_path
):
    """What is in it works where a single folder can be written, here in the place of /tmp."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip("only root may make a file system read-only")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    tree = images.copy_tree(ROOT / image / "Dockerfile", tmp_path / "tree")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    song = next(path for path in library.audio_dir.rglob("*.mp3") if path.stat().st_size > 150_000)
    arguments = {
        "serving": ["serving.predict", f"--export_dir={model_dir / 'export'}", song],
        "trainer": [
            "trainer.train",
            "--config=configs/two_conv_mono.py",
            "--config.epochs=1",
            f"--dataset_dir={small_dataset_dir}",
            f"--model_dir={scratch / 'model'}",
        ],
    }[image]
    named = {name: text.replace("/tmp", str(scratch)) for name, text in environment(image).items()}
    result = subprocess.run(
        ["unshare", "-m", "bash", "-c", CONFINED, "bash", str(scratch), sys.executable, "-m"]
        + [str(argument) for argument in arguments],
        cwd=tree,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "TMPDIR": str(scratch)} | named,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    assert "probabilities" in result.stdout or "exported: " in result.stdout
