"""The methods that a cross-validation compares: how they are typed, and their names in folders and results.

typed                      name            what a trial does
darts                      darts           a search, then the retraining of what it has found
random:3                   random_3        the same, with --candidates 3
darts:settings/gumbel.yaml darts_gumbel    as darts, with this file in place of --config
acrnn, acrnn:wide.yaml     acrnn_wide      the training of a network designed by hand
svm, svm:egemaps.csv       svm_egemaps     a support vector machine on functionals: the store's, or a table of them
"""

import re
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

from pydantic import AfterValidator

from config.values import STRATEGIES, Baseline

KINDS = (*STRATEGIES, *get_args(Baseline), "svm")
SETTINGS = (".yaml", ".yml", ".json")
"""The suffixes of configuration files."""
NAME = re.compile(rf"(?P<kind>{'|'.join(sorted(KINDS, key=len, reverse=True))})(_(?P<more>\w+))?", re.ASCII)


class Method(NamedTuple):
    """What the name of a method says."""

    kind: str
    """One of `KINDS`, or an unknown name."""
    candidates: int = 1
    variant: str = ""
    """The name of its own file, of settings or of functionals."""


def parse_method(name: str) -> Method:
    """What the name of a method in folders and results says."""
    found = NAME.fullmatch(name)
    if not found:
        return Method(name)
    kind, more = found["kind"], found["more"] or ""
    if kind in STRATEGIES and re.fullmatch(r"[1-9]\d*", more, re.ASCII):
        return Method(kind, candidates=int(more))
    return Method(kind, variant=more)


def strategy_of(name: str) -> str | None:
    """The strategy of a method that searches for a genotype; None for other methods."""
    kind = parse_method(name).kind
    return kind if kind in STRATEGIES else None


def is_svm(name: str) -> bool:
    """Whether a method is a support vector machine, which has no random part."""
    return parse_method(name).kind == "svm"


def method_name(typed: str) -> str:
    """The name of a method in folders and results."""
    kind, has_more, more = typed.partition(":")
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{kind}_{Path(more).stem}") if has_more else typed


def method_file(typed: str) -> Path | None:
    """The file of settings or of functionals that a method names."""
    kind, _, more = typed.partition(":")
    is_number = kind in STRATEGIES and more.isdecimal()
    return Path(more) if more and not is_number else None


def _check(typed: str) -> str:
    kind, colon, more = typed.partition(":")
    is_number = kind in STRATEGIES and re.fullmatch(r"[1-9]\d{0,3}", more, re.ASCII)
    has_stem = re.search("[A-Za-z0-9]", Path(more).stem)
    is_file = has_stem and (kind == "svm" or Path(more).suffix.lower() in SETTINGS)
    if kind not in KINDS or (colon and not (is_number or is_file)):
        raise ValueError(
            f"give {', '.join(KINDS)}, random:K, the best of K candidates, darts:FILE.yaml, a method with its own "
            "settings, or svm:FILE.csv, a table of functionals"
        )
    named = parse_method(method_name(typed))
    if is_file and (named.kind != kind or not named.variant):
        raise ValueError(
            f"its trials would be named {method_name(typed)}, like those of another method: rename the file"
        )
    return typed


TypedMethod = Annotated[str, AfterValidator(_check)]
"""A method as it is typed."""
