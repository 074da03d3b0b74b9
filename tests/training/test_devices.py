"""Which device a flag means, on machines that this one is not; gradients; the state of the generators."""

import os

import pytest
import torch

from training import devices
from training.devices import (
    accelerator_for,
    available_gpus,
    local_gradient,
    make_fabric,
    random_state,
    set_random_state,
)
from utils import UserError


@pytest.mark.parametrize(
    ("machine", "gpus", "expected"),
    [
        (("cuda", 2), "auto", ("cuda", [0])),
        (("cuda", 2), "0", ("cuda", [0])),
        (("cuda", 2), "1", ("cuda", [1])),
        (("cuda", 2), "0,1", ("cuda", [0, 1])),
        (("cuda", 2), "1,0", ("cuda", [0, 1])),
        (("cuda", 2), "1,1", ("cuda", [1])),
        (("cuda", 2), "all", ("cuda", [0, 1])),
        (("cuda", 2), "none", ("cpu", 1)),
        (("cuda", 1), "all", ("cuda", [0])),
        (("mps", 1), "auto", ("mps", 1)),
        (("mps", 1), "all", ("mps", 1)),
        (("mps", 1), "0", ("mps", 1)),
        (("mps", 1), "none", ("cpu", 1)),
        (("cpu", 0), "auto", ("cpu", 1)),
        (("cpu", 0), "none", ("cpu", 1)),
        (("cuda", 2), "cpu", ("cpu", 1)),
        (("cuda", 2), "cuda", ("cuda", [0])),
        (("mps", 1), "mps", ("mps", 1)),
        (("mps", 1), "cpu", ("cpu", 1)),
        (("cpu", 0), "cpu", ("cpu", 1)),
    ],
)
def test_what_a_flag_means(monkeypatch, machine: tuple[str, int], gpus: str, expected: tuple):
    monkeypatch.setattr(devices, "available_gpus", lambda: machine)
    assert accelerator_for(gpus) == expected


