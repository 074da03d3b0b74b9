"""BatchNorm over the whole batch of several processes, as one process with all of the batch computes it.

torch's SyncBatchNorm runs on no CPU and knows nothing of the fused cells. Those take every mean over a batch, of values
and of gradients, in `sums`: there the processes' means are averaged. A plain BatchNorm becomes an edge of
one op of such a cell. The means of a BatchNorm are so sent four times a pass, twice as often as torch does.
"""

from torch import Tensor, nn

from models.fused.cnn import sums
from models.fused.cnn.batchnorm import centred
from models.fused.cnn.edge import relaxed_edge
from models.fused.cnn.edge_ops import MapOps
from models.fused.cnn.sums import column


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, F, T) -> (N, C, F, T)."""
        if not self.training:
            return super().forward(x)
        y, scale = centred(x, self, 1)
        y = relaxed_edge([(MapOps([scale], training=True), (y,))], scale.new_ones(1), len(scale), 1)
        return y * column(self.weight) + column(self.bias) if self.affine else y


def synchronise(network: nn.Module, processes: int) -> None:
    """Let the BatchNorms of this process share their statistics with so many processes; 1: with none.

    The fused cells of all networks do from now on; of other BatchNorms those of `network`.
    """
    sums.processes = processes
    for module in network.modules():
        if processes > 1 and type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # the same parameters and buffers
