"""A trained model as one file: the weights, the standardisation, and what is needed to rebuild the network.

`model.safetensors` holds the tensors. Its header, in JSON, holds the architecture, the classes, the front-end and the
speakers that the network was trained on.
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

from config import Copies, Deltas, Normalise
from data.speakers import SpeakerSet
from genotypes import Genotype
from models.architecture import Architecture, BaselineArchitecture, SearchedArchitecture
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
"""Errors that rebuilding a network from a damaged file can raise."""


def check_distinct(names: list[str]) -> list[str]:
    """The names. Raises `ValueError` if one occurs twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"a class occurs twice in {names}")
    return names


def check_size(size: dict[str, int]) -> dict[str, int]:
    """The fields of a `Size`. Raises `ValueError` if the stride of the stem is neither 1 nor 2, or there is no band."""
    if size.get("stem_stride", 1) not in (1, 2):
        raise ValueError("stem_stride is neither 1 nor 2")
    if size.get("rnn_bands", 1) < 1:
        raise ValueError("rnn_bands is less than 1")
    return size


Count = Annotated[int, Field(ge=0, le=2**31)]
Length = Annotated[int, Field(ge=1, le=2**31)]
Class = Annotated[str, Field(min_length=1)]


class Header(BaseModel):
    """The part of the header that every architecture has."""

    model_config = ConfigDict(strict=True, extra="forbid")

    version: Literal[1]
    classes: Annotated[list[Class], Field(min_length=1), AfterValidator(check_distinct)]
    front_end: dict[str, Any]
    normalise: Normalise = "training"
    copies: Copies = ()
    trained_on: SpeakerSet | None = None


class SearchedHeader(Header):
    """The header of a derived network."""

    genotype: dict[str, Any]
    size: Annotated[dict[str, Count], AfterValidator(check_size)]

    @property
    def architecture(self) -> SearchedArchitecture:
        return SearchedArchitecture(Genotype.from_json(self.genotype), Size(**self.size))


class DesignedHeader(Header):
    """The header of a baseline."""

    baseline: Literal[*BASELINES]
    shape: tuple[Length, Length]
    deltas: Deltas = 0

    @property
    def architecture(self) -> BaselineArchitecture:
        return BaselineArchitecture(self.baseline, self.shape, self.deltas)


HEADER = TypeAdapter(SearchedHeader | DesignedHeader)


@dataclass(frozen=True)
class SavedModel:
    """A network with its architecture, the mean and std (F,) of its inputs, its classes and its front-end's settings.

    `normalise` says by which statistics its inputs are standardised (see `data.normalisation`); only "training" uses
    the mean and std. `copies` are the perturbations whose copies of a recording are predicted as well, to average over
    them. `trained_on` are the speakers of the search, the training and the choice of the epoch; None if not
    known.
    """

    network: nn.Module
    architecture: Architecture
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    front_end: Mapping[str, Any]
    trained_on: SpeakerSet | None = None
    normalise: str = "training"
    copies: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all, without the auxiliary head, which only the training uses."""
        tensors = {
            name: t.contiguous() for name, t in self.network.state_dict().items() if ".auxiliary." not in name
        }
        tensors |= {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        header = {
            "version": VERSION,
            **self.architecture.to_json(),
            "classes": list(self.classes),
            "front_end": dict(self.front_end),
            "normalise": self.normalise,
            "copies": list(self.copies),
        }
        if self.trained_on:
            header["trained_on"] = self.trained_on.to_json()
        with whole_file(path) as beside:
            save_file(tensors, beside, {"emodarts": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> "SavedModel":
        """Rebuild the network in evaluation mode on the CPU. Raises `UserError` if the file is missing or damaged."""
        if not path.is_file():
            raise UserError(f"no model at {path}: augment.py writes it")
        try:
            with safe_open(path, "pt") as file:
                header = (file.metadata() or {})["emodarts"]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls.rebuild(header, tensors)
        except UNREADABLE as error:
            raise UserError(f"{path} is not a model of this program: {str(error)[:300]}") from None

    @classmethod
    def rebuild(cls, header_text: str, tensors: dict[str, Tensor]) -> "SavedModel":
        """The model of a header and its tensors. Raises any of `UNREADABLE` if they do not fit."""
        header = HEADER.validate_json(header_text)
        architecture = header.architecture
        classes = tuple(header.classes)
        mean = tensors.pop("mean")
        std = tensors.pop("std")
        if mean.dim() != 1 or mean.shape != std.shape or not len(mean):
            raise ValueError(f"mean and std have the shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if architecture.shape and architecture.shape[0] != len(mean):
            raise ValueError(
                f"{len(mean)} coefficients are standardised, but the network takes {architecture.shape}"
            )
        if architecture.cells > len(tensors):
            raise ValueError(f"{len(tensors)} tensors are too few for {architecture.cells} cells")
        with torch.device("meta"):  # takes no memory before the tensors of the file are checked
            network = architecture.build(len(classes))
        network.load_state_dict(tensors, assign=True)
        return cls(
            network.eval(),
            architecture,
            mean.numpy(),
            std.numpy(),
            classes,
            header.front_end,
            header.trained_on,
            header.normalise,
            header.copies,
        )

    @property
    def standardised(self) -> nn.Module:
        """The network with the standardisation by its training rows: features (N, F, T) -> logits (N, classes).

        Without it, if the features are standardised by speaker or utterance: the network cannot know their statistics.
        """
        mean, std = torch.from_numpy(self.mean), torch.from_numpy(self.std)
        if self.normalise != "training":
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        return Standardised(self.network, mean, std)


class Standardised(nn.Module):
    """Standardisation of the inputs, then the network."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean[:, None])
        self.register_buffer("std", std[:, None])

    def forward(self, features: Tensor) -> Tensor:
        return self.network(((features - self.mean) / self.std).unsqueeze(1))
