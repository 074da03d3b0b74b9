"""Runs many calls of a function in parallel by Ray, on this machine or on a cluster."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # must be set before Ray is imported

import grpc
import ray
from ray.exceptions import RayError, RayTaskError

from config import CrossvalConfig, available_cores
from report.trials import TrialKey
from utils import Interrupted, UserError

POLL_SECONDS = 1.0
CONNECT_TIMEOUT = 10.0  # seconds
OBJECT_STORE_BYTES = 128 * 2**20  # Ray's shared memory; the results of trials are small


@contextmanager
def ray_session(config: CrossvalConfig) -> Iterator[None]:
    """Connect to Ray, and shut the connection down at the end.

    Raises `UserError` if no cluster answers, or if no machine has the resources of a trial.
    """
    try:
        connect(config)
        check_resources(config)
        yield
    finally:
        ray.shutdown()


def connect(config: CrossvalConfig) -> None:
    """Join the cluster at --ray_address, or start Ray on this machine.

    Restores the SIGTERM handler, which Ray replaces.
    """
    address = config.ray_address
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            cores = available_cores() if available_cores() < (os.cpu_count() or 1) else None
            options["num_cpus"] = cores  # None: Ray counts, with the limits of containers
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


def check_resources(config: CrossvalConfig) -> None:
    """Raise `UserError` if no single machine has the resources of a trial; Ray would wait forever."""
    cpus = config.cpus_per_trial
    gpus = config.gpus_per_trial
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = [(machine.get("CPU", 0), machine.get("GPU", 0)) for machine in machines]
    if not any(has_cpus >= cpus and has_gpus >= gpus for has_cpus, has_gpus in sizes):
        found = "; ".join(f"{has_cpus:g} CPUs, {has_gpus:g} GPUs" for has_cpus, has_gpus in sizes)
        flags = f"--cpus_per_trial {cpus:g} --gpus_per_trial {gpus:g}"
        raise UserError(f"{flags}: no machine has that many (Ray found {found})")


def run_tasks(
    function: Callable[..., Any], arguments: Mapping[TrialKey, Sequence[Any]], config: CrossvalConfig
) -> Iterator[tuple[TrialKey, Any] | None]:
    """Call `function` with the arguments of each trial; yield (key, outcome) as the calls end.

    The outcome is the return value or an exception. Yields None whenever no call has ended for
    `POLL_SECONDS`. A call whose process dies or is terminated by a signal is started again, up to
    --retries times.
    """
    remote = ray.remote(function).options(
        num_cpus=config.cpus_per_trial,
        num_gpus=config.gpus_per_trial,
        max_retries=config.retries,
        retry_exceptions=[Interrupted],
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
