"""Runs many calls of a function in parallel by Ray, on this machine or on a cluster."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # must be set before Ray is imported

import grpc
import ray
from ray.exceptions import RayError, RayTaskError

from config import available_cores
from utils import Interrupted, UserError

POLL_SECONDS = 1.0
CONNECT_TIMEOUT = 10.0  # seconds
OBJECT_STORE_BYTES = 128 * 2**20  # Ray's shared memory; the results of tasks are small
Key = TypeVar("Key")


class Resources(NamedTuple):
    """What each task takes of a machine."""

    cpus: float
    gpus: float
    """A share of a GPU, or a whole number."""


@contextmanager
def ray_session(each: Resources, address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Join the Ray cluster at an address, or start Ray on this machine; shut the connection down at the end.

    This machine counts `cpus` cores, by default those that this process may use.
    Raises `UserError` if no cluster answers, or if no machine has the resources of a task.
    """
    try:
        connect(address, cpus)
        check_resources(each)
        yield
    finally:
        ray.shutdown()


def connect(address: str | None, cpus: int | None = None) -> None:
    """Join the cluster at an address, or start Ray on this machine.

    Restores the SIGTERM handler, which Ray replaces.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            cores = available_cores() if available_cores() < (os.cpu_count() or 1) else None
            options["num_cpus"] = cpus or cores  # None: Ray counts, with the limits of containers
            options["include_dashboard"] = False
            options["object_store_memory"] = OBJECT_STORE_BYTES
        elif address != "auto" and not is_reachable(address):
            raise ConnectionError(f"no answer within {CONNECT_TIMEOUT:g} seconds")
        ray.init(address or "local", **options)
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray_address {address}: no Ray cluster answers ({error}); "
            "if the cluster requires a token, set RAY_AUTH_MODE=token"
        ) from None
    except SystemExit:  # raised by Ray's SIGTERM handler
        raise Interrupted(signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, sigterm_handler)


def is_reachable(address: str) -> bool:
    """Whether a gRPC server answers at an address. `ray.init` would retry for 15 minutes."""
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_TIMEOUT)
        except grpc.FutureTimeoutError:
            return False
    return True


def check_resources(each: Resources) -> None:
    """Raise `UserError` if no single machine has the resources of a task; Ray would wait forever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = [(machine.get("CPU", 0), machine.get("GPU", 0)) for machine in machines]
    if not any(has_cpus >= each.cpus and has_gpus >= each.gpus for has_cpus, has_gpus in sizes):
        found = "; ".join(f"{has_cpus:g} CPUs, {has_gpus:g} GPUs" for has_cpus, has_gpus in sizes)
        flags = f"--cpus_per_trial {each.cpus:g} --gpus_per_trial {each.gpus:g}"
        raise UserError(f"{flags}: no machine has that many (Ray found {found})")


def run_tasks(
    function: Callable[..., Any], arguments: Mapping[Key, Sequence[Any]], each: Resources, retries: int
) -> Iterator[tuple[Key, Any] | None]:
    """Call `function` with the arguments of each task; yield (key, outcome) as the calls end.

    The outcome is the return value or an exception. Yields None whenever no call has ended for `POLL_SECONDS`.
    A call whose process dies or is terminated by a signal is started again, up to `retries` times.
    """
    remote = ray.remote(function).options(
        num_cpus=each.cpus, num_gpus=each.gpus, max_retries=retries, retry_exceptions=[Interrupted]
    )
    pending = {remote.remote(*values): key for key, values in arguments.items()}
    while pending:
        done, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        for task in done:
            yield pending.pop(task), _outcome(task)
        if not done:
            yield None


def _outcome(task: Any) -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except RayError as error:
        return error
