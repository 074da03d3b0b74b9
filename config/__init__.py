"""The flags of every command: a model a command, a field a flag, a docstring a help text.

The command line and the YAML of --config are both read into these models, which check types and ranges (see `cli`).
"""

from config.augment import RISE, WITH_DELTAS, AugmentConfig
from config.crossval import CrossvalConfig
from config.dataset import (
    CORPORA,
    FEATURES,
    MAX_CLIP_VALUES,
    DatasetFlags,
    FoldFlags,
    FrontEnd,
    dataset_of,
    store_folder,
)
from config.methods import is_svm, method_name, parse_method, strategy_of
from config.prepare import Copies, Perturbation, PrepareConfig, available_cores, parse_perturbation
from config.run import ResultFlags, RunConfig
from config.search import GUARD_EPOCHS, SearchConfig
from config.trained import EvaluateConfig, ExportConfig, PredictConfig, VisualizeConfig
from config.values import STRATEGIES, Baseline, Deltas, Normalise, Protocol, RunName

__all__ = [
    "CORPORA",
    "FEATURES",
    "GUARD_EPOCHS",
    "MAX_CLIP_VALUES",
    "RISE",
    "STRATEGIES",
    "WITH_DELTAS",
    "AugmentConfig",
    "Baseline",
    "Copies",
    "CrossvalConfig",
    "DatasetFlags",
    "Deltas",
    "EvaluateConfig",
    "ExportConfig",
    "FoldFlags",
    "FrontEnd",
    "Normalise",
    "Perturbation",
    "PredictConfig",
    "PrepareConfig",
    "Protocol",
    "ResultFlags",
    "RunConfig",
    "RunName",
    "SearchConfig",
    "VisualizeConfig",
    "available_cores",
    "dataset_of",
    "is_svm",
    "method_name",
    "parse_method",
    "parse_perturbation",
    "store_folder",
    "strategy_of",
]
