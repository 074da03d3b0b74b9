"""The names of perturbed copies: `speed:0.9`, `noise:10` or `pitch:-2`; the empty name is the original."""

import re
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

RANGES = {"speed": (0.5, 2.0), "noise": (-20.0, 60.0), "pitch": (-12.0, 12.0)}
"""speed: factor (Ko et al., Interspeech 2015); noise: white, signal-to-noise ratio in dB; pitch: semitones."""


def parse(copy: str) -> tuple[str, float]:
    """The kind and the amount of a copy. Raises `ValueError` for one that cannot be made."""
    match = re.fullmatch(r"(\w+):([+-]?\d+(?:\.\d+)?)", copy)
    if not match or match[1] not in RANGES:
        raise ValueError(f"{copy!r} is no perturbation: give speed:0.9, noise:10 or pitch:-2, for example")
    kind, amount = match[1], float(match[2]) + 0.0  # -0 becomes 0
    low, high = RANGES[kind]
    if not low <= amount <= high:
        raise ValueError(f"{copy}: {kind} must be between {low:g} and {high:g}")
    return kind, amount


def checked(copy: str) -> str:
    """The one spelling of a copy's name."""
    kind, amount = parse(copy)
    return f"{kind}:{np.format_float_positional(amount, trim='-')}"


Perturbation = Annotated[str, AfterValidator(checked)]


def speed_of(copy: str) -> float:
    """How many times faster than the original a copy is played, pitch and all."""
    kind, amount = parse(copy) if copy else ("", 1.0)
    return amount if kind == "speed" else 1.0
