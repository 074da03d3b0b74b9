"""Genotypes: the discrete architectures, their files and string forms, and how they are derived from op weights."""

from genotypes.built_in import BUILT_IN
from genotypes.discretisation import discretise
from genotypes.genotype import (
    CNN_OPS,
    CNN_SCOPES,
    PUBLISHED_CNN_OPS,
    RNN_OPS,
    RNN_SCOPES,
    Edge,
    Genotype,
    Node,
)
from genotypes.reading import Source, load_genotype, parse, read_source, resolve

__all__ = [
    "BUILT_IN",
    "CNN_OPS",
    "CNN_SCOPES",
    "PUBLISHED_CNN_OPS",
    "RNN_OPS",
    "RNN_SCOPES",
    "Edge",
    "Genotype",
    "Node",
    "Source",
    "discretise",
    "load_genotype",
    "parse",
    "read_source",
    "resolve",
]
