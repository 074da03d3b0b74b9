"""The flags of crossval.py."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, get_args

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator

from cli import as_typed
from config.run import ResultFlags
from config.values import STRATEGIES, Baseline, Name

KNOWN_METHODS = (*STRATEGIES, *get_args(Baseline), "svm")


def method_name(method: str) -> str:
    """The name of a method in folders and results: that of svm:tables/egemaps.csv is svm_egemaps."""
    kind, has_more, more = method.partition(":")
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{kind}_{Path(more).stem}") if has_more else method


def _check_method(method: str) -> str:
    kind, _, more = method.partition(":")
    is_table = kind == "svm" and re.search("[A-Za-z0-9]", Path(more).stem)
    has_candidates = kind in STRATEGIES and re.fullmatch(r"[1-9]\d{0,3}", more, re.ASCII)
    if not (method in KNOWN_METHODS or is_table or has_candidates):
        raise ValueError(
            f"give {', '.join(KNOWN_METHODS)}, random:K, the best of K candidates, or svm:FILE.csv, a table of "
            "functionals"
        )
    return method


Method = Annotated[str, AfterValidator(_check_method)]


class CrossvalConfig(ResultFlags):
    """Compare methods over folds and seeds. Flags for search and augment are read from their sections of --config."""

    command: ClassVar[str] = "crossval"

    name: Name = "crossval"
    """The study's name."""
    folds: tuple[Annotated[str, Field(pattern=r"^(all|[1-9]\d{0,3})$")], ...] = ("all",)
    """The folds to hold out, each in turn: all, or their numbers."""
    seeds: tuple[NonNegativeInt, ...] = (1, 2, 3)
    """The seeds; each makes one trial of every method on every fold."""
    methods: tuple[Method, ...] = ("darts", "random", "cnn_lstm_att", "svm")
    """What to compare: searched cells (darts, evolution), cells drawn at random (random), each with :K the best of K
    candidates; networks designed by hand (cnn, rnn, lstm, cnn_lstm, cnn_lstm_att, acrnn); and a support vector machine
    on functionals of the features (svm, always added) or of a table (svm:FILE.csv)."""
    cpus_per_trial: PositiveFloat = 1.0
    """Cores per trial; a trial runs this many threads."""
    gpus_per_trial: NonNegativeFloat = 0.0
    """GPUs per trial, or the share of one: 0.25 puts four trials on each."""
    ray_address: str | None = None
    """A Ray cluster to join, HOST:PORT or auto; default: this machine alone."""
    retries: NonNegativeInt = 3
    """How often a trial whose process dies is restarted from its last checkpoint."""

    def opening(self) -> str:
        """The dataset, the methods, and the folder of the study."""
        return f"{as_typed(self.methods)} on dataset {self.dataset}, in {self.folder}"

    @field_validator("folds", "seeds", "methods")
    @classmethod
    def _check_distinct(cls, values: tuple) -> tuple:
        if len(set(values)) < len(values) or not values or ("all" in values and len(values) > 1):
            raise ValueError("give at least one value, and each once")
        return values

    @field_validator("methods")
    @classmethod
    def _add_svm(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        names = [method_name(method) for method in methods]
        if len(set(names)) < len(names):
            raise ValueError("two tables of functionals have the same file name: rename one")
        return methods if "svm" in methods else (*methods, "svm")

    @property
    def tables(self) -> dict[str, Path]:
        """The tables of functionals among the methods, by the names of these methods."""
        on_tables = [method for method in self.methods if method.startswith("svm:")]
        return {method_name(method): Path(method.partition(":")[2]) for method in on_tables}
