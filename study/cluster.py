"""Many calls of one function at once, on this machine or a cluster, by Ray."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported

import grpc
import ray
from ray.exceptions import RayError, RayTaskError

from config import CrossvalConfig, available_cores
from utils import Interrupted, UserError

Key = TypeVar("Key")
POLL = 1.0  # seconds between two looks at what is done
PATIENCE = 10.0  # seconds that a cluster has to answer
STORE = 128 * 2**20  # bytes of Ray's shared memory: what comes back is small


@contextmanager
def joined(config: CrossvalConfig) -> Iterator[None]:
    """Ray on the cluster of --ray_address, or on this machine alone, while a context.

    `UserError` where no cluster answers, or a trial asks for more than any of its machines has.
    """
    try:
        start(config)
        check_room(config)
        yield
    finally:
        ray.shutdown()


def start(config: CrossvalConfig) -> None:
    """Connect to Ray, which takes SIGTERM for itself: give it back."""
    before = signal.getsignal(signal.SIGTERM)
    address, quiet = config.ray_address, {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            limited = available_cores() < (os.cpu_count() or 1)
            mine = (
                available_cores() if limited else None
            )  # None: Ray counts the cores, and respects containers
            ray.init("local", num_cpus=mine, include_dashboard=False, object_store_memory=STORE, **quiet)
        elif address == "auto" or answers(address):
            ray.init(address, **quiet)
        else:
            raise ConnectionError(f"silence for {PATIENCE:g} seconds")
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray_address {address}: no Ray cluster answers ({error}); one with a token wants RAY_AUTH_MODE=token"
        ) from None
    except SystemExit:  # Ray's answer to SIGTERM
        raise Interrupted(signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def answers(address: str) -> bool:
    """Whether something there speaks Ray's protocol; `ray.init` itself would go on asking for a quarter of an hour."""
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(PATIENCE)
        except grpc.FutureTimeoutError:
            return False
    return True


def check_room(config: CrossvalConfig) -> None:
    """`UserError` where no machine could ever run a trial: Ray would wait for one without end."""
    wanted = {"CPU": config.cpus_per_trial, "GPU": config.gpus_per_trial}
    machines = [
        {kind: node["Resources"].get(kind, 0) for kind in wanted} for node in ray.nodes() if node["Alive"]
    ]
    if not any(all(has[kind] >= wanted[kind] for kind in wanted) for has in machines):
        shown = "; ".join(f"{has['CPU']:g} CPUs, {has['GPU']:g} GPUs" for has in machines)
        flags = f"--cpus_per_trial {wanted['CPU']:g} --gpus_per_trial {wanted['GPU']:g}"
        raise UserError(f"{flags}: no machine has so many (Ray found {shown})")


def run_all(
    work: Callable[..., Any], calls: dict[Key, Sequence[Any]], config: CrossvalConfig
) -> Iterator[tuple[Key, Any] | None]:
    """Yield each key with its result, or with the exception that ended it, as they come; None where none is new.

    A call whose process dies, or is told to end by a signal, is begun again, --retries times.
    """
    remote = ray.remote(work).options(
        num_cpus=config.cpus_per_trial,
        num_gpus=config.gpus_per_trial,
        max_retries=config.retries,
        retry_exceptions=[Interrupted],
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
