"""The code published with the paper, as `search_step.py --against PATH` measures it beside ours.

PATH is the folder `emoDARTS` of a checkout of github.com/jayaneetha/emoDARTS; this repository contains
none of its code. Each part computes the same as our part of that name, as in its own `search.py`,
except that its SeqNN takes the 16 utterances of a batch for time steps.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from config import SearchConfig

ROOT = Path(__file__).resolve().parent.parent
Batch = tuple[torch.Tensor, torch.Tensor]


def cnn_cells(path: Path, config: SearchConfig, train: Batch, _: Batch) -> Callable[[], None]:
    """Forward and backward of stem, CNN cells and head, for all weights and alphas."""
    network = supernet(path, config.model_copy(update={"rnn_layers": 0}))
    parameters = list(network.parameters())
    return lambda: torch.autograd.grad(network.loss(*train), parameters)


def search_step(path: Path, config: SearchConfig, train: Batch, val: Batch) -> Callable[[], None]:
    """A whole second-order step: alphas, then weights."""
    network = supernet(path, config)
    architect = import_original(path, "architect").Architect(
        network, config.w_momentum, config.w_weight_decay
    )
    w_optim = torch.optim.SGD(
        network.weights(), config.w_lr, momentum=config.w_momentum, weight_decay=config.w_weight_decay
    )
    alpha_optim = torch.optim.Adam(
        network.alphas(), config.alpha_lr, betas=(0.5, 0.999), weight_decay=config.alpha_weight_decay
    )

    def work() -> None:
        alpha_optim.zero_grad()
        architect.unrolled_backward(*train, *val, config.w_lr, w_optim)
        alpha_optim.step()
        w_optim.zero_grad()
        network.loss(*train).backward()
        nn.utils.clip_grad_norm_(network.weights(), config.w_grad_clip)
        w_optim.step()

    return work


PARTS = {"CNN cells, forward + backward": cnn_cells, "step, second order": search_step}


def supernet(path: Path, config: SearchConfig) -> nn.Module:
    """The published supernet in the size of our flags, without SeqNN alphas if it has no SeqNN cells."""
    controller = import_original(path, "models.search_cnn").SearchCNNController
    rnn_nodes = config.rnn_nodes if config.rnn_layers else 0
    sizes = {"n_nodes": config.cnn_nodes, "n_nodes_rnn": rnn_nodes, "n_layers_rnn": config.rnn_layers}
    criterion = nn.CrossEntropyLoss()
    return controller(1, config.init_channels, 4, config.layers, criterion, device_ids=[0], **sizes)


def import_original(path: Path, name: str) -> ModuleType:
    """Import a module of the published code. Our modules of the same names are removed from this process."""
    if sys.path[0] != str(path):
        for module in [*sys.modules]:
            if module.split(".")[0] in ("architect", "genotypes", "models", "utils"):
                del sys.modules[module]
        # its `models` has no __init__.py, so our package of that name would be found first
        sys.path[:] = [str(path), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    return importlib.import_module(name)
