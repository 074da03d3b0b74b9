"""Corpus readers: each module lists the labelled utterances of one corpus in its published form.

To add a corpus, write a module with a function `read(root)` and add it to `READERS`. Keyword-only
arguments of `read` are the options of the corpus; each needs a default.
"""

import inspect
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

READERS: dict[str, ModuleType] = {
    "cremad": cremad,
    "demo": demo,
    "emodb": emodb,
    "esd": esd,
    "iemocap": iemocap,
    "manifest": manifest,
    "msp_improv": msp_improv,
    "msp_podcast": msp_podcast,
    "ravdess": ravdess,
    "savee": savee,
    "tess": tess,
}


def read_corpus(name: str, root: Path, **options: object) -> list[Utterance]:
    """Return the utterances of the corpus `name` at `root`. An option that is None takes its default.

    Raises `UserError` if the corpus is unknown, has no such option, or contains no utterance.
    """
    if name not in READERS:
        raise UserError(f"unknown corpus {name!r}: known are {', '.join(sorted(READERS))}")
    given = {option: value for option, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - options_of(name)):
        others = [f"{corpus} does" for corpus in READERS if unknown[0] in options_of(corpus)]
        raise UserError(f"corpus {name} takes no --{unknown[0]}; {', '.join(others) or 'no corpus does'}")
    utterances = READERS[name].read(Path(root), **given)
    if not utterances:
        raise UserError(f"no utterance of corpus {name!r} found at {root}")
    return utterances


def options_of(name: str) -> dict[str, object]:
    """Return the options of a corpus reader and their defaults."""
    parameters = inspect.signature(READERS[name].read).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
