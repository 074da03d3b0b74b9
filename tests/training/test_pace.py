"""What a run can do without takes no more than its share of the time, and is done as often as that allows."""

import time

import pytest

from training.pace import Pace


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
@pytest.mark.parametrize(("epoch", "work"), [(1.0, 0.01), (1.0, 0.3), (1.0, 5.0)])
def test_the_work_takes_its_share_at_most(monkeypatch, share: float, epoch: float, work: float):
    now = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    pace, spent = Pace(share), 0.0
    for _ in range(2000):
        now += epoch
        if pace.due:
            with pace:
                now += work
            spent += work
    assert spent / (now - 1000.0) <= share + 0.003  # the first comes at once
    wanted = min(share, work / (work + epoch))  # every epoch, where that is less
    assert spent / (now - 1000.0) > 0.6 * wanted


def test_the_first_is_due_at_once():
    assert Pace().due
