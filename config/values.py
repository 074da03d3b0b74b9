"""The types of the values that several flags take."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from cli import also

NAME = r"\w[\w.-]{,99}"


def check_name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError("give letters, digits, dots, dashes and underscores, such as my_corpus")
    return text


def _check_run_name(text: str) -> str:
    if len(text) > 200 or not all(re.fullmatch(r"\w[\w.-]*", part) for part in text.split("/")):
        raise ValueError(
            "give letters, digits, dots, dashes and underscores, with / for folders: ravdess/fold1"
        )
    return text


Name = Annotated[str, AfterValidator(check_name)]
RunName = Annotated[str, AfterValidator(_check_run_name)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
BatchSize = Annotated[int, Field(ge=2)]
Balance = Literal["none", "weights", "sampling"]
Device = Annotated[str, Field(pattern=r"^(auto|none|cpu|cuda|mps|\d+)$", json_schema_extra=also("device"))]
Devices = Annotated[
    str, Field(pattern=r"^(auto|none|cpu|cuda|mps|all|\d+(,\d+)*)$", json_schema_extra=also("device"))
]
STRATEGIES = ("darts", "evolution", "random")
"""How search.py finds a genotype."""
Baseline = Literal["cnn", "rnn", "lstm", "cnn_lstm", "cnn_lstm_att", "acrnn"]
Features = Literal["mfcc", "logmel", "stft"]
Normalise = Literal["training", "speaker", "utterance"]
Protocol = Literal["held_out", "refit", "paper"]
Deltas = Annotated[int, Field(ge=0, le=2)]


def lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
