"""Whom a search, a training or a test hears: what files keep of it, and what tells whether a test is one."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field


class Heard(BaseModel):
    """Speakers by the names that their corpus gives them. Anything else than this in a file is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dataset: str
    corpus: str
    speakers: Annotated[tuple[str, ...], Field(max_length=10**6, fail_fast=True)]

    def names_as(self, other: "Heard") -> bool:
        """Whether a name is one speaker in both: they are of one store, or of one published corpus."""
        return self.dataset == other.dataset or self.corpus == other.corpus != "manifest"

    def among(self, other: "Heard") -> list[str]:
        """The speakers of `other` who are these, in its order."""
        known = set(self.speakers) if self.names_as(other) else set()
        return [speaker for speaker in other.speakers if speaker in known]

    def joined(self, other: Self | None) -> Self:
        """These, and after them those of `other` where a name is one speaker in both."""
        if other is None or not self.names_as(other):
            return self
        return self.model_copy(update={"speakers": tuple(dict.fromkeys(self.speakers + other.speakers))})
