"""Device and strategy selection: this process's devices and the workers that TF_CONFIG names."""

import functools
import json
import os

import tensorflow as tf

from common.errors import UserFacingError, require

# Listed here, since the first time TensorFlow notes on stderr that there are no GPUs, and the
# commands import this module with stderr kept back.
tf.config.list_physical_devices()


def strategy_for(name: str) -> tf.distribute.Strategy:
    """Makes the strategy that --strategy names, before TensorFlow computes anything.

    Args:
        name: `one_device`, the first GPU, or CPU where there is none; `mirrored`, all of this
            process; `multi_worker`, all GPUs of all workers of TF_CONFIG, or a CPU of each; `auto`,
            the first that uses all there is.

    Raises:
        UserFacingError: TF_CONFIG is missing or can't be trained by.
    """
    num_workers = num_all_workers()
    if is_multi_worker(name):
        require(
            num_workers > 0,
            "--strategy=multi_worker: TF_CONFIG does not name the workers; python -m "
            "trainer.launch --workers=2 -- … starts some on this machine",
        )
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        # Each worker gets as many batches as the others, so they need not ask one another before
        # each whether there is one.
        strategy.extended.experimental_enable_get_next_as_optional = False
        return strategy
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = tuple(device.name for device in devices)
    if name == "mirrored" or (name == "auto" and len(names) > 1):
        return _mirrored(names)
    return tf.distribute.OneDeviceStrategy(names[0])


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.Strategy:
    """Makes the strategy over these devices, once in a process.

    Each strategy numbers its collectives from the same number on, and TensorFlow, which knows them
    by number, refuses one that is of another type than that of an earlier strategy.
    """
    return tf.distribute.MirroredStrategy(names)


def is_multi_worker(name: str) -> bool:
    """Returns whether a name selects the strategy for the workers of TF_CONFIG."""
    return name == "multi_worker" or (name == "auto" and num_all_workers() > 1)


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
        UserFacingError: it is not JSON, or has other tasks than a chief and workers.
    """
    if not tf_config:
        return 0
    try:
        values = json.loads(tf_config)
        cluster = values.get("cluster", {})
        counts = {job: len(addresses) for job, addresses in cluster.items()}
        task = values.get("task", {})
        named = not counts or int(task["index"]) < counts[task["type"]]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserFacingError(f"TF_CONFIG can't be read ({error!r}): {tf_config[:200]}") from None
    require(named, f"TF_CONFIG: its task is none of its cluster: {tf_config[:200]}")
    for job in counts:
        require(
            job in ("chief", "worker"),
            f"TF_CONFIG: a task {job}; chief and worker are those that train",
        )
    return sum(counts.values())


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the chief, the one that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def lost_worker(error: tf.errors.OpError) -> str | None:
    """Returns what became of another worker, None if the error is about something else.

    TensorFlow's codes (coordination_service.cc, collective_param_resolver_distributed.cc): a worker
    that can't be reached, or whose heartbeats have stopped, is Unavailable; one that was started
    again in the meantime Aborted or a FailedPrecondition; what waited for it Cancelled or
    DeadlineExceeded. Others, such as Internal, may be a mistake of this worker's own.
    """
    if num_all_workers() < 2:
        return None
    codes = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    _, of_collectives, reason = error.message.partition("Collective ops is aborted by: ")
    restarted = isinstance(error, tf.errors.FailedPreconditionError) and (
        bool(of_collectives) or "restarted" in error.message
    )
    if not (isinstance(error, codes) or restarted):
        return None
    return (reason or error.message or type(error).__name__).splitlines()[0]


def local_replicas(strategy: tf.distribute.Strategy) -> range:
    """Returns which of all replicas are this process's."""
    count = len(strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return range(count)
    index = resolver.task_id
    if resolver.task_type == "worker":  # after the chief, if there is one
        index += len(resolver.cluster_spec().as_dict().get("chief", ()))
    return range(index * count, (index + 1) * count)


def in_words(strategy: tf.distribute.Strategy) -> str:
    """Describes the devices of a strategy, such as `2 × GPU` or `2 workers of 1 × CPU`."""
    devices = strategy.extended.worker_devices
    kind = devices[0].rpartition("device:")[2].partition(":")[0]
    num_workers = strategy.num_replicas_in_sync // len(devices)
    workers = f"{num_workers} workers of " if num_workers > 1 else ""
    return f"{workers}{len(devices)} × {kind}"
