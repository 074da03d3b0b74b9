"""Corpora: one small file each, that lists the labelled utterances of a corpus as its publisher ships it.

A new corpus is one new file with a `read(root)` and one line in `READERS`. What a reader takes besides the root
(keyword-only, each with a default) are its options.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from data.corpora import (
    cremad,
    demo,
    emodb,
    esd,
    iemocap,
    manifest,
    msp_improv,
    msp_podcast,
    ravdess,
    savee,
    tess,
)
from data.corpora.utterance import Utterance
from utils import UserError

READERS: dict[str, Callable[..., list[Utterance]]] = {
    "cremad": cremad.read,
    "demo": demo.read,
    "emodb": emodb.read,
    "esd": esd.read,
    "iemocap": iemocap.read,
    "manifest": manifest.read,
    "msp_improv": msp_improv.read,
    "msp_podcast": msp_podcast.read,
    "ravdess": ravdess.read,
    "savee": savee.read,
    "tess": tess.read,
}


def read_corpus(name: str, root: Path, **options: object) -> list[Utterance]:
    """List the utterances of corpus `name` found at `root`; an option that is None has the reader's default.

    Raises `UserError` where the corpus is unknown or empty, or its reader has no such option.
    """
    if name not in READERS:
        raise UserError(f"unknown corpus {name!r}: known are {', '.join(sorted(READERS))}")
    given = {option: value for option, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - options_of(name)):
        others = [f"{corpus} does" for corpus in READERS if unknown[0] in options_of(corpus)]
        raise UserError(f"corpus {name} takes no --{unknown[0]}; {', '.join(others) or 'no corpus does'}")
    utterances = READERS[name](Path(root), **given)
    if not utterances:
        raise UserError(f"no utterance of corpus {name!r} found at {root}")
    return utterances


def module_of(name: str) -> ModuleType:
    """The module of a corpus's reader."""
    return sys.modules[READERS[name].__module__]


def options_of(name: str) -> set[str]:
    """The options of a corpus's reader."""
    parameters = inspect.signature(READERS[name]).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
