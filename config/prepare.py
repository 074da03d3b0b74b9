"""The flags of prepare.py."""

import os
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from config.dataset import FoldFlags, FrontEnd, corpus_name
from config.values import lower_case

PERTURBATIONS = {"speed": (0.5, 2.0), "noise": (-20.0, 60.0), "pitch": (-12.0, 12.0)}
"""Allowed ranges. speed: factor (Ko et al., Interspeech 2015); noise: signal-to-noise ratio in dB; pitch: semitones."""
UNCHANGED = {("speed", 1.0), ("pitch", 0.0)}
"""Perturbations that change nothing; they are refused."""


def parse_perturbation(text: str) -> tuple[str, float]:
    """Split `speed:0.9` into ("speed", 0.9). Raises `ValueError` for an unknown kind or a value out of range."""
    match = re.fullmatch(r"(\w+):([+-]?\d+(?:\.\d+)?)", text)
    if not match or match[1] not in PERTURBATIONS:
        raise ValueError(f"{text!r} is not a perturbation: give speed:0.9, noise:10 or pitch:-2, for example")
    kind, amount = match[1], float(match[2]) + 0.0  # -0 becomes 0
    low, high = PERTURBATIONS[kind]
    if not low <= amount <= high:
        raise ValueError(f"{text}: {kind} must be between {low:g} and {high:g}")
    if (kind, amount) in UNCHANGED:
        raise ValueError(f"{text} changes nothing")
    return kind, amount


def _normalise_perturbation(text: str) -> str:
    """The canonical spelling of a perturbation: `speed:0.90` becomes `speed:0.9`."""
    kind, amount = parse_perturbation(text)
    return f"{kind}:{np.format_float_positional(amount, trim='-')}"


Perturbation = Annotated[str, AfterValidator(_normalise_perturbation)]


def _check_distinct(copies: tuple[str, ...]) -> tuple[str, ...]:
    """The copies in order, which makes no difference. Raises `ValueError` if one is given twice."""
    if len(set(copies)) < len(copies):
        raise ValueError("give each copy once")
    return tuple(sorted(copies))


Copies = Annotated[tuple[Perturbation, ...], AfterValidator(_check_distinct)]
"""The copies of a recording that are predicted besides it."""


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PrepareConfig(FrontEnd, FoldFlags):
    """Read a corpus and compute its features, once for all folds."""

    command: ClassVar[str] = "prepare"

    corpus: Annotated[str, AfterValidator(corpus_name)] = "manifest"
    """The reader: cremad, demo, emodb, esd, iemocap, msp_improv, msp_podcast, ravdess, savee, tess, or manifest (a CSV
    of your own with the columns file,speaker,emotion; docs/corpora.md lists others). Case and dashes do not matter."""
    root: Path | None = None
    """Where the corpus is: its folder, or the CSV of a manifest. The demo corpus needs none."""
    out: Path | None = None
    """The feature store to write; default: features/CORPUS, or for a manifest features/ and the name of the CSV."""
    emotions: tuple[str, ...] = ()
    """Labels to keep, each as label or label:class; all keeps every label. Default: angry happy neutral sad, but all
    labels of the demo corpus and of a manifest."""
    merge_excited: bool = False
    """Count excited as happy, as much of the IEMOCAP literature does; the same as adding --emotions excited:happy."""
    utterances: Literal["improvised", "scripted", "all"] | None = None
    """IEMOCAP: improvised (default), scripted or all."""
    scenarios: Annotated[str, Field(pattern="^[PRST]+$")] | None = None
    """MSP-IMPROV: letters of the scenarios to keep (default PRST): natural, read, target and other improvised."""
    label: Literal["consensus", "intended"] | None = None
    """MSP-IMPROV: the raters' consensus (default) or the intended emotion."""
    language: Literal["all", "english", "mandarin"] | None = None
    """ESD: all (default), english or mandarin."""
    drop_leaks: tuple[Annotated[Literal["texts"], BeforeValidator(lower_case)], ...] = ()
    """texts: leave out the utterances whose text reveals the emotion, because other speakers say it in the same one."""
    perturb: tuple[Perturbation, ...] = ()
    """Perturbed copies of every utterance: speed:0.9 noise:10 (dB) pitch:-2 (semitones) ... They are for training, and
    with --test_copies of augment.py also for predictions."""
    strict: bool = False
    """Stop at a file that cannot be read, instead of leaving it out."""
    check: bool = False
    """Write nothing: check the store that is there, and what its folds share."""
    workers: PositiveInt = available_cores()
    """Threads; each reads and transforms one file at a time."""
    overwrite: bool = False
    """Compute everything anew, and replace a store of another corpus."""

    def opening(self) -> str:
        """The corpus, and where it is."""
        place = f" at {self.root}" if self.root else ""
        return f"{'checks ' if self.check else ''}the corpus {self.corpus}{place}"

    def reader_options(self) -> dict[str, str | None]:
        """The flags that only some corpus readers take; None where not given."""
        return {name: getattr(self, name) for name in ("utterances", "scenarios", "label", "language")}
