"""The code published with the paper, run beside ours by `search_step.py --against PATH`; none of it is kept here.

PATH is the folder `emoDARTS` of a checkout of github.com/jayaneetha/emoDARTS. It computes what our parts of the same
names compute, as its own `search.py` does, but that its SeqNN takes the 16 utterances of a batch for time steps.
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
    """Stem, CNN cells and head: forward and backward for all weights and alphas."""
    network = supernet(path, config.model_copy(update={"rnn_layers": 0}))
    used = list(network.parameters())
    return lambda: torch.autograd.grad(network.loss(*train), used)


def search_step(path: Path, config: SearchConfig, train: Batch, val: Batch) -> Callable[[], None]:
    """A whole second-order step: alphas, then weights."""
    network = supernet(path, config)
    architect = imported(path, "architect").Architect(network, config.w_momentum, config.w_weight_decay)
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
    """Its supernet, of our flags' size. Without SeqNN cells it has no alphas of theirs: their gradient would fail."""
    controller = imported(path, "models.search_cnn").SearchCNNController
    rnn_nodes = config.rnn_nodes if config.rnn_layers else 0
    sizes = {"n_nodes": config.cnn_nodes, "n_nodes_rnn": rnn_nodes, "n_layers_rnn": config.rnn_layers}
    criterion = nn.CrossEntropyLoss()
    return controller(1, config.init_channels, 4, config.layers, criterion, device_ids=[0], **sizes)


def imported(path: Path, name: str) -> ModuleType:
    """A module of the original, in whose process ours of the same names make way."""
    if sys.path[0] != str(path):
        for ours in ("architect", "genotypes", "models", "utils"):
            for module in [module for module in sys.modules if module.split(".")[0] == ours]:
                del sys.modules[module]
        # its `models` is no package, so one of ours would come first wherever it stands
        sys.path[:] = [str(path), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    return importlib.import_module(name)
