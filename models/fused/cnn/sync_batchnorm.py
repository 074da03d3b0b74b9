"""BatchNorm over the batches of several processes, equal to BatchNorm in one process on the whole batch.

torch's SyncBatchNorm does not run on a CPU and does not know the fused cells. Here every mean over a
batch, of values in the forward pass and of gradients in the backward pass, is averaged over the
processes (see `sums`). The means of a BatchNorm are sent four times per pass, twice as often as by torch.
"""

from torch import Tensor, nn

from models.fused.cnn.batchnorm import center_and_scale
from models.fused.cnn.edge import relaxed_edge
from models.fused.cnn.layout import Layout, per_channel
from models.fused.cnn.weighted_ops import WeightedMaps


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with statistics over several processes; it shares the tensors of `norm`."""

    def __init__(self, norm: nn.BatchNorm2d, processes: int):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.processes = processes
        for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
            setattr(self, name, tensor)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, F, T) -> (N, C, F, T)."""
        if not self.training:
            return super().forward(x)
        layout = Layout(fold=1, processes=self.processes)
        centered, scale = center_and_scale(x, self, layout)
        group = WeightedMaps([scale], True, layout), [centered], 1
        y = relaxed_edge([group], scale.new_ones(1), len(scale), layout)  # an edge with one op, of weight 1
        return y * per_channel(self.weight) + per_channel(self.bias) if self.affine else y


def synchronise(network: nn.Module, processes: int) -> None:
    """Replace each BatchNorm2d of a network by one that takes its statistics over so many processes.

    The fused cells read the number from their BatchNorms. State-dict names do not change. With one
    process, the network is left as it is.
    """
    if processes == 1:
        return
    for name, module in list(network.named_modules()):
        if type(module) is nn.BatchNorm2d:
            network.set_submodule(name, SyncBatchNorm2d(module, processes))


def processes_of(module: nn.Module) -> int:
    """The number of processes over which the BatchNorms of a module take their statistics."""
    norm = next(each for each in module.modules() if isinstance(each, nn.BatchNorm2d))
    return norm.processes if isinstance(norm, SyncBatchNorm2d) else 1
