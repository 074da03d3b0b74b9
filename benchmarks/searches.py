"""How well searches rank and choose the genotypes of a table that benchmarks/space.py has made.

T="--table benchmarks/space/emodb_one_node.csv --config benchmarks/space/emodb_one_node.yaml --dataset emodb40"
python benchmarks/searches.py $T --seeds 1 2 3 4 5     run each search with each seed, and print what it has found
python benchmarks/searches.py $T --report              print it again

The rows of a search are added to a second table, whose name ends in _searches.csv; those that are there are not
computed again. A search sees what search.py sees. Its genotype is looked up in the table of the retrained genotypes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from space import append, commit, read_table

from cli import from_file
from config import SearchConfig
from darts.evolution import Evolution
from darts.gradient_search import GradientSearch
from genotypes import Genotype, Node, parse
from models.joint_network import Size
from models.search_space import canonical
from training.experiment import start_experiment
from training.run_folder import RunFolder, log

WITHOUT_CORRECTIONS = {
    "op_norm": False,
    "halves": "utterances",
    "alpha_start": 0.0,
    "alpha_lr": 3e-4,
    "alpha_average": 1,
}
SEARCHES = {
    "evolution": {"strategy": "evolution"},
    "darts": {},
    "darts without corrections": {**WITHOUT_CORRECTIONS, "edges_by": "weight"},
    "darts, second order": {"order": "second"},
    "dirichlet": {"relaxation": "dirichlet"},
    "gumbel": {"relaxation": "gumbel"},
    "selection by perturbation": {"selection": "perturbation"},
}
"""The searches that are compared: flags besides those of --config."""
COLUMNS = ("search", "fold", "seed", "genotype", "tau_validation", "tau_test", "cpu_seconds", "commit")
DRAWS = 100_000
"""Simulated random searches."""


def main() -> None:
    """Add rows to the table of the searches, and print what both tables say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="the CSV of benchmarks/space.py")
    parser.add_argument("--report", action="store_true", help="print what the tables say, and stop")
    parser.add_argument("--config", type=Path, required=True, help="the file that the table was made with")
    parser.add_argument("--dataset", default="emodb40")
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options = parser.parse_args()
    truth = Truth.of([row for row in read_table(options.table) if row["fold"] == options.fold])
    path = options.table.with_name(f"{options.table.stem}_searches.csv")
    if not options.report:
        add_rows(path, truth, options)
    print(report(read_table(path), truth))


@dataclass(frozen=True)
class Truth:
    """What retraining says of G genotypes: UA in percent, and losses, (G, seeds)."""

    genotypes: Sequence[str]
    validation_ua: np.ndarray
    validation_loss: np.ndarray
    test_ua: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[dict]) -> "Truth":
        genotypes = list(dict.fromkeys(row["genotype"] for row in rows))
        seeds = sorted({row["seed"] for row in rows})
        by_key = {(row["genotype"], row["seed"]): row for row in rows}
        complete = [each for each in genotypes if all((each, seed) in by_key for seed in seeds)]

        def column(name: str, scale: float) -> np.ndarray:
            return scale * np.array([[by_key[each, seed][name] for seed in seeds] for each in complete])

        return cls(
            complete, column("validation_ua", 100), column("validation_loss", 1), column("test_ua", 100)
        )


def add_rows(path: Path, truth: Truth, options: argparse.Namespace) -> None:
    """Run every search with every seed, unless the table has it."""
    done = {(row["search"], row["fold"], row["seed"]) for row in read_table(path)}
    for seed in options.seeds:
        for name in options.searches:
            if (name, options.fold, seed) not in done:
                append(path, run_search(name, seed, truth, options))


