"""The flags of visualize.py."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from config.flags import Flags


class VisualizeConfig(Flags):
    """Draw every cell of a genotype."""

    genotype: Annotated[str, Field(json_schema_extra={"positional": True})]
    """A genotype: a file (JSON or a string form), Genotype(...), JSON, or a built-in name."""
    out: Path = Path("plots")
    """The folder to draw into."""
