"""Whom a search, a training or a test hears: what files keep of it, and what tells whether a test is one."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field


class SpeakerSet(BaseModel):
    """Speakers by the names that their corpus gives them. Anything else than this in a file is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dataset: str
    corpus: str
    speakers: Annotated[tuple[str, ...], Field(max_length=10**6, fail_fast=True)]

    def comparable_with(self, other: "SpeakerSet") -> bool:
        """Whether a name is one speaker in both: they are of one store, or of one published corpus."""
        return self.dataset == other.dataset or self.corpus == other.corpus != "manifest"

    def overlap(self, other: "SpeakerSet") -> list[str]:
        """The speakers of `other` who are these, in its order."""
        known = set(self.speakers) if self.comparable_with(other) else set()
        return [speaker for speaker in other.speakers if speaker in known]

    def union(self, other: Self | None) -> Self:
        """These, and after them those of `other` where a name is one speaker in both."""
        if other is None or not self.comparable_with(other):
            return self
        return self.model_copy(update={"speakers": tuple(dict.fromkeys(self.speakers + other.speakers))})
