"""The fused tanh RNN against the library's, in float64."""

import pytest
import torch
from torch import nn

from models.fused.rnn.tanh_rnn import TanhRNN


def run(rnn_class, rnn, x):
    """The output of an RNN, and its gradients with respect to x and all weights that require one."""
    out = rnn_class.forward(rnn, x)[0]
    leaves = [tensor for tensor in (x, *rnn.parameters()) if tensor.requires_grad]
    g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad(out, leaves, g)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("hidden", [6, 24], ids=["by library", "compiled"])
@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 4, 5), (2, 1, 5), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_output_and_gradients_equal_the_library(layers, bidirectional, shape, hidden, frozen):
    torch.manual_seed(0)
    rnn = TanhRNN(5, hidden, layers, batch_first=True, bidirectional=bidirectional).double()
    rnn.requires_grad_(not frozen)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found, truth = run(TanhRNN, rnn, x), run(nn.RNN, rnn, x)
    torch.testing.assert_close(found[0], truth[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-12)
