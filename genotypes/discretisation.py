"""Discretisation: the cell that the weights of its ops describe best (Liu, Simonyan, Yang, ICLR 2019, section 2.4)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from genotypes.genotype import Node


def discretise(weights: Sequence[Any], ops: Sequence[str], edges_by: str = "weight") -> tuple[Node, ...]:
    """Derive the nodes of a cell from its softmaxed alphas.

    Liu, Simonyan, Yang (ICLR 2019), section 2.4: an edge keeps its strongest op except `none`; a node keeps the two
    edges whose ops are strongest, the stronger one first. Ties go to the earlier op and the lower source.

    Args:
        weights: per node i an array of shape (i + 2 edges, ops).
        ops: the op of each column.
        edges_by: "weight": the strength of an op p_k is its weight, of which `none` takes a share, as published;
            "without_none": p_k / (1 - p_none), its weight if `none` were no candidate.
    """
    candidates = [column for column, op in enumerate(ops) if op != "none"]
    nodes = []
    for i, rows in enumerate(weights):
        table = np.asarray(rows, dtype=np.float64)
        if table.shape != (i + 2, len(ops)) or not candidates or not np.isfinite(table).all():
            raise ValueError(
                f"node {i}: expected {i + 2} edges x {len(ops)} finite weights, found shape {table.shape}"
            )
        table = table[:, candidates]
        if edges_by == "without_none":
            table /= np.maximum(table.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        ranked = np.argsort(-table.max(axis=1), kind="stable")[:2]
        nodes.append(tuple((ops[candidates[int(table[edge].argmax())]], int(edge)) for edge in ranked))
    return tuple(nodes)
