"""The workers of a training as TF_CONFIG names them; read without TensorFlow."""

import json
import os

from common.errors import UserFacingError, require


def is_multi_worker(name: str) -> bool:
    """Returns whether a name selects the strategy for the workers of TF_CONFIG."""
    return name == "multi_worker" or (name == "auto" and num_all_workers() > 1)


def check(strategy: str) -> None:
    """Raises UserFacingError if there is no worker for a --strategy, or as `workers_of`."""
    require(
        strategy != "multi_worker" or num_all_workers() > 0,
        "--strategy=multi_worker: TF_CONFIG does not name the workers; python -m trainer.launch "
        "--workers=2 -- … starts some on this machine",
    )


def num_all_workers() -> int:
    """Returns how many workers TF_CONFIG names, 0 without it; UserFacingError as `workers_of`."""
    return workers_of(os.environ.get("TF_CONFIG", ""))


def own_and_other_addresses() -> tuple[str, list[str]]:
    """Returns the `host:port` of this worker and those of the others, as TF_CONFIG names them."""
    values = json.loads(os.environ["TF_CONFIG"])
    own = values["cluster"][values["task"]["type"]][int(values["task"]["index"])]
    addresses = [address for job in values["cluster"].values() for address in job]
    return own, [address for address in addresses if address != own]


def workers_of(tf_config: str) -> int:
    """Returns how many workers a TF_CONFIG names, 0 if it is empty.

    Raises:
        UserFacingError: it is not JSON, or has other tasks than a chief and workers, or addresses
            that are not `host:port`.
    """
    if not tf_config:
        return 0
    try:
        values = json.loads(tf_config)
        cluster = values.get("cluster", {})
        counts = {job: len(addresses) for job, addresses in cluster.items()}
        task = values.get("task", {})
        named = not counts or 0 <= int(task["index"]) < counts[task["type"]]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserFacingError(f"TF_CONFIG can't be read ({error!r}): {tf_config[:200]}") from None
    require(named, f"TF_CONFIG: its task is none of its cluster: {tf_config[:200]}")
    for job, addresses in cluster.items():
        require(
            job in ("chief", "worker"),
            f"TF_CONFIG: a task {job}; chief and worker are those that train",
        )
        for address in addresses:
            require(
                _is_address(address), f"TF_CONFIG: {job} {address!r} is no address; it is host:port"
            )
    return sum(counts.values())


def _is_address(address: object) -> bool:
    """Returns whether it is `host:port`, which the workers meet at."""
    if not isinstance(address, str):
        return False
    host, _, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16


def is_chief_here(strategy: str) -> bool:
    """Returns whether this process is the chief, or has no workers beside it: the one that writes.

    Args:
        strategy: what --strategy names.

    Raises:
        UserFacingError: as `workers_of`.
    """
    if not is_multi_worker(strategy) or not num_all_workers():
        return True
    values = json.loads(os.environ["TF_CONFIG"])
    task = values["task"]
    has_chief = "chief" in values["cluster"]
    return task["type"] == "chief" or (not has_chief and int(task["index"]) == 0)


def chief_address() -> str:
    """Returns the `host:port` of the chief, as TF_CONFIG names it."""
    cluster: dict[str, list[str]] = json.loads(os.environ["TF_CONFIG"])["cluster"]
    return cluster["chief" if "chief" in cluster else "worker"][0]
