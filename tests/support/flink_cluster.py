"""A Flink cluster of processes with Beam's workers beside it, as a compose file would start it."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from tests.support.kafka_broker import free_ports
from tests.support.paths import ROOT
from tests.support.processes import descendants

_SECONDS = 240
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_WORKERS = "apache_beam.runners.worker.worker_pool_main"
# The sizes are what Flink's own start script would reckon, for small processes.
_CONFIG = """
rest.address: localhost
rest.port: {rest}
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
taskmanager.host: localhost
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 64m
taskmanager.memory.framework.off-heap.size: 32m
taskmanager.memory.task.heap.size: 128m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.managed.size: 32m
taskmanager.memory.network.min: 32m
taskmanager.memory.network.max: 32m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
classloader.resolve-order: parent-first
metrics.fetcher.update-interval: 1000
"""


class Cluster:
    """A job manager, task managers of one slot each, and one pool of workers for all of them.

    Attributes:
        flags: of Beam, for a job with a subtask of each step on each task manager.
    """

    def __init__(self, folder: pathlib.Path, jar: str, *, task_managers: int):
        """Starts it.

        Args:
            folder: for its configuration and logs.
            jar: of a job server that has a Flink in it.
            task_managers: how many.
        """
        rest, rpc, pool = free_ports(3)
        self._folder, self._url = folder, f"http://localhost:{rest}"
        self._processes: list[subprocess.Popen] = []
        self.flags = [
            f"--flink_master=localhost:{rest}",
            f"--parallelism={task_managers}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{pool}",
        ]
        folder.mkdir()
        (folder / "config.yaml").write_text(_CONFIG.format(rest=rest, rpc=rpc))
        java = ("java", "-Xmx256m", "-cp", jar)
        self._start("workers", sys.executable, "-m", _WORKERS, f"--service_port={pool}")
        self._start("job-manager", *java, _JOB_MANAGER, f"--configDir={folder}")
        for number in range(task_managers):
            self._start(f"task-manager-{number}", *java, _TASK_MANAGER, f"--configDir={folder}")
        end = time.monotonic() + _SECONDS
        while self._get("/overview").get("slots-total") != task_managers:
            assert time.monotonic() < end, self._logs()
            assert all(process.poll() is None for process in self._processes), self._logs()
            time.sleep(0.2)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            for pid in [*descendants(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def elements_of(self, step: str) -> dict[str, int]:
        """Returns {task manager: how many elements it was given at a step of the job that runs}."""
        (job,) = (job["id"] for job in self._get("/jobs")["jobs"] if job["status"] == "RUNNING")
        vertices = self._get(f"/jobs/{job}")["vertices"]
        (vertex,) = (vertex["id"] for vertex in vertices if step in vertex["name"])
        subtasks = self._get(f"/jobs/{job}/vertices/{vertex}")["subtasks"]
        return {each["taskmanager-id"]: each["metrics"]["read-records"] for each in subtasks}

    def kill_a_task_manager(self) -> None:
        self._processes[-1].kill()

    def _start(self, name: str, *command: str) -> None:
        # A pool starts its workers as `python`, in its own folder.
        env = {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=os.environ | env, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _get(self, path: str) -> dict[str, Any]:
        """Returns what the cluster answers, empty where it does not yet."""
        try:
            with urllib.request.urlopen(f"{self._url}{path}", timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return {}

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-1_000:] for path in self._folder.glob("*.log"))
