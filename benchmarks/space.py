"""A table of genotypes of one search space, each retrained: what a search of this space could gain.

T="--table benchmarks/space/emodb.csv --config benchmarks/space/emodb.yaml --dataset emodb40"
python benchmarks/space.py $T --draw 20     retrain 20 genotypes, unless the table has them, and print what it says
python benchmarks/space.py $T --report      print what it says

Without --draw, all genotypes of the space are retrained. The dataset emodb40 is EMO-DB with all emotions, prepared with
the same --config. Every row is a run of augment.py. The network is that of its last epoch, so that the validation
speakers choose nothing and their UA is as unbiased as that of the test speakers. benchmarks/searches.py compares
searches by a table.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).parent.parent))

import augment
from cli import from_file
from config import AugmentConfig, SearchConfig
from darts.supernet import search_space
from genotypes import Genotype
from models.joint_network import Size
from models.search_space import canonical
from training.run_folder import log

COLUMNS = (
    "genotype", "dataset", "fold", "seed", "validation_ua", "validation_loss", "test_ua", "weights", "multiply_adds",
    "cpu_seconds", "commit",
)  # fmt: skip
WHOLE = {"fold", "seed", "weights", "multiply_adds"}
TEXTS = {"genotype", "dataset", "search", "commit"}


def main() -> None:
    """Add rows to the table, or print what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="the CSV")
    parser.add_argument("--report", action="store_true", help="print what the table says, and stop")
    parser.add_argument("--config", type=Path, help="the flags; needed unless --report")
    parser.add_argument("--dataset", default="emodb40")
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--draw", type=int, help="how many genotypes are drawn; default: all of the space")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if not (options.config or options.report):
        parser.error("--config is missing: the file that the table was made with")
    if not options.report:
        add_rows(options)
    print(report(read_table(options.table)))


def add_rows(options: argparse.Namespace) -> None:
    """Retrain every genotype with every seed, unless the table has it."""
    given = {"dataset": options.dataset, "fold": options.fold}
    space = search_space(from_file(SearchConfig, options.config, **given))
    config = from_file(AugmentConfig, options.config, **given, pick="last", protocol="held_out", gpus="none")
    size = Size.of(config)
    draws = (
        (space.draw(number) for number in range(1, options.draw + 1)) if options.draw else space.genotypes()
    )
    genotypes = [canonical(genotype, size.stem_twice) for genotype in draws]
    done = {(row["genotype"], row["fold"], row["seed"]) for row in read_table(options.table)}
    for seed in options.seeds:
        for genotype in dict.fromkeys(genotypes):
            if (str(genotype), options.fold, seed) not in done:
                append(options.table, train(genotype, config, seed))


def train(genotype: Genotype, config: AugmentConfig, seed: int) -> dict[str, str | int | float]:
    """A row of the table: a run of augment.py in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"genotype": json.dumps(genotype.to_json()), "seed": seed, "results_path": Path(folder)}
        own = config.model_copy(update=given)
        start = time.process_time()
        metrics = augment.run(own)
        seconds = time.process_time() - start
        history = (own.folder / "augment" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(history[-1])
    values = (
        str(genotype), config.dataset_name, config.fold, seed, round(last["valid/ua"], 4),
        round(last["valid/loss"], 4), round(metrics["ua"], 4), metrics["params"], metrics["multiply_adds"],
        round(seconds, 1), commit(),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def commit() -> str:
    """The commit of this checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()


def append(table: Path, row: Mapping[str, str | float]) -> None:
    """Add a row to a CSV, with a header if it is new, and print it."""
    is_new = not table.exists()
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(*(value for name, value in row.items() if name != "genotype"), flush=True)


def read_table(table: Path) -> list[dict]:
    """The rows of a CSV, with numbers where there are some; none if there is no file."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return [{name: number(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def number(name: str, text: str) -> str | int | float:
    """The value of a column."""
    if name in TEXTS:
        return text
    return int(text) if name in WHOLE else float(text)


# ---------------------------------------------------------------- what the table says


def report(rows: list[dict]) -> str:
    """How much of the spread between genotypes is real, how well seeds agree, and what a perfect choice would gain."""
    by_genotype = defaultdict(dict)
    for row in rows:
        by_genotype[row["genotype"]][row["seed"]] = row
    seeds = sorted({row["seed"] for row in rows})
    complete = [each for each in by_genotype.values() if len(each) == len(seeds)]
    lines = [f"{len(rows)} rows, {len(by_genotype)} genotypes, {len(complete)} of them with seeds {seeds}"]
    if len(complete) < 2:
        return lines[0]
    for score in ("validation_ua", "test_ua"):
        ua = 100 * np.array(
            [[each[seed][score] for seed in seeds] for each in complete]
        )  # (genotypes, seeds)
        lines.append(f"{score}: mean {ua.mean():.1f}, {spread(ua)}")
    mean = {key: [np.mean([each[seed][key] for seed in seeds]) for each in complete] for key in COLUMNS[4:9]}
    for ua in ("validation_ua", "test_ua"):
        others = [
            name for name in ("validation_loss", "weights", "multiply_adds", "validation_ua") if name != ua
        ]
        taus = [f"{name} {kendalltau(mean[name], mean[ua]).statistic:.2f}" for name in others]
        lines.append(f"tau with {ua}, means over seeds: {', '.join(taus)}")
    return "\n".join(lines)


def spread(ua: np.ndarray) -> str:
    """How much UA (genotypes, seeds) differ between genotypes and between seeds."""
    if ua.shape[1] == 1:
        return f"deviation {ua.std(ddof=1):.1f}, between genotypes and seeds together"
    within = ua.var(axis=1, ddof=1).mean()
    between = max(0.0, ua.mean(axis=1).var(ddof=1) - within / ua.shape[1])
    tau = kendalltau(ua[:, 0], ua[:, 1]).statistic
    return (
        f"deviation between genotypes {between**0.5:.1f}, between seeds {within**0.5:.1f}; tau between the first two "
        f"seeds {tau:.2f}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    log.disabled = True
    main()
