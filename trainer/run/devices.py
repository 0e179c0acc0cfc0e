"""Device and strategy selection: this process's devices and those of the other workers."""

import functools
import sys
from collections.abc import Callable

import tensorflow as tf

from trainer.run import cluster

# Listed here, since the first time TensorFlow notes on stderr that there are no GPUs, and the
# commands import this module with stderr kept back.
tf.config.list_physical_devices()

# Gradients go to the other workers in packs of at least so many bytes, those of the last layers
# first, so that they are under way while those of the first layers, which take longest, are
# computed. With all in one pack, two workers with a core each train 5 to 10 % fewer examples a
# second.
_BYTES_PER_PACK = 1 << 20


def strategy_for(name: str) -> tf.distribute.Strategy:
    """Makes the strategy that --strategy names, before TensorFlow computes anything.

    Args:
        name: `one_device`, the first GPU, or CPU where there is none; `mirrored`, all of this
            process; `multi_worker`, all GPUs of all workers of TF_CONFIG, or a CPU of each; `auto`,
            the first that uses all there is.

    Raises:
        UserFacingError: TF_CONFIG is missing or can't be trained by.
    """
    cluster.check(name)
    if cluster.is_multi_worker(name):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(
                bytes_per_pack=_BYTES_PER_PACK
            )
        )
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


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the chief, the one that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def broadcast(strategy: tf.distribute.Strategy, value: int) -> int:
    """Returns the chief's value, in every worker; each waits until all have come here."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return value
    mine = value if is_chief(strategy) else 0
    total = int(_sum_over_replicas(strategy)(tf.constant(mine, tf.int64)))
    return total // len(local_replicas(strategy))


@functools.cache
def _sum_over_replicas(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that sums an integer of each worker over all replicas."""

    def of_worker(mine: tf.Tensor) -> tf.Tensor:
        def add() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(mine))

        return strategy.experimental_local_results(strategy.run(add))[0]

    summing: Callable[[tf.Tensor], tf.Tensor] = tf.function(of_worker, autograph=False)
    return summing


def lost_worker(error: tf.errors.OpError) -> str | None:
    """Returns what became of another worker, None if the error is about something else.

    TensorFlow's codes (coordination_service.cc, collective_param_resolver_distributed.cc): a worker
    that can't be reached, or whose heartbeats have stopped, is Unavailable; one that was started
    again in the meantime Aborted or a FailedPrecondition; what waited for it Cancelled or
    DeadlineExceeded. Others, such as Internal, may be a mistake of this worker's own.
    """
    if cluster.num_all_workers() < 2:
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


def tell_of_lost_worker(error: tf.errors.OpError) -> None:
    """Says that another worker is gone; raises the error if it is about something else."""
    lost = lost_worker(error)
    if lost is None:
        raise error
    print(
        f"stopped, since another worker is gone ({lost}); the same command for all goes on at the "
        "last checkpoint",
        file=sys.stderr,
    )


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
