"""The kernels that a relaxed SeqNN cell would launch on a GPU, op by op and with stacked recurrences.

python benchmarks/launches.py          --rnn_ops and --rnn_nodes change the cell; no GPU needed

It counts the operations that torch dispatches, forward and backward, except those that only make views
or allocate memory; on a CPU, with one utterance and few channels, which do not change the count. The
library's LSTMs and RNNs run step by step, as on a GPU without cuDNN. With cuDNN each is one operation,
and torch does not see its launches. They are estimated: two per step, layer and direction (the product
and the gates), forward and again backward.
"""

import sys

import search_step
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from config import SearchConfig
from darts.supernet import make_supernet
from models.fused.rnn import stacked_cell as stacked

STEPS = 32
NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """Counts the operations that would each launch at least one kernel."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view and func.overloadpacket.__name__ not in NO_KERNEL
        return func(*args, **(kwargs or {}))


def count_launches(config: SearchConfig, only_alphas: bool) -> int:
    """Launches of a SeqNN cell, forward and backward, for all weights and alphas or for the alphas only."""
    network = make_supernet(config, classes=4)
    cell = network.network.rnn_cells[0]
    alphas = network.alphas["rnn"]
    projects = cell.project0, cell.project1
    inputs = [torch.zeros(1, STEPS * p.stride, p.linear.in_features).requires_grad_() for p in projects]
    cell.requires_grad_(not only_alphas)
    trained = [p for p in (*inputs, *alphas, *cell.parameters()) if p.requires_grad]
    with Launches() as counter:
        out = cell(*inputs, [alpha.softmax(dim=-1) for alpha in alphas])
        torch.autograd.grad(out, trained, torch.empty_like(out))
    return counter.count


def estimate_cudnn(config: SearchConfig) -> int:
    """An estimate of the launches of cuDNN's recurrences, forward and backward."""
    cell = make_supernet(config, classes=4).network.rnn_cells[0]
    rnns = [module for module in cell.modules() if isinstance(module, nn.RNNBase)]
    return sum(2 * 2 * STEPS * rnn.num_layers * (1 + rnn.bidirectional) for rnn in rnns)


def main() -> None:
    """Print the counts."""
    config = search_step.parse_search(sys.argv[1:], rnn_layers=1, rnn_channels=4)
    plain_config = config.model_copy(update={"fused": "off"})
    stacked.use_stacked = lambda device: True
    print(f"one SeqNN cell, {STEPS} steps, forward + backward\n")
    print(f"{'':20}{'op by op':>12}{'stacked':>12}{'ratio':>8}")
    for name, only_alphas in (("for all weights", False), ("for the alphas only", True)):
        with torch.backends.mkldnn.flags(enabled=False):
            plain = count_launches(plain_config, only_alphas)
            stacks = count_launches(config, only_alphas)
        print(f"{name:20}{plain:12,}{stacks:12,}{plain / stacks:8.1f}")
    print(f"\ncuDNN's recurrences op by op: about {estimate_cudnn(config):,} (an estimate)")


if __name__ == "__main__":
    main()
