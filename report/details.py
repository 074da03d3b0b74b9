"""The rest of a report: what the trials cost, which ops were chosen, how they learned, and under which settings."""

import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from genotypes import Node
from report.trials import SEARCHED, Trial

LARGEST = 1e18
CELLS = ("normal", "reduce", "rnn")
CURVES = ("train/loss", "valid/ua")
OWN = {"name", "fold", "seed", "genotype", "gpus", "workers", "print_freq"}
"""Settings that tell trials and machines apart, not methods."""
PACKAGES = ("torch", "numpy", "scikit-learn")


def number(value: Any) -> float | int | None:
    """A number that a file held, of a size that one can reckon with; None for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    return value if good else None


def cost(trial: Trial) -> dict[str, Any]:
    """Weights, multiply-adds of an utterance, and seconds of training (search included), as far as the files say."""
    seconds = [number(value) for value in trial.seconds.values()]
    return {
        "params": number(trial.metrics.get("params")),
        "multiply_adds": number(trial.metrics.get("multiply_adds")),
        "seconds": float(sum(seconds)) if seconds and None not in seconds else None,
    }


def chosen(trials: Sequence[Trial]) -> dict[str, Any]:
    """How often each edge and op was chosen, as shares of the genotypes of a method: {method: {cell: ...}}."""
    found = {}
    for method in SEARCHED:
        genotypes = [trial.genotype for trial in trials if trial.key.method == method and trial.genotype]
        cells = {kind: [getattr(genotype, kind) for genotype in genotypes] for kind in CELLS}
        if genotypes:
            found[method] = {kind: frequencies(nodes) for kind, nodes in cells.items() if any(nodes)}
    return found


def frequencies(cells: Sequence[Sequence[Node]]) -> dict[str, Any]:
    """`share[edge][op]`: the share of the cells that have this op on this edge, named (source, state)."""
    edges = [(source, i + 2) for i in range(max(map(len, cells))) for source in range(i + 2)]
    ops = sorted({op for nodes in cells for node in nodes for op, _ in node})
    counts = np.zeros((len(edges), len(ops)))
    for nodes in cells:
        for i, node in enumerate(nodes):
            for op, source in node:
                counts[edges.index((source, i + 2)), ops.index(op)] += 1
    return {
        "cells": len(cells),
        "edges": edges,
        "ops": ops,
        "share": (counts / len(cells)).tolist(),
        "op_share": (counts.sum(axis=0) / counts.sum()).tolist(),
    }


def curves(trials: Sequence[Trial]) -> dict[str, Any]:
    """Means and ranges over a method's trials, epoch by epoch: {stage: {method: {curve: {mean, low, high, n}}}}."""
    found: dict[str, Any] = {}
    for stage in ("augment", "search"):
        by_method: dict[str, list[Any]] = {}
        for trial in trials:
            if trial.histories[stage]:
                by_method.setdefault(trial.key.method, []).append(trial.histories[stage])
        drawn = {
            method: {key: band(histories, key) for key in CURVES} for method, histories in by_method.items()
        }
        if drawn:
            found[stage] = drawn
    return found


def band(histories: Sequence[Sequence[Mapping[str, Any]]], key: str) -> dict[str, list[Any]]:
    """Mean, lowest and highest of a number in each epoch, over the trials that came so far and say it."""
    out: dict[str, list[Any]] = {"mean": [], "low": [], "high": [], "n": []}
    for epoch in range(max(map(len, histories))):
        values = [number(history[epoch].get(key)) for history in histories if epoch < len(history)]
        values = [value for value in values if value is not None]
        for name, of in (("mean", np.mean), ("low", min), ("high", max)):
            out[name].append(float(of(values)) if values else None)
        out["n"].append(len(values))
    return out


def settings(trials: Sequence[Trial]) -> dict[str, Any]:
    """{stage: {"common": {flag: value}, "differing": {flag: {method: [values]}}}} of the trials' configurations."""
    found: dict[str, Any] = {}
    for stage in ("search", "augment"):
        configs = [(trial.key.method, trial.configs[stage]) for trial in trials if stage in trial.configs]
        common, differing = {}, {}
        for flag in sorted({flag for _, config in configs for flag in config} - OWN):
            values: dict[str, dict[str, Any]] = {}  # by method, each value once
            for method, config in configs:
                values.setdefault(method, {})[json.dumps(config.get(flag), sort_keys=True)] = config.get(flag)
            if len({text for texts in values.values() for text in texts}) == 1:
                common[flag] = configs[0][1].get(flag)
            else:
                differing[flag] = {method: list(texts.values()) for method, texts in values.items()}
        if configs:
            found[stage] = {"common": common, "differing": differing}
    return found


def versions() -> dict[str, str]:
    """Versions of the program, of Python and of what scores depend on, where the report is written."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    system = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    return {"emoDARTS": project["version"], **system, **{name: version(name) for name in PACKAGES}}
