"""A trained model as one file: weights, standardisation, and all that is needed to rebuild the network around them.

`model.safetensors` holds the tensors; its header, as JSON, the architecture, the classes, the front-end
and whom the network has heard in training.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from data.speakers import SpeakerSet
from genotypes import Genotype
from models.architecture import Architecture, Designed, Searched
from models.baselines import BASELINES
from models.joint_network import Size
from utils import UserError, whole_file

VERSION = 1
UNREADABLE = (
    UserError,
    SafetensorError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
    RuntimeError,
    OSError,
)
"""What rebuilding a network from a damaged or hostile file can raise."""


def distinct(names: list[str]) -> list[str]:
    """The names themselves; an error where one is there twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"a class is there twice in {names}")
    return names


Count = Annotated[int, Field(ge=0, le=2**31)]
Length = Annotated[int, Field(ge=1, le=2**31)]
Class = Annotated[str, Field(min_length=1)]


class Header(BaseModel):
    """What the file's header must be, whatever the architecture."""

    model_config = ConfigDict(strict=True, extra="forbid")

    version: Literal[1]
    classes: Annotated[list[Class], Field(min_length=1), AfterValidator(distinct)]
    front_end: dict[str, Any]
    trained_on: SpeakerSet | None = None


class SearchedHeader(Header):
    """The header of a derived network."""

    genotype: dict[str, Any]
    size: dict[str, Count]

    @property
    def architecture(self) -> Searched:
        return Searched(Genotype.from_json(self.genotype), Size(**self.size))


class DesignedHeader(Header):
    """The header of a baseline."""

    baseline: Literal[*BASELINES]
    shape: tuple[Length, Length]

    @property
    def architecture(self) -> Designed:
        return Designed(self.baseline, self.shape)


HEADER = TypeAdapter(SearchedHeader | DesignedHeader)


@dataclass(frozen=True)
class SavedModel:
    """A network, what it was built from, the statistics of its inputs (F,), its classes, the front-end's settings.

    `trained_on`: whom search, training and choice of the epoch heard; None where the file does not say.
    """

    network: nn.Module
    architecture: Architecture
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    front_end: Mapping[str, Any]
    trained_on: SpeakerSet | None = None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. The auxiliary head served the training and stays behind."""
        tensors = {
            name: t.contiguous() for name, t in self.network.state_dict().items() if ".auxiliary." not in name
        }
        tensors |= {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        header = {
            "version": VERSION,
            **self.architecture.to_json(),
            "classes": list(self.classes),
            "front_end": dict(self.front_end),
        }
        if self.trained_on:
            header["trained_on"] = self.trained_on.model_dump()
        with whole_file(path) as beside:
            save_file(tensors, beside, {"emodarts": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> "SavedModel":
        """Rebuild the network in evaluation mode, on the CPU. `UserError` where the file is missing or another."""
        if not path.is_file():
            raise UserError(f"no model at {path}: augment.py writes it")
        try:
            with safe_open(path, "pt") as file:
                header = (file.metadata() or {})["emodarts"]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls._rebuild(header, tensors)
        except UNREADABLE as error:
            raise UserError(f"{path} is not a model of this program: {str(error)[:300]}") from None

    @classmethod
    def _rebuild(cls, text: str, tensors: dict[str, Tensor]) -> "SavedModel":
        header, mean, std = HEADER.validate_json(text), tensors.pop("mean"), tensors.pop("std")
        architecture, classes = header.architecture, tuple(header.classes)
        if mean.dim() != 1 or mean.shape != std.shape or not len(mean):
            raise ValueError(f"mean and std have the shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if architecture.shape and architecture.shape[0] != len(mean):
            raise ValueError(
                f"{len(mean)} coefficients are standardised, but the network takes {architecture.shape}"
            )
        if architecture.cells > len(tensors):
            raise ValueError(f"{len(tensors)} tensors are too few for {architecture.cells} cells")
        with torch.device("meta"):  # no memory is taken before the file is seen to hold just these tensors
            network = architecture.build(len(classes))
        network.load_state_dict(tensors, assign=True)
        parts = network.eval(), architecture, mean.numpy(), std.numpy()
        return cls(*parts, classes, header.front_end, header.trained_on)

    @property
    def standardised(self) -> nn.Module:
        """(N, F, T) features as the front-end gives them -> logits (N, classes)."""
        return Standardised(self.network, torch.from_numpy(self.mean), torch.from_numpy(self.std))


class Standardised(nn.Module):
    """The network behind the standardisation of its inputs."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean[:, None])
        self.register_buffer("std", std[:, None])

    def forward(self, features: Tensor) -> Tensor:
        return self.network(((features - self.mean) / self.std).unsqueeze(1))
