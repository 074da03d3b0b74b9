"""The bilevel problem of the search: a step of the alphas on one half of the data, a step of the weights on the other.

min_alpha L_val(w*(alpha), alpha)   where   w*(alpha) = argmin_w L_train(w, alpha)      (Liu et al. 2019, eqs. 3 and 4)
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from config import SearchConfig
from darts.architect import Architect, Batch, Criterion, Unrolled
from darts.search_space import SearchSpace
from models.bf16 import in_type
from models.joint_network import Size
from models.search_network import SearchNetwork
from training.cuda_graphs import Recorded, hold_still, recorder
from training.devices import Gradient, local_gradient
from training.loop import Metrics, weight_step
from training.precision import DTYPES

ALPHA_BETAS = (0.5, 0.999)


def space_of(config: SearchConfig) -> SearchSpace:
    """The search space of the flags; no node of a SeqNN cell where there are no such cells."""
    rnn_nodes = config.rnn_nodes if config.rnn_layers else 0
    return SearchSpace(config.cnn_nodes, rnn_nodes, config.cnn_ops, config.rnn_ops)


def make_supernet(config: SearchConfig, classes: int) -> SearchNetwork:
    """The supernet of the flags."""
    size = Size(config.layers, config.init_channels, config.rnn_layers, config.rnn_channels)
    return SearchNetwork(
        space_of(config), size, classes, config.dropout, config.recompute, config.nested_depth
    )


class Bilevel:
    """A supernet with the optimisers of its two parameter sets."""

    def __init__(
        self,
        config: SearchConfig,
        network: SearchNetwork,
        criterion: Criterion = F.cross_entropy,
        gradient: Gradient = local_gradient,
    ):
        self.config, self.network, self.criterion, self.gradient = config, network, criterion, gradient
        dtype = DTYPES[config.precision]
        self.architect, self.call = Architect(network, criterion, gradient, dtype), in_type(network, dtype)
        self.weight_optimizer = torch.optim.SGD(
            network.weights().values(),
            config.w_lr,
            momentum=config.w_momentum,
            weight_decay=config.w_weight_decay,
        )
        self.alpha_optimizer = torch.optim.Adam(
            network.architecture_parameters(),
            config.alpha_lr,
            ALPHA_BETAS,
            weight_decay=config.alpha_weight_decay,
            capturable=config.cuda_graphs,  # counts its steps on the device
        )

    def step_on(self, device: torch.device) -> Callable[[Batch, Batch], Metrics]:
        """`step`, which --cuda_graphs has recorded and replayed."""
        if not self.config.cuda_graphs:
            return self.step
        hold_still(self.network)
        return Recorded(self.step, recorder(device), lambda: self.weight_optimizer.param_groups[0]["lr"])

    def step(self, train: Batch, val: Batch) -> Metrics:
        """Move the alphas along their gradient, then the weights at the new alphas."""
        self.alpha_step(train, val)
        clip = self.config.w_grad_clip
        return weight_step(self.call, self.weight_optimizer, train, self.criterion, self.gradient, clip)

    def alpha_step(self, train: Batch, val: Batch) -> None:
        """One step of Adam along the first- or second-order gradient."""
        if self.config.order == "second":
            gradients = self.architect.second_order(train, val, self._unrolled())
        else:
            gradients = self.architect.first_order(val)
        for alpha, d in zip(self.network.architecture_parameters(), gradients, strict=True):
            alpha.grad = d
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad()

    def _unrolled(self) -> Unrolled:
        """The step that the weights' optimiser is about to take."""
        group, state = self.weight_optimizer.param_groups[0], self.weight_optimizer.state
        momenta = {
            name: state[w]["momentum_buffer"] for name, w in self.network.weights().items() if w in state
        }
        return Unrolled(group["lr"], group["momentum"], group["weight_decay"], momenta)
