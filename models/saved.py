"""A trained model as one file: weights, standardisation, and all that is needed to rebuild the network around them.

`model.safetensors` holds the tensors; its header, as JSON, the genotype, the size, the classes and the front-end.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from genotypes import Genotype
from models.augment_network import AugmentNetwork
from models.joint_network import Size
from utils import UserError, whole_file

VERSION = 1


@dataclass(frozen=True)
class SavedModel:
    """A derived network, the statistics of its inputs (F,), its classes, and the front-end's settings."""

    network: AugmentNetwork
    size: Size
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    front_end: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. The auxiliary head served the training and stays behind."""
        tensors = {name: t.contiguous() for name, t in self.network.state_dict().items() if ".auxiliary." not in name}
        tensors |= {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        header = {
            "version": VERSION,
            "genotype": self.network.genotype.to_json(),
            "size": asdict(self.size),
            "classes": list(self.classes),
            "front_end": dict(self.front_end),
        }
        with whole_file(path) as beside:
            save_file(tensors, beside, {"emodarts": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> "SavedModel":
        """Rebuild the network in evaluation mode, on the CPU. `UserError` where the file is missing or another."""
        if not path.is_file():
            raise UserError(f"no model at {path}: augment.py writes it")
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})["emodarts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls._rebuild(header, tensors)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"{path} is not a model of this program: {error!r}") from None

    @classmethod
    def _rebuild(cls, header: Mapping[str, Any], tensors: dict[str, Tensor]) -> "SavedModel":
        if header["version"] != VERSION:
            raise ValueError(f"version {header['version']}, this program reads {VERSION}")
        size, classes = Size(**header["size"]), tuple(header["classes"])
        network = AugmentNetwork(Genotype.from_json(header["genotype"]), size, len(classes))
        mean, std = tensors.pop("mean").numpy(), tensors.pop("std").numpy()
        network.load_state_dict(tensors)
        return cls(network.eval(), size, mean, std, classes, header["front_end"])

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
