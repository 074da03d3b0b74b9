"""The flags of prepare.py."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from config.folds import FoldFlags
from data.copies import Perturbation
from data.front_end import FrontEnd


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PrepareConfig(FrontEnd, FoldFlags):
    """Read a corpus and compute its features, once for all folds."""

    corpus: str = "manifest"
    """The reader: cremad, demo, emodb, esd, iemocap, msp_improv, msp_podcast, ravdess, savee, tess, or manifest (a CSV
    of your own: file,speaker,emotion[,session,split])."""
    root: Path | None = None
    """Where the corpus is: its folder, or the CSV of a manifest. The demo corpus needs none."""
    out: Path | None = None
    """The feature store to write; default: features/CORPUS, or for a manifest features/ and the CSV's name."""
    emotions: tuple[str, ...] = ()
    """Labels to keep, each as label or label:class; all keeps every label. Default: angry happy neutral sad, but all
    labels of the demo corpus and of a manifest."""
    merge_excited: bool = False
    """Count excited as happy, as much of the IEMOCAP literature does; short for one more --emotions excited:happy."""
    utterances: Literal["improvised", "scripted", "all"] | None = None
    """IEMOCAP: improvised (default), scripted or all."""
    scenarios: Annotated[str, Field(pattern="^[PRST]+$")] | None = None
    """MSP-IMPROV: letters of the scenarios to keep (default PRST): natural, read, target and other improvised."""
    label: Literal["consensus", "intended"] | None = None
    """MSP-IMPROV: the raters' consensus (default) or the intended emotion."""
    language: Literal["all", "english", "mandarin"] | None = None
    """ESD: all (default), english or mandarin."""
    perturb: tuple[Perturbation, ...] = ()
    """Perturbed copies of every utterance, for training alone: speed:0.9 noise:10 (dB) pitch:-2 (semitones) ..."""
    strict: bool = False
    """Stop at a file that cannot be read, instead of leaving it out."""
    check: bool = False
    """Make nothing: check the store that is there, and what its folds share."""
    workers: PositiveInt = cores()
    """Threads, each of which reads and transforms a file at a time."""
    overwrite: bool = False
    """Compute everything anew, and replace a store of another corpus."""

    def reader_options(self) -> dict[str, str | None]:
        """The flags that only some readers take; None where not given."""
        return {name: getattr(self, name) for name in ("utterances", "scenarios", "label", "language")}
