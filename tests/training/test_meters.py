"""The meter and the throttle on a clock that the test moves, and memory against an allocation."""

import time

import numpy as np
import pytest
import torch

from training.meters import MB, Meter, Throttle, Usage, device_memory, host_memory, three_digits

CPU = torch.device("cpu")


class Clock:
    """A clock that the test moves by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_an_epoch_in_two_parts_is_averaged_without_the_time_between(clock: Clock):
    meter = Meter(batch_size=64, device=CPU)
    meter.start(waited=7.0)  # in earlier epochs
    clock.now += 3.0
    meter.stop(steps=4, waited=7.5)
    clock.now += 100.0  # a checkpoint
    meter.start(waited=7.5)
    clock.now += 1.0
    meter.stop(steps=6, waited=8.0)
    usage = meter.read()
    assert usage.step_seconds == pytest.approx(4 / 10)
    assert usage.data_wait_share == pytest.approx(1 / 4)
    assert usage.utterances_per_second == pytest.approx(640 / 4)
    assert usage.device_memory_mb is None


def test_reading_the_meter_resets_it(clock: Clock):
    meter = Meter(batch_size=10, device=CPU)
    for seconds in (5.0, 2.0):
        meter.start(waited=0.0)
        clock.now += seconds
        meter.stop(steps=2, waited=seconds / 10)
        usage = meter.read()
        assert (usage.step_seconds, usage.data_wait_share) == pytest.approx((seconds / 2, 0.1))


def test_the_usage_is_one_line_in_the_log():
    usage = Usage(0.2134, 0.00412, 304.7, 812.4, None)
    assert str(usage) == "0.213 s a step, 305 utterances/s, data 0.4 %, process 812 MB"
    assert str(Usage(59.51, 0.5, 0.2689, 10_700.0, 23_456.7)) == (
        "59.5 s a step, 0.269 utterances/s, data 50.0 %, process 10,700 MB, 23,457 MB on the device"
    )


@pytest.mark.parametrize(
    ("number", "text"), [(0.00012, "0.00012"), (999.6, "1,000"), (12_345.0, "12,300"), (0, "0")]
)
def test_three_digits(number: float, text: str):
    assert three_digits(number) == text


def test_scalars_leave_out_the_device_memory_of_a_cpu():
    scalars = Usage(1.0, 0.1, 2.0, 3.0, 4.0).scalars()
    assert scalars == {
        "machine/step_seconds": 1.0,
        "machine/data_wait_share": 0.1,
        "machine/utterances_per_second": 2.0,
        "machine/host_memory_mb": 3.0,
        "machine/device_memory_mb": 4.0,
    }
    del scalars["machine/device_memory_mb"]
    assert Usage(1.0, 0.1, 2.0, 3.0, None).scalars() == scalars


def test_host_memory_grows_with_the_memory_that_is_written_to():
    before = host_memory()
    arrays = []
    # an earlier peak may be far above the present use
    while host_memory() - before < 100 and len(arrays) < 80:
        arrays.append(np.ones(50 * MB, np.uint8))
    assert host_memory() - before == pytest.approx(100, abs=60)


@pytest.mark.parametrize(
    ("device", "module", "function"),
    [("cuda:1", torch.cuda, "max_memory_reserved"), ("mps", torch.mps, "driver_allocated_memory")],
)
def test_device_memory_is_what_torch_reports(monkeypatch, device: str, module: object, function: str):
    calls: list[tuple] = []
    monkeypatch.setattr(module, function, lambda *arguments: calls.append(arguments) or 250 * MB)
    assert device_memory(torch.device(device)) == 250.0
    assert calls == [(torch.device(device),) if device == "cuda:1" else ()]
    assert device_memory(CPU) is None


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
@pytest.mark.parametrize(("epoch", "work"), [(1.0, 0.01), (1.0, 0.3), (1.0, 5.0)])
def test_throttled_work_takes_at_most_its_share_of_the_time(
    clock: Clock, share: float, epoch: float, work: float
):
    throttle = Throttle(share)
    spent = 0.0
    for _ in range(2000):
        clock.now += epoch
        if throttle.due:
            with throttle:
                clock.now += work
            spent += work
    found = spent / (clock.now - 1000.0)
    assert found <= share + 0.003  # the first time comes without a wait
    wanted = min(share, work / (work + epoch))  # the work of every epoch may be less than the share
    assert found > 0.6 * wanted


def test_throttled_work_is_due_at_the_start():
    assert Throttle().due
