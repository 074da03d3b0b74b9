"""Reads the genotypes that flags give, and checks the speakers that they were searched on."""

import json
from typing import Any

from cli import note
from data.leaks import abbreviate, leak_error
from data.speakers import SpeakerSet
from genotypes import Genotype, read_source
from training.experiment import Experiment
from utils import UserError


def read_given(source: str) -> tuple[Genotype, SpeakerSet | None]:
    """The genotype of a file, a string form, inline JSON or a built-in name, and the speakers of its search, if known.

    Raises `UserError` if it is none of these, or invalid.
    """
    genotype, searched_on, place = read_source(source)
    if place:
        note(place)
    return genotype, parse_speakers(searched_on, source)


def parse_speakers(searched_on: dict[str, Any] | None, source: str) -> SpeakerSet | None:
    """Check `searched_on` of a genotype file. Raises `UserError` if it is not what search.py writes."""
    if searched_on is None:
        return None
    try:  # from JSON, where a list stands for a tuple
        return SpeakerSet.model_validate_json(json.dumps(searched_on))
    except (ValueError, RecursionError):
        raise UserError(
            f"genotype {source[:80]!r}: searched_on must have the texts dataset and corpus and the list speakers, "
            "as search.py writes it"
        ) from None


def check_searched_speakers(searched_on: SpeakerSet | None, experiment: Experiment) -> list[str] | None:
    """The test speakers on which the genotype was searched; None if that is not known or cannot be told.

    Raises `UserError` if there are any, unless --allow_leak speakers. Validation speakers may be among those of the
    search: they pick the epoch, and the test uses others.
    """
    if searched_on is None:
        return None
    config = experiment.config
    shared = searched_on.heard(experiment.test_speakers)
    if shared and "speakers" not in config.allow_leak:
        leak = f"the genotype was searched on test speakers ({abbreviate(shared)})"
        better = f"search on this fold (search.py --fold {config.fold}, the same --folds_by)"
        raise leak_error(f"fold {config.fold}", leak, better, ["speakers", *config.allow_leak])
    return shared
