"""Corpus readers: each module lists the labelled utterances of one corpus in its published form.

To add a corpus, write a module with a function `read(root)` and add it to `READERS`. Keyword-only
arguments of `read` are the options of the corpus; each needs a default.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from cli import note
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
from data.corpora.utterance import UNKNOWN_SPEAKER, Utterance
from data.names import clean, is_unknown, quote, spellings
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

NAMED = {
    "speaker": "speakers",
    "session": "sessions",
    "emotion": "labels",
    "split": "splits",
    "text": "texts",
}
"""The fields of an utterance that hold a name, and what they are called in messages."""
WITHOUT_NAME = {"speaker": UNKNOWN_SPEAKER, "session": "", "split": "", "text": ""}
"""What these fields hold where the name is not known. An unknown label keeps its name, so that it can be counted."""
EXAMPLES = 8  # names in a message


def read_corpus(name: str, root: Path, **options: object) -> list[Utterance]:
    """Return the utterances of the corpus `name` at `root`. An option that is None takes its default.

    A speaker, session, label, split or text has one spelling in all of them, see `with_one_spelling`.

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
    return with_one_spelling(utterances)


def options_of(name: str) -> dict[str, object]:
    """Return the options of a corpus reader and their defaults."""
    parameters = inspect.signature(READERS[name].read).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def with_one_spelling(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances with the most frequent spelling of every name, and `WITHOUT_NAME` for unknown ones.

    Prints a note where names have several spellings, and where speakers are not known.
    """
    columns = {field: _spell(field, [getattr(each, field) for each in utterances]) for field in NAMED}
    names = zip(*columns.values(), strict=True)
    return [
        replace(each, **dict(zip(columns, row, strict=True)))
        for each, row in zip(utterances, names, strict=True)
    ]


def _spell(field: str, names: Sequence[str]) -> list[str]:
    """Return the names in a column, each in one spelling."""
    chosen: dict[str, str] = {}
    doubtful = []
    for same in spellings(names).values():
        is_nothing = field in WITHOUT_NAME and is_unknown(same[0])
        chosen |= dict.fromkeys(same, WITHOUT_NAME[field] if is_nothing else clean(same[0]))
        if len(same) > 1 and not is_nothing:
            doubtful.append(" and ".join(quote(same)))
    if doubtful:
        more = f"; and {len(doubtful) - EXAMPLES} more" if len(doubtful) > EXAMPLES else ""
        examples = "; ".join(doubtful[:EXAMPLES])
        note(f"{NAMED[field]} that differ only in spelling are taken for one: {examples}{more}")
    unknown = [name for name in names if is_unknown(name)]
    if field == "speaker" and unknown:
        words = ", ".join(quote(dict.fromkeys(unknown)))
        note(f"the speaker of {len(unknown):,} utterances is not known ({words}): folds leave them out")
    return [chosen[name] for name in names]
