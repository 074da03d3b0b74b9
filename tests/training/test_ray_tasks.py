"""Ray: the resources of a task, and an address without a cluster. tests/test_crossval.py runs tasks."""

import socket

import pytest

from training import ray_tasks
from training.ray_tasks import Resources
from utils import UserError


def test_resources_of_a_task_must_be_on_one_machine(monkeypatch: pytest.MonkeyPatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray_tasks.ray, "nodes", lambda: nodes)
    for fits in ((4, 0), (2, 0.25)):
        ray_tasks.check_resources(Resources(*fits))
    for too_large in ((5, 0), (4, 0.25)):
        with pytest.raises(UserError, match="no machine has that many"):
            ray_tasks.check_resources(Resources(*too_large))


@pytest.mark.parametrize("listens", [False, True])
def test_address_without_a_cluster_is_an_error(listens: bool, monkeypatch: pytest.MonkeyPatch):
    """`ray.init` is not called, since it would retry for minutes."""
    monkeypatch.setattr(ray_tasks, "CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(ray_tasks.ray, "init", lambda *_, **__: pytest.fail("ray.init was called"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if not listens:
            server.close()
        with pytest.raises(UserError, match=f"--ray_address {address}: no Ray cluster answers"):
            ray_tasks.connect(address)