@pytest.mark.parametrize(
    ("machine", "gpus", "message"),
    [
        (("cuda", 2), "2", "there is no GPU 2; this machine has 0 to 1"),
        (("cuda", 2), "0,7", "there is no GPU 7"),
        (("mps", 1), "1", "there is no GPU 1"),
        (("cpu", 0), "0", "this machine has no GPU"),
        (("cpu", 0), "all", "--gpus none runs on the CPU"),
    ],
)
def test_a_gpu_that_is_not_there_is_a_user_error(
    monkeypatch, machine: tuple[str, int], gpus: str, message: str
):
    monkeypatch.setattr(devices, "available_gpus", lambda: machine)
    with pytest.raises(UserError, match=f"--gpus {gpus}: ") as error:
        accelerator_for(gpus)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("machine", "kind"),
    [(("cpu", 0), "cuda"), (("cpu", 0), "mps"), (("mps", 1), "cuda"), (("cuda", 2), "mps")],
)
def test_a_kind_of_gpu_that_is_not_there_is_a_user_error(monkeypatch, machine: tuple[str, int], kind: str):
    monkeypatch.setattr(devices, "available_gpus", lambda: machine)
    with pytest.raises(
        UserError, match=f"^--device {kind}: this machine has none .*; --device cpu runs on the CPU$"
    ):
        accelerator_for(kind)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, ("cuda", 3)), (False, True, ("mps", 1)), (False, False, ("cpu", 0))],
)
def test_what_the_machine_has_is_what_torch_says(
    monkeypatch, cuda: bool, mps: bool, expected: tuple[str, int]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert available_gpus() == expected


def asked_of_fabric(monkeypatch, machine: tuple[str, int], gpus: str, here: int, everywhere: int) -> dict:
    """What a Fabric is made with on a machine, under a torchrun of so many processes; 0: under none."""
    monkeypatch.setattr(devices, "available_gpus", lambda: machine)
    monkeypatch.setattr(devices, "Fabric", lambda **asked: asked)
    launched = {"LOCAL_WORLD_SIZE": str(here), "WORLD_SIZE": str(everywhere)} if everywhere else {}
    monkeypatch.setattr(os, "environ", {**os.environ, **launched})
    return make_fabric(gpus)


@pytest.mark.parametrize(
    ("machine", "gpus", "launched", "expected"),
    [
        (("cuda", 2), "auto", 0, ("cuda", [0])),
        (("cuda", 1), "all", 0, ("cuda", [0])),
        (("cpu", 0), "auto", 0, ("cpu", 1)),
        (("cpu", 0), "auto", 1, ("cpu", 1)),
    ],
)
def test_one_process_needs_no_strategy(
    monkeypatch, machine: tuple[str, int], gpus: str, launched: int, expected
):
    asked = asked_of_fabric(monkeypatch, machine, gpus, launched, launched)
    assert asked == {"accelerator": expected[0], "devices": expected[1]}


@pytest.mark.parametrize(
    ("machine", "gpus", "here", "everywhere", "expected"),
    [
        (("cuda", 2), "all", 0, 0, ("cuda", [0, 1], 1)),
        (("cpu", 0), "auto", 2, 2, ("cpu", 2, 1)),
        (("cuda", 2), "none", 3, 3, ("cpu", 3, 1)),
        (
            ("cuda", 2),
            "auto",
            2,
            2,
            ("cuda", 2, 1),
        ),  # with fewer devices Fabric would find none for the last process
        (("cuda", 2), "all", 2, 2, ("cuda", [0, 1], 1)),
        (("cuda", 2), "0,1", 2, 2, ("cuda", [0, 1], 1)),
        (("cuda", 4), "auto", 4, 8, ("cuda", 4, 2)),
        (("cuda", 1), "auto", 1, 2, ("cuda", [0], 2)),
        (("cpu", 0), "auto", 1, 3, ("cpu", 1, 3)),
        (("cuda", 2), "cpu", 2, 2, ("cpu", 2, 1)),
        (("cuda", 2), "cuda", 2, 2, ("cuda", 2, 1)),
        (("cuda", 1), "cuda", 1, 2, ("cuda", [0], 2)),
        (("mps", 1), "auto", 2, 2, ("cpu", 2, 1)),
        (("mps", 1), "auto", 1, 2, ("cpu", 1, 2)),
    ],
)
def test_several_gpus_or_torchrun_mean_several_processes(
    monkeypatch, machine: tuple[str, int], gpus: str, here: int, everywhere: int, expected: tuple
):
    asked = asked_of_fabric(monkeypatch, machine, gpus, here, everywhere)
    assert (asked["accelerator"], asked["devices"], asked["num_nodes"]) == expected
    backend = "cpu:gloo,cuda:nccl" if expected[0] == "cuda" else "gloo"
    assert asked["strategy"].process_group_backend == backend


@pytest.mark.parametrize("gpus", ["mps", "all", "0"])
def test_several_processes_do_not_share_the_gpu_of_apple(monkeypatch, gpus: str):
    with pytest.raises(UserError, match=f"--gpus {gpus}: Apple's GPU is for one process"):
        asked_of_fabric(monkeypatch, ("mps", 1), gpus, 2, 2)


@pytest.mark.parametrize("gpus", ["none", "cpu"])
def test_none_is_the_cpu_in_one_process(gpus: str):
    fabric = make_fabric(gpus)
    assert (fabric.device, fabric.world_size) == (torch.device("cpu"), 1)


def test_the_gradient_of_an_unused_input_is_zero():
    used, unused = torch.tensor([1.0, 2.0], requires_grad=True), torch.ones(2, 3, requires_grad=True)
    d_used, d_unused = local_gradient((used**2).sum(), [used, unused])
    assert torch.equal(d_used, torch.tensor([2.0, 4.0]))
    assert torch.equal(d_unused, torch.zeros(2, 3))
    assert used.grad is None


def test_gradients_share_no_memory():
    """Autograd gives both terms of a sum the same tensor; clipped in place, it would shrink twice."""
    b, c = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    one, other = local_gradient(((b + c) ** 2).sum(), [b, c])
    one.zero_()
    assert torch.equal(other, torch.full((3,), 4.0))


def test_the_generators_go_on_from_a_saved_state():
    cpu = torch.device("cpu")
    state = random_state(cpu)
    expected = torch.rand(5)
    torch.rand(100)
    set_random_state(state, cpu)
    assert torch.equal(torch.rand(5), expected)


def test_the_state_of_another_kind_of_device_is_left_out():
    state = {**random_state(torch.device("cpu")), "cuda": torch.zeros(16, dtype=torch.uint8)}
    expected = torch.rand(3)
    set_random_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
