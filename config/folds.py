"""The flags of how a corpus is parted, which all commands share that hold speakers out."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from config.flags import Flags
from data.protocols import PATTERN as SCHEME


def _lower(word: Any) -> Any:
    return word.lower() if isinstance(word, str) else word


class FoldFlags(Flags):
    """How a corpus is parted."""

    folds_by: Annotated[str, Field(pattern=f"^({SCHEME})$")] = "auto"
    """How speakers are held out: session or speaker (leave one out), official (the publisher's split), groupK (K groups
    of speakers), emodarts (as the published code did), auto (sessions if there are 3, else group5)."""
    allow_leak: tuple[Annotated[Literal["speakers", "sessions", "texts"], BeforeValidator(_lower)], ...] = ()
    """What training and test may share all the same: speakers, sessions, texts; metrics.json says so."""

    @property
    def unknown_speakers(self) -> bool:
        """Whether utterances of unknown speakers take part, who may be in training and test."""
        return self.folds_by == "official" and "speakers" in self.allow_leak
