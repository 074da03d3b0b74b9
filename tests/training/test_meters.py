"""What an epoch costs: times against the clock of the tasks themselves, memory against the system's own account."""

import time

import numpy as np
import pytest
import torch

from training.meters import MB, Cost, Meter, brief, device_memory, host_memory

CPU = torch.device("cpu")


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_an_epoch_in_two_parts_is_averaged_over_its_steps_and_leaves_out_what_lies_between(clock: Clock):
    meter = Meter(batch_size=64, device=CPU)
    meter.start(waited=7.0)  # of the epochs before
    clock.now += 3.0
    meter.stop(steps=4, waited=7.5)
    clock.now += 100.0  # a checkpoint
    meter.start(waited=7.5)
    clock.now += 1.0
    meter.stop(steps=6, waited=8.0)
    cost = meter.read()
    assert cost.step_seconds == pytest.approx(4 / 10)
    assert cost.data_wait_share == pytest.approx(1 / 4)
    assert cost.utterances_per_second == pytest.approx(640 / 4)
    assert cost.device_memory_mb is None


def test_an_epoch_is_counted_from_nothing(clock: Clock):
    meter = Meter(batch_size=10, device=CPU)
    for seconds in (5.0, 2.0):
        meter.start(waited=0.0)
        clock.now += seconds
        meter.stop(steps=2, waited=seconds / 10)
        cost = meter.read()
        assert (cost.step_seconds, cost.data_wait_share) == pytest.approx((seconds / 2, 0.1))


def test_the_line_of_the_log():
    cost = Cost(0.2134, 0.00412, 304.7, 812.4, None)
    assert str(cost) == "0.213 s a step, 305 utterances/s, data 0.4 %, 812 MB"
    assert str(Cost(59.51, 0.5, 0.2689, 10_700.0, 23_456.7)) == (
        "59.5 s a step, 0.269 utterances/s, data 50.0 %, 10,700 MB, 23,457 MB on the device"
    )


@pytest.mark.parametrize(
    ("number", "text"), [(0.00012, "0.00012"), (999.6, "1,000"), (12_345.0, "12,300"), (0, "0")]
)
def test_three_digits(number: float, text: str):
    assert brief(number) == text


def test_the_scalars_have_no_device_where_there_is_none():
    with_device = Cost(1.0, 0.1, 2.0, 3.0, 4.0).scalars()
    assert with_device == {
        "machine/step_seconds": 1.0,
        "machine/data_wait_share": 0.1,
        "machine/utterances_per_second": 2.0,
        "machine/host_memory_mb": 3.0,
        "machine/device_memory_mb": 4.0,
    }
    assert with_device.keys() - Cost(1.0, 0.1, 2.0, 3.0, None).scalars().keys() == {
        "machine/device_memory_mb"
    }


def test_host_memory_grows_by_what_is_touched():
    before, touched = host_memory(), 0
    ballast = []
    while host_memory() - before < 100 and touched < 4000:  # the peak may lie far above what is held now
        ballast.append(np.ones(50 * MB, np.uint8))
        touched += 50
    assert host_memory() - before == pytest.approx(100, abs=60)


@pytest.mark.parametrize(
    ("device", "place", "name"),
    [("cuda:1", torch.cuda, "max_memory_reserved"), ("mps", torch.mps, "driver_allocated_memory")],
)
def test_device_memory_is_what_torch_has_taken(monkeypatch, device: str, place: object, name: str):
    asked: list[tuple] = []
    monkeypatch.setattr(place, name, lambda *which: asked.append(which) or 250 * MB)
    assert device_memory(torch.device(device)) == 250.0
    assert asked == [(torch.device(device),) if device == "cuda:1" else ()]
    assert device_memory(CPU) is None
