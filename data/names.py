"""Names as people write them: which spellings are one name, and which stand for nothing.

Speakers, sessions, labels and texts are compared by `key`, so that no person is a speaker twice.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

UNKNOWN = {
    *("", "nan", "nat", "na", "none", "null", "nil", "unknown", "unk", "undefined", "unspecified"),
    *("missing", "notavailable", "notapplicable"),
}
"""Names of nothing, without blanks and punctuation: `<NA>`, `N/A` and `n. a.` are all `na`."""


@lru_cache(maxsize=2**16)
def key(name: str) -> str:
    """Return what all spellings of a name have in common.

    Upper and lower case, Unicode forms, surrounding and repeated blanks, characters without width, and leading
    zeros of numbers do not count. A whole number may have decimals: `1`, `01` and `1.0` are the same.
    """
    folded = unicodedata.normalize("NFKC", clean(name)).casefold()
    plain = " ".join(unicodedata.normalize("NFKC", folded).split())
    plain = re.sub(r"(?<![\d.,])0+(?=\d)", "", plain)
    number = re.fullmatch(r"([+-]?\d+)[.,]0*", plain)
    return number[1] if number else plain


def clean(name: str) -> str:
    """Return a name in Unicode's form NFC, without characters that have no width and without outer blanks."""
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", visible).strip()


@lru_cache(maxsize=2**16)
def is_unknown(name: str) -> bool:
    """Return whether a name stands for nothing, such as `nan`, `None`, `N/A`, `?`, `-`, `unknown` or blanks."""
    kinds = ((c, unicodedata.category(c)) for c in key(name))
    return "".join(c for c, kind in kinds if kind[0] not in "PZ" and kind != "Sm") in UNKNOWN


def spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the spellings of each name, by its key: the most frequent first, of equals the one listed first."""
    counts = Counter(names)
    found: dict[str, list[str]] = {}
    for name in sorted(counts, key=counts.__getitem__, reverse=True):
        found.setdefault(key(name), []).append(name)
    return found


def quote(names: Iterable[str]) -> list[str]:
    """Return names in quotation marks, with the code of any character by which they only seem to be equal."""
    names = list(names)
    look = {unicodedata.normalize("NFC", name) for name in names}
    show = repr if len(look) == len(names) and all(name.isprintable() for name in names) else ascii
    return [show(name) for name in names]
