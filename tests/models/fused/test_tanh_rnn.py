"""The tanh RNN as one function, against the library's."""

import pytest
import torch
from torch import nn

from models.fused.rnn.tanh_rnn import recur


@pytest.mark.parametrize("hidden", [6, 24], ids=["no vectors", "compiled"])
@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 4, 5), (2, 1, 5), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_output_and_gradients_are_those_of_the_library(layers, bidirectional, shape, hidden):
    torch.manual_seed(0)
    rnn = nn.RNN(5, hidden, layers, batch_first=True, bidirectional=bidirectional).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found, truth = recur(rnn, x), rnn(x)[0]
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)
    g, inputs = torch.randn_like(truth), [x, *rnn.parameters()]
    for a, b in zip(
        torch.autograd.grad(found, inputs, g), torch.autograd.grad(truth, inputs, g), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_frozen_weights_leave_the_gradient_of_the_input():
    torch.manual_seed(0)
    rnn = nn.RNN(5, 6, 2, batch_first=True).double().requires_grad_(False)
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    (a,), (b,) = (torch.autograd.grad(out.square().sum(), x) for out in (recur(rnn, x), rnn(x)[0]))
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_an_lstm_is_the_library_s():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(5, 6, 2, batch_first=True), torch.randn(3, 7, 5)
    assert torch.equal(recur(lstm, x), lstm(x)[0])
