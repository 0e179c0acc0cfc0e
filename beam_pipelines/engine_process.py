"""Prism and Flink as processes of a command, which end when it does, by whatever it ends.

Beam stops them only as the command exits: one that is killed would leave them, and with them a job
whose workers are gone. A process has one, for all its jobs.
"""

from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability import flink_runner, job_server, prism_runner
from apache_beam.utils.shared import Shared

from common import parent_death

_server = Shared()


class _EndsWithCommand(job_server.SubprocessJobServer):
    def subprocess_cmd_and_endpoint(self) -> tuple[list[str], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        return parent_death.command([str(word) for word in command]), endpoint


class _FlinkServer(_EndsWithCommand, flink_runner.FlinkJarJobServer):
    pass


class _PrismServer(_EndsWithCommand, prism_runner.PrismJobServer):
    pass


class FlinkRunner(flink_runner.FlinkRunner):
    """Starts Beam's job server, which has a Flink in it or hands jobs to a cluster."""

    def default_job_server(self, options: PipelineOptions) -> Any:
        server = super().default_job_server(options)
        if options.view_as(FlinkRunnerOptions).flink_submit_uber_jar:
            return server  # which is no process
        return _server.acquire(lambda: job_server.StopOnExitJobServer(_FlinkServer(options)))


class PrismRunner(prism_runner.PrismRunner):
    """Starts Prism."""

    def default_job_server(self, options: PipelineOptions) -> Any:
        return _server.acquire(lambda: job_server.StopOnExitJobServer(_PrismServer(options)))
