"""Checkpoints that are whole, and hold a state that no run leaves."""

from pathlib import Path

import pytest
import torch
from hostile import here, train

from training.loop import Progress
from utils import UserError

NESTED: list = [1.0]
for _ in range(40):
    NESTED = [NESTED, NESTED]
STATES = {
    "epoch": {"epoch": "1"},
    "step": {"step": -1},
    "step beyond the epoch": {"step": 2**20},
    "totals": {"totals": {"loss": torch.zeros(3)}},
    "history": {"history": [1]},
    "history without end": {"history": [{"x": NESTED}]},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_whole_checkpoint_with_another_state_is_refused(change: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("training.loop.MOST", 10**5)
    train()
    path = Path("runs/toy/search/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    state["position"] |= {
        "epoch": 1,
        "step": 1,
        "totals": {"loss": torch.zeros(())},
        "history": [{"epoch": 1}],
        **change,
    }
    torch.save(state, path)
    with pytest.raises(UserError, match="--overwrite starts anew"):
        train()


def changed(state: dict, keys: tuple, value: object) -> dict:
    """A state with one value at the end of some keys exchanged, or, for `Ellipsis`, taken out."""
    state, key = dict(state), keys[0]
    if len(keys) > 1:
        state[key] = changed(state[key], keys[1:], value)
    elif value is ...:
        del state[key]
    else:
        state[key] = value
    return state


MOMENTS = ("optimizer", "state", 0)
PARTS = [
    (MOMENTS, ...),
    ((*MOMENTS, "exp_avg"), ...),
    ((*MOMENTS, "exp_avg"), torch.zeros(1).expand(2**40)),
    ((*MOMENTS, "exp_avg"), torch.zeros(1).expand(2, 3)),
    ((*MOMENTS, "exp_avg"), torch.zeros(9)[:1].expand(2, 3)),
    ((*MOMENTS, "exp_avg"), torch.zeros(2, 3, dtype=torch.complex64)),
    ((*MOMENTS, "step"), torch.tensor(-1.0)),
    ((*MOMENTS, "step"), 10**400),
    (("optimizer", "param_groups"), []),
    (("scheduler", "T_max"), 0),
    (("scheduler", "last_epoch"), 10**400),
    (("scheduler", "last_epoch"), -2),
    (("scheduler", "_last_lr"), ["0.1"]),
    (("scheduler", "step"), 1),
    (("best", "rank"), (0.5,)),
    (("best", "weights"), {}),
    (("random",), {}),
    (("processes",), torch.zeros(2)),
    (("version",), torch.zeros(2)),
]


@pytest.mark.parametrize(("keys", "value"), PARTS, ids=[".".join(map(str, keys)) for keys, _ in PARTS])
def test_a_part_that_is_not_of_this_run_is_refused(keys: tuple, value: object):
    train()
    path = Path("runs/toy/search/checkpoint.pt")
    path.with_name("checkpoint.previous.pt").unlink()
    torch.save(changed(torch.load(path, weights_only=True), keys, value), path)
    with pytest.raises(UserError, match="--overwrite starts"):
        train()


@pytest.mark.parametrize(
    ("option", "value"), [("lr", None), ("betas", (2.0, 5.0)), ("amsgrad", True), ("params", [0])]
)
def test_an_optimiser_of_other_flags_is_refused(option: str, value: object):
    train()
    path = Path("runs/toy/search/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0][option] = value
    torch.save(state, path)
    with pytest.raises(UserError, match="does not fit this run"):
        train()


def test_a_position_is_its_own_state():
    position = Progress()
    position.load_state_dict(Progress(1, 1, {"loss": torch.ones(())}, [{"epoch": 1}]).state_dict())
    assert (position.epoch, position.step) == (1, 1)
