"""The steps of a search: which of them train the alphas, at which rate, and on whose rows."""

import json
from pathlib import Path

import pytest
import torch
from conftest import execute

from cli import from_file
from config import SearchConfig
from darts.gradient_search import GradientSearch
from darts.planner import Planner
from genotypes import Genotype, load_genotype
from training.experiment import start_experiment
from training.run_folder import RunFolder

CORRECTED = {
    "op_norm": True, "halves": "speakers", "balance": "weights", "alpha_start": 0.3, "alpha_reach": 3,
    "edges_by": "without_none", "alpha_average": 3, "pick": "best",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)


def make_search(**flags: object) -> GradientSearch:
    config = from_file(SearchConfig, Path("tiny.yaml"), **flags)
    return GradientSearch(config, start_experiment(config), RunFolder("search", config, writes=False))


def alphas_of(search: GradientSearch) -> torch.Tensor:
    return torch.cat([alpha.detach().flatten() for alpha in search.network.architecture_parameters()])


@pytest.mark.parametrize("order", ["first", "second"])
def test_frozen_epochs_take_the_steps_of_the_weights_alone(order):
    """One pass a step, no batch of the alphas, and no step of their optimizer; later both are trained."""
    search = make_search(order=order, batch_size=72, epochs=4, alpha_start=0.5)
    plain = make_search(order=order, batch_size=72, epochs=4)
    passes = []
    search.network.register_forward_pre_hook(lambda *_: passes.append(1))
    search.network.load_state_dict(plain.network.state_dict())
    before = alphas_of(search)
    for i in range(2 * search.steps):
        torch.manual_seed(i)
        search.step(i)
        torch.manual_seed(i)
        plain.architect.weight_step(plain.weight_batches[i])
    assert len(passes) == 2 * search.steps
    assert search.alpha_batches.waited == 0
    assert not search.architect.alpha_optimizer.state
    assert torch.equal(alphas_of(search), before)
    weights = zip(search.network.weights().values(), plain.network.weights().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    search.step(2 * search.steps)
    assert (alphas_of(search) != before).any()


@pytest.mark.parametrize(("start", "steps"), [(0.0, 24), (0.3, 18), (0.75, 6)])
def test_reach_is_the_rate_times_the_steps_that_train_the_alphas(start, steps):
    search = make_search(batch_size=36, epochs=4, alpha_start=start, alpha_reach=3)
    assert (search.steps, search.alpha_steps) == (6, steps)
    assert search.architect.alpha_optimizer.param_groups[0]["lr"] == pytest.approx(3 / steps)


def test_score_of_an_epoch_is_its_ua_and_its_negative_loss_once_the_alphas_are_trained():
    search = make_search(batch_size=72, epochs=2, alpha_start=0.5, pick="best")
    search.step(0)
    search.after_epoch(1)
    assert search.derivation.score is None
    record = search.after_epoch(2)
    assert search.derivation.score == (record["valid/ua"], -record["valid/loss"])


def test_halves_of_speakers_are_those_of_the_batches():
    search = make_search(batch_size=36, halves="speakers")
    speakers = [
        {search.store.speakers[row] for step in range(len(batches)) for row in batches.rows_of(step)}
        for batches in (search.weight_batches, search.alpha_batches)
    ]
    assert not set.intersection(*speakers)
    assert set.union(*speakers) == {search.store.speakers[row] for row in search.experiment.fold.train}


@pytest.mark.parametrize("portion", [0.3, 0.5])
def test_planner_knows_the_smaller_half_of_the_speakers(portion):
    search = make_search(batch_size=36, halves="speakers", train_portion=portion)
    planner = Planner.of(search.experiment, search.config)
    assert planner.rows == min(len(search.weight_rows), len(search.alpha_rows))


@pytest.mark.parametrize("relaxation", ["softmax", "dirichlet", "gumbel"])
def test_every_step_of_alphas_and_weights_has_its_own_sample(relaxation):
    search = make_search(relaxation=relaxation)
    samples = [each for i in range(6) for each in search.samples(i)]
    if relaxation == "softmax":
        assert samples == [None] * 12
        return
    assert len({each.seed for each in samples}) == 12
    assert search.samples(3) == make_search(relaxation=relaxation).samples(3)
    assert search.samples(3) != make_search(relaxation=relaxation, seed=9).samples(3)
    steps = search.config.epochs * search.steps
    assert [each.progress for each in search.samples(steps - 1)] == [(steps - 1) / steps] * 2


def test_selection_by_perturbation_is_the_same_in_a_resumed_run(workspace):
    flags = ["--config", "tiny.yaml", "--name", "selected", "--selection", "perturbation", "--epochs", 2]
    done = execute("search", *flags, cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert "selected  by the losses of the final supernet" in done.stdout
    saved = Path("runs/selected/search/genotype.json").read_bytes()
    assert execute("search", *flags, "--resume", cwd=workspace).returncode == 0  # selects again
    assert Path("runs/selected/search/genotype.json").read_bytes() == saved


def test_log_tells_the_rate_and_the_reach_and_the_best_genotype_is_saved(workspace):
    flags = []
    for name, value in CORRECTED.items():
        flags += [f"--{name}"] if value is True else [f"--{name}", value]
    done = execute("search", "--config", "tiny.yaml", "--name", "corrected", *flags, cwd=workspace)
    assert done.returncode == 0, done.stderr
    history = [
        json.loads(line) for line in Path("runs/corrected/search/history.jsonl").read_text().splitlines()
    ]
    best = max(history[1:], key=lambda record: (record["valid/ua"], -record["valid/loss"]))
    saved = load_genotype("runs/corrected/search/genotype.json")
    assert saved == Genotype.from_json(best["genotype"])
    assert f"picked    the genotype of epoch {best['epoch']}\n" in done.stdout
    steps = 3 * make_search(**CORRECTED).steps
    assert (
        f"alphas    frozen for 1 of 4 epochs; rate {3 / steps:.3g}, {steps} steps: they can move by about 3\n"
        in done.stdout
    )
    assert [record["lr/alpha"] for record in history] == [0.0, *[3 / steps] * 3]
