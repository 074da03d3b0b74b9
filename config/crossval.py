"""The flags of crossval.py."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator

from cli import as_typed
from config.methods import TypedMethod, is_svm, method_file, method_name
from config.run import ResultFlags
from config.values import Name


class CrossvalConfig(ResultFlags):
    """Compare methods over folds and seeds. Flags for search and augment are read from their sections of --config."""

    command: ClassVar[str] = "crossval"

    name: Name = "crossval"
    """The study's name."""
    folds: tuple[Annotated[str, Field(pattern=r"^(all|[1-9]\d{0,3})$")], ...] = ("all",)
    """The folds to hold out, each in turn: all, or their numbers."""
    seeds: tuple[NonNegativeInt, ...] = (1, 2, 3)
    """The seeds; each makes one trial of every method on every fold."""
    methods: tuple[TypedMethod, ...] = ("darts", "random", "cnn_lstm_att", "svm")
    """What to compare: searched cells (darts, evolution), cells drawn at random (random), each with :K the best of K
    candidates; networks designed by hand (cnn, rnn, lstm, cnn_lstm, cnn_lstm_att, acrnn); any of these with a
    configuration of its own (darts:FILE.yaml); and a support vector machine on functionals of the features (svm, always
    added) or of a table (svm:FILE.csv)."""
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
            raise ValueError("two files of one method have the same name: rename one")
        return methods if "svm" in methods else (*methods, "svm")

    @property
    def tables(self) -> dict[str, Path]:
        """The tables of functionals among the methods, by the names of these methods."""
        return {name: file for name, file in self._files.items() if is_svm(name)}

    @property
    def own_settings(self) -> dict[str, Path]:
        """The configuration files that methods have for themselves, by the names of these methods."""
        return {name: file for name, file in self._files.items() if not is_svm(name)}

    def settings_of(self, name: str) -> Path | None:
        """The configuration file of the method with this name: its own, or that of --config."""
        return self.own_settings.get(name, self.config)

    @property
    def _files(self) -> dict[str, Path]:
        return {method_name(typed): file for typed in self.methods if (file := method_file(typed))}
