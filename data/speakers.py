"""Sets of speakers, as genotype and model files record those of a search or a training."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from data.names import key


class SpeakerSet(BaseModel):
    """Speakers of a dataset, by their names in the corpus. Reading one from a file is strict."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dataset: str
    corpus: str
    speakers: Annotated[tuple[str, ...], Field(max_length=10**6, fail_fast=True)]

    def comparable_with(self, other: "SpeakerSet") -> bool:
        """Return whether a name means the same person in both sets.

        It does within a dataset and within a published corpus, but not between two manifests.
        """
        return self.dataset == other.dataset or self.corpus == other.corpus != "manifest"

    def overlap(self, other: "SpeakerSet") -> list[str]:
        """Return the speakers of `other` that are also in this set, in the order of `other`."""
        known = set(map(key, self.speakers)) if self.comparable_with(other) else set()
        return [speaker for speaker in other.speakers if key(speaker) in known]

    def union(self, other: Self | None) -> Self:
        """Return this set with the speakers of `other` added, if the two are comparable."""
        if other is None or not self.comparable_with(other):
            return self
        shared = set(self.overlap(other))
        added = tuple(name for name in other.speakers if name not in shared)
        return self.model_copy(update={"speakers": self.speakers + added})
