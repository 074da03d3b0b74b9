"""Who was heard: the speakers of a search or a training, as genotype and model files record them.

A name alone identifies a person only within a dataset or a published corpus. Two stores of the same recordings, made
from two CSV files or with other features, are recognised by the digests of their recordings.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data.names import key

DIGEST_BYTES = 8  # two of a million recordings have the same digest with a probability of 3e-8
MAX_RECORDINGS = 10**6  # in a file: 11 MB


def pack_recordings(audio: Iterable[str]) -> str:
    """Return the digests of recordings (the column `audio` of a manifest) as one text, sorted; empty ones are left out.

    Of more than `MAX_RECORDINGS`, the smallest are kept. Digests are uniform, so these are a random sample.
    """
    return _pack({_digest(each) for each in audio if each})


def _pack(digests: Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(digests)[:MAX_RECORDINGS])).decode("ascii")


def unpack_recordings(text: str) -> frozenset[bytes]:
    """Return the digests in a text of `pack_recordings`. Raises `ValueError` if it is not one."""
    data = base64.b64decode(text, validate=True)
    if len(data) % DIGEST_BYTES:
        raise ValueError("recordings are not whole digests")
    return frozenset(data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES))


def _digest(audio: str) -> bytes:
    return hashlib.blake2b(audio.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _check_recordings(text: str) -> str:
    unpack_recordings(text)
    return text


@dataclass(frozen=True, eq=False)
class TestSpeakers:
    """The speakers of a test, with their recordings and those of the whole store."""

    __test__ = False  # it is not a test of pytest

    dataset: str
    corpus: str
    audio: dict[str, set[str]]  # by test speaker, in natural order: the digests of the speaker's recordings
    store_audio: frozenset[str]  # of the whole store

    def recordings_of(self, speaker: str) -> set[bytes]:
        """The digests of a test speaker's recordings, as in `SpeakerSet.digests`."""
        return {_digest(each) for each in self.audio[speaker] if each}

    @cached_property
    def store_recordings(self) -> set[bytes]:
        """The digests of all recordings of the store."""
        return {_digest(each) for each in self.store_audio if each}


class SpeakerSet(BaseModel):
    """Speakers of a dataset by their names in the corpus, with their recordings. Reading one from a file is strict."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dataset: str
    corpus: str
    speakers: Annotated[tuple[str, ...], Field(max_length=10**6, fail_fast=True)]
    recordings: Annotated[str, Field(max_length=11 * MAX_RECORDINGS), AfterValidator(_check_recordings)] = ""
    """See `pack_recordings`; empty in files of an older version."""
    also: Self | None = None
    """Those of other datasets: a genotype may be searched on one and trained on another."""

    @property
    def digests(self) -> frozenset[bytes]:
        """The digests of the recordings."""
        return unpack_recordings(self.recordings)

    def comparable_with(self, other: "SpeakerSet | TestSpeakers") -> bool:
        """Return whether a name means the same person in both sets, by the names of dataset and corpus.

        It does within a dataset and within a published corpus, but not between two manifests.
        """
        return self.dataset == other.dataset or self.corpus == other.corpus != "manifest"

    def related_to(self, test: TestSpeakers) -> bool:
        """Return whether a name means the same person here and in the store of a test.

        It does if `comparable_with` says so, or if the two have recordings in common.
        """
        return self.comparable_with(test) or not self.digests.isdisjoint(test.store_recordings)

    def heard(self, test: TestSpeakers) -> list[str] | None:
        """Return the test speakers that are in this set; None if it cannot be told.

        It cannot if one of the two is a manifest, they have no recording in common, and either the digests are missing
        or speakers have the same names: a corpus may have been resampled or cut. Two published corpora have different
        speakers.
        """
        names = set(map(key, self.speakers))
        heard = {each for each in test.audio if key(each) in names}
        digests = self.digests
        if self.related_to(test):
            heard |= {each for each in test.audio if not digests.isdisjoint(test.recordings_of(each))}
        elif "manifest" not in (self.corpus, test.corpus):
            heard = set()
        elif heard or (self.speakers and not digests):
            return None
        others = self.also.heard(test) if self.also else []
        return None if others is None else [each for each in test.audio if each in heard or each in others]

    def union(self, other: Self | None) -> Self:
        """Return this set with the speakers of `other` added, or with `other` beside it if names cannot be compared."""
        if other is None:
            return self
        return self._with(other).union(other.also)

    def _with(self, other: Self) -> Self:
        """Return the union with a set, but not with those beside it."""
        if not self.comparable_with(other):
            alone = other.model_copy(update={"also": None})
            return self.model_copy(update={"also": self.also._with(other) if self.also else alone})
        known = set(map(key, self.speakers))
        speakers = self.speakers + tuple(name for name in other.speakers if key(name) not in known)
        return self.model_copy(
            update={"speakers": speakers, "recordings": _pack(self.digests | other.digests)}
        )

    def to_json(self) -> dict[str, object]:
        """Return the entry in a file, without what has its default."""
        return self.model_dump(mode="json", exclude_defaults=True)


UNKNOWN = SpeakerSet(dataset="?", corpus="manifest", speakers=("?",))
"""Stands for speakers that are not known: `heard` returns None for every test."""
