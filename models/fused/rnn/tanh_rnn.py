"""A tanh RNN on a CPU, faster than the library's: autograd there records every time step, here there is one function.

The inputs of all steps are projected at once; a step is one matrix product and a tanh, forward and backward alike, and
the gradient of the recurrent weights is one product over all steps. Where there is a compiler, all steps are one call
(see `native`). (The library's LSTM is such a function already.)

Shapes: N utterances, T time steps, C and H channels in and out; sequences (T, N, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fused.native import sequences as native


class TanhRNN(nn.RNN):
    """`nn.RNN`, batch first and starting from zeros, whose CPU forward is a `Scan` per layer and direction."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(N, T, C) -> the output (N, T, H), or 2H if bidirectional, and no final state."""
        if x.device.type != "cpu" or torch.compiler.is_exporting():  # exporters know the library's RNN
            return super().forward(x)
        h = x.transpose(0, 1)  # (T, N, C)
        for layer in range(self.num_layers):
            forward = one_way(self, f"l{layer}", h)
            if self.bidirectional:
                backward = one_way(self, f"l{layer}_reverse", h.flip(0)).flip(0)
                h = torch.cat([forward, backward], dim=2)
            else:
                h = forward
        return h.transpose(0, 1), None


def one_way(rnn: nn.RNN, layer: str, x: Tensor) -> Tensor:
    """h_t = tanh(W x_t + b + U h_{t-1}) with the weights that `nn.RNN` keeps for `layer`: (T, N, C) -> (T, N, H)."""
    w, u, b, c = (
        getattr(rnn, f"{name}_{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return Scan.apply(F.linear(x, w, b + c), u)


class Scan(torch.autograd.Function):
    """h_t = tanh(z_t + U h_{t-1}), h_{-1} = 0: z (T, N, H), U (H, H) -> (T, N, H)."""

    @staticmethod
    def forward(ctx, z: Tensor, u: Tensor) -> Tensor:
        h = native.recurred(z, u) if native.usable(z) else recurred(z, u)
        ctx.save_for_backward(h, u)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor | None]:
        h, u = ctx.saved_tensors
        d = native.back(g, h, u) if native.usable(h) else back(g, h, u)
        return d, d[1:].flatten(0, 1).T @ h[:-1].flatten(0, 1) if ctx.needs_input_grad[1] else None


def recurred(z: Tensor, u: Tensor) -> Tensor:
    """h, of z and U."""
    h, transposed = torch.empty_like(z), u.T
    torch.tanh(z[0], out=h[0])
    for t in range(1, len(z)):
        torch.addmm(z[t], h[t - 1], transposed, out=h[t]).tanh_()
    return h


def back(g: Tensor, h: Tensor, u: Tensor) -> Tensor:
    """The gradient by z, from that by h."""
    slope, d = 1 - h.square(), torch.empty_like(h)  # d tanh
    torch.mul(g[-1], slope[-1], out=d[-1])
    for t in reversed(range(len(h) - 1)):
        torch.addmm(g[t], d[t + 1], u, out=d[t]).mul_(slope[t])
    return d
