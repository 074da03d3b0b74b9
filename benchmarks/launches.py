"""How many kernels would a relaxed SeqNN cell launch on a GPU, op by op and with stacked recurrences?

python benchmarks/launches.py          --rnn_ops and --rnn_nodes change the cell; no GPU needed

Counted are the operations that torch dispatches, forward and backward, but for those that only make views or reserve
memory: on a CPU, of one utterance and few channels, which change no count. The library's LSTMs and RNNs take their
steps one by one, as on a GPU without cuDNN. With cuDNN each is one operation, whose launches torch does not see: two a
step, layer and direction, the product and the gates, forward and again backward, is an estimate.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli import parse
from config import SearchConfig
from darts.supernet import make_supernet
from models import ops
from models.cells import Cell
from models.fused.rnn import stacked_cell as stacked
from models.fused.rnn.stacked_cell import StackedRnnCell

STEPS = 32
NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """Counts operations that would each launch at least one kernel."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view and func.overloadpacket.__name__ not in NO_KERNEL
        return func(*args, **(kwargs or {}))


def launches(config: SearchConfig, forward, only_alphas: bool) -> int:
    """Those of the first SeqNN cell, forward and backward, for all weights and alphas or for the alphas alone."""
    network = make_supernet(config, classes=4)
    cell, alphas = network.network.rnn_cells[0], network.alphas["rnn"]
    projects = cell.project0, cell.project1
    inputs = [torch.zeros(1, STEPS * p.stride, p.linear.in_features).requires_grad_() for p in projects]
    cell.requires_grad_(not only_alphas)
    asking = [p for p in (*inputs, *alphas, *cell.parameters()) if p.requires_grad]
    with Launches() as counter:
        out = forward(cell, *inputs, [alpha.softmax(dim=-1) for alpha in alphas])
        torch.autograd.grad(out, asking, torch.empty_like(out))
    return counter.count


def estimated(config: SearchConfig) -> int:
    """The launches of cuDNN's recurrences, forward and backward."""
    cell = make_supernet(config, classes=4).network.rnn_cells[0]
    rnns = [module for module in cell.modules() if isinstance(module, nn.RNNBase)]
    return sum(2 * 2 * STEPS * rnn.num_layers * (1 + rnn.bidirectional) for rnn in rnns)


def main() -> None:
    """Print the counts."""
    config = parse(SearchConfig, ["--rnn_layers", "1", "--rnn_channels", "4", *sys.argv[1:]])
    ops.recur = lambda rnn, x: rnn(x)[0]
    stacked.use_stacked = lambda device: True
    print(f"one SeqNN cell, {STEPS} steps, forward + backward\n")
    print(f"{'':20}{'op by op':>12}{'stacked':>12}{'ratio':>8}")
    for name, only_alphas in (("for all weights", False), ("for the alphas alone", True)):
        with torch.backends.mkldnn.flags(enabled=False):
            plain, few = (launches(config, kind.forward, only_alphas) for kind in (Cell, StackedRnnCell))
        print(f"{name:20}{plain:12,}{few:12,}{plain / few:8.1f}")
    print(f"\ncuDNN's recurrences op by op: an estimate of {estimated(config):,}")


if __name__ == "__main__":
    main()
