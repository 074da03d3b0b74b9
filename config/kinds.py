"""Kinds of values that flags of several commands take: names, shares of 1, devices."""

from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
RunName = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", max_length=200)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

Devices = Annotated[
    str, Field(pattern=r"^(auto|none|cpu|cuda|mps|all|\d+(,\d+)*)$", json_schema_extra={"also": ["device"]})
]
Device = Annotated[str, Field(pattern=r"^(auto|none|cpu|cuda|mps|\d+)$", json_schema_extra={"also": ["device"]})]