def run_search(name: str, seed: int, truth: Truth, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: a search, and the agreement of its scores with the truth."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as path:
        fixed = {"dataset": options.dataset, "fold": options.fold, "seed": seed, "gpus": "none"}
        fixed |= {"results_path": Path(path), "guard": "off", "recompute": "none", "strategy": "darts"}
        config = from_file(SearchConfig, options.config, **{**fixed, **SEARCHES[name]})
        experiment = start_experiment(config)
        folder = RunFolder("search", config)
        search = (Evolution if config.strategy == "evolution" else GradientSearch)(config, experiment, folder)
        with folder:
            genotype = canonical(search.run()[0], Size.of(config).stem_twice)
    seconds = time.process_time() - start
    scores = [score(search, parse(each)) for each in truth.genotypes]
    taus = [kendalltau(scores, ua.mean(axis=1)).statistic for ua in (truth.validation_ua, truth.test_ua)]
    values = name, options.fold, seed, str(genotype), *np.round(taus, 3), round(seconds, 1), commit()
    return dict(zip(COLUMNS, values, strict=True))


def score(search: Evolution | GradientSearch, genotype: Genotype) -> float:
    """What a finished search says of a genotype, higher for better.

    The evolution: minus the loss by shared weights. DARTS: the log-probability of the ops by the alphas from which the
    search derives its genotype. Where the inputs of a cell are equal, the better order of them counts.
    """
    if isinstance(search, Evolution):
        return -search.score(genotype).loss
    total = 0.0
    for kind, weights in search.derivation.mean().items():
        ops = search.network.space.of(kind)[1]
        logs = [(w / w.sum(dim=1, keepdim=True)).log() for w in weights]
        exchanged = [torch.cat([w[:2].flip(0), w[2:]]) for w in logs]
        orders = [logs, exchanged] if kind in Size.of(search.config).stem_twice else [logs]
        cell = getattr(genotype, kind)
        total += max(log_probability(cell, order, ops) for order in orders)
    return total


def log_probability(cell: Sequence[Node], logs: Sequence[Tensor], ops: Sequence[str]) -> float:
    """The sum over the edges of a cell; `logs`: the log-weights of each node, (edges, ops)."""
    pairs = zip(cell, logs, strict=True)
    return sum(float(table[source, ops.index(op)]) for node, table in pairs for op, source in node)


def report(rows: Sequence[dict], truth: Truth) -> str:
    """For each search, and for random draws: the mean UA of the genotypes, its standard error, and the taus."""
    validation, test = truth.validation_ua.mean(axis=1), truth.test_ua.mean(axis=1)
    lines = [f"{len(test)} genotypes, UA in percent (mean over the retraining's seeds)"]
    columns = f"{'validation':>16} {'test':>16} {'tau':>6} {'tau':>6} {'CPU s':>7}  searches, in the table"
    lines.append(f"{'':24} {columns}")
    lines.append(f"{'best of the table':24} {validation.max():16.1f} {test.max():16.1f}")
    for count in (1, 3, 9):
        chosen = best_of(count, truth)
        name = f"random, best of {count}" if count > 1 else "random"
        lines.append(f"{name:24} {validation[chosen].mean():16.1f} {test[chosen].mean():16.1f}")
    for name in dict.fromkeys(row["search"] for row in rows):
        own = [row for row in rows if row["search"] == name]
        found = [truth.genotypes.index(row["genotype"]) for row in own if row["genotype"] in truth.genotypes]
        cells = [mean_and_error(ua[found]) for ua in (validation, test)]
        taus = [np.nanmean([row[key] for row in own]) for key in ("tau_validation", "tau_test")]
        seconds = np.mean([row["cpu_seconds"] for row in own])
        numbers = f"{cells[0]:>16} {cells[1]:>16} {taus[0]:6.2f} {taus[1]:6.2f} {seconds:7.0f}"
        lines.append(f"{name:24} {numbers}  {len(own)}, {len(found)}")
    return "\n".join(lines)


def mean_and_error(values: np.ndarray) -> str:
    """The mean and its standard error; a dash for no values."""
    if not len(values):
        return "-"
    return f"{values.mean():6.1f} +- {values.std() / max(len(values) - 1, 1) ** 0.5:4.1f}"


def best_of(count: int, truth: Truth) -> np.ndarray:
    """The genotypes (DRAWS,) of simulated random searches: of `count`, that of the lowest validation loss.

    The loss is that of the first seed alone. If the table has one seed, the choice and the validation UA are not
    independent.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(truth.genotypes), size=(DRAWS, count))
    best = truth.validation_loss[drawn, 0].argmin(axis=1)
    return drawn[np.arange(DRAWS), best]


if __name__ == "__main__":
    torch.set_num_threads(1)
    log.disabled = True
    main()
