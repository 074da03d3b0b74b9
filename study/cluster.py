"""Many calls of one function at once, on this machine or a cluster, by Ray."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported

import ray
from ray.exceptions import RayError, RayTaskError

from config import CrossvalConfig
from utils import UserError

Key = TypeVar("Key")
POLL = 1.0  # seconds between two looks at what is done
STORE = 128 * 2**20  # bytes of Ray's shared memory: what comes back is small


def start(config: CrossvalConfig) -> None:
    """Join the cluster of --ray_address, or start Ray on this machine. `UserError` where it cannot be joined."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if config.ray_address:
        try:
            ray.init(config.ray_address, **quiet)
        except (ConnectionError, RayError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray_address {config.ray_address}: no Ray cluster answers ({error})") from None
    else:
        ray.init("local", include_dashboard=False, object_store_memory=STORE, **quiet)
    there = ray.cluster_resources()
    for kind, wanted in (("CPU", config.cpus_per_trial), ("GPU", config.gpus_per_trial)):
        if wanted > there.get(kind, 0):
            has = f"{there.get(kind, 0):g}"
            stop()
            raise UserError(f"--{kind.lower()}s_per_trial {wanted:g}: Ray has {has} of them")


def stop() -> None:
    """Leave the cluster, or end the one of this machine."""
    ray.shutdown()


def run_all(
    work: Callable[..., Any], calls: dict[Key, Sequence[Any]], config: CrossvalConfig
) -> Iterator[tuple[Key, Any] | None]:
    """Yield each key with its result, or with the exception that ended it, as they come; None where none is new.

    A call whose process dies is begun again, --retries times.
    """
    remote = ray.remote(work).options(
        num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial, max_retries=config.retries
    )
    pending = {remote.remote(*arguments): key for key, arguments in calls.items()}
    while pending:
        done, _ = ray.wait(list(pending), timeout=POLL)
        for reference in done:
            yield pending.pop(reference), _outcome(reference)
        if not done:
            yield None


def _outcome(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except RayError as error:
        return error
