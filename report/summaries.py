"""Summaries over trials for results.json: cost, op frequencies, learning curves and settings."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from config import is_svm, strategy_of
from genotypes import Node
from report.trials import Trial

MAX_NUMBER = 1e18
CELLS = ("normal", "reduce", "rnn")
CURVES = ("train/loss", "valid/ua")
NOT_COMPARED = {"name", "fold", "seed", "genotype", "gpus", "workers", "print_freq", "recompute", "augment"}
"""Settings that identify a trial or a machine, and so do not distinguish methods; and the section of the candidates."""


def valid_number(value: Any) -> float | int | None:
    """`value` if it is a number below `MAX_NUMBER` in magnitude, else None. Files may hold anything."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < MAX_NUMBER else None


def trial_cost(trial: Trial) -> dict[str, Any]:
    """Parameters, multiply-adds per utterance, and seconds of search and training, or None."""
    seconds = [valid_number(value) for value in trial.seconds.values()]
    return {
        "params": valid_number(trial.metrics.get("params")),
        "multiply_adds": valid_number(trial.metrics.get("multiply_adds")),
        "seconds": float(sum(seconds)) if seconds and None not in seconds else None,
    }


def op_frequencies(trials: Sequence[Trial]) -> dict[str, Any]:
    """{method: {cell: frequencies}} of the searched methods, see `cell_frequencies`."""
    frequencies: dict[str, Any] = {}
    for method in filter(strategy_of, dict.fromkeys(trial.key.method for trial in trials)):
        genotypes = [trial.genotype for trial in trials if trial.key.method == method and trial.genotype]
        if genotypes:
            frequencies[method] = {}
        for cell in CELLS:
            cells = [getattr(genotype, cell) for genotype in genotypes]
            if any(cells):
                frequencies[method][cell] = cell_frequencies(cells)
    return frequencies


def cell_frequencies(cells: Sequence[Sequence[Node]]) -> dict[str, Any]:
    """How often the search chose each edge and op.

    `share[edge][op]` is the share of the cells with this op on this edge, and `op_share[op]` the
    op's share of all chosen edges. An edge is (source state, target state).
    """
    nodes = max(map(len, cells))
    edges = [(source, node + 2) for node in range(nodes) for source in range(node + 2)]
    chosen = []  # (edge, op)
    for cell in cells:
        for number, node in enumerate(cell):
            chosen += [((source, number + 2), op) for op, source in node]
    ops = sorted({op for _, op in chosen})
    counts = np.zeros((len(edges), len(ops)))
    for edge, op in chosen:
        counts[edges.index(edge), ops.index(op)] += 1
    return {
        "cells": len(cells),
        "edges": edges,
        "ops": ops,
        "share": (counts / len(cells)).tolist(),
        "op_share": (counts.sum(axis=0) / counts.sum()).tolist(),
    }


def learning_curves(trials: Sequence[Trial]) -> dict[str, Any]:
    """{stage: {method: {curve: statistics}}}, see `curve_statistics`."""
    curves: dict[str, Any] = {}
    for stage in ("augment", "search"):
        histories = defaultdict(list)
        for trial in trials:
            if trial.histories[stage]:
                histories[trial.key.method].append(trial.histories[stage])
        for method, found in histories.items():
            statistics = {curve: curve_statistics(found, curve) for curve in CURVES}
            curves.setdefault(stage, {})[method] = statistics
    return curves


def curve_statistics(histories: Sequence[Sequence[Mapping[str, Any]]], key: str) -> dict[str, list[Any]]:
    """Mean, minimum and maximum of a metric in each epoch, over the `n` histories that have it."""
    curve: dict[str, list[Any]] = {"mean": [], "low": [], "high": [], "n": []}
    for epoch in range(max(map(len, histories))):
        found = [valid_number(history[epoch].get(key)) for history in histories if epoch < len(history)]
        values = [value for value in found if value is not None]
        curve["mean"].append(float(np.mean(values)) if values else None)
        curve["low"].append(float(min(values)) if values else None)
        curve["high"].append(float(max(values)) if values else None)
        curve["n"].append(len(values))
    return curve


def compare_settings(trials: Sequence[Trial]) -> dict[str, Any]:
    """{stage: {"common": {flag: value}, "differing": {flag: {method: [values]}}}} of the networks."""
    settings: dict[str, Any] = {}
    networks = [trial for trial in trials if not is_svm(trial.key.method)]
    for stage in ("search", "augment"):
        configs = [(trial.key.method, trial.configs[stage]) for trial in networks if stage in trial.configs]
        if configs:
            settings[stage] = _compare_configs(configs)
    return settings


def _compare_configs(configs: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Compare the (method, configuration) pairs of a stage."""
    common: dict[str, Any] = {}
    differing: dict[str, Any] = {}
    flags = set().union(*(config for _, config in configs))
    for flag in sorted(flags - NOT_COMPARED):
        by_method: dict[str, dict[str, Any]] = defaultdict(dict)  # {method: {JSON text: value}}
        for method, config in configs:
            value = config.get(flag)
            by_method[method][json.dumps(value, sort_keys=True)] = value
        if len(set().union(*by_method.values())) == 1:
            common[flag] = configs[0][1].get(flag)
        else:
            differing[flag] = {method: list(values.values()) for method, values in by_method.items()}
    return {"common": common, "differing": differing}
