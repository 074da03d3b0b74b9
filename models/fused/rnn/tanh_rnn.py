"""A tanh RNN that is faster than `nn.RNN` on a CPU.

    h_t = tanh(W x_t + b + U h_{t-1})

The library's RNN records every time step with autograd. Here the inputs of all steps are projected at once,
and the recurrence is one autograd function: a step is one matrix product and one tanh, forward and backward,
and the gradient of U is one product over all steps. Compiled code runs all steps in one call (see `native`).
The library's LSTM is fast already.

Shapes: N utterances, T time steps, C and H channels in and out; sequences (T, N, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fused.native import operations as native


class TanhRNN(nn.RNN):
    """`nn.RNN`, batch first, starting from zero. On other devices and for export, it calls `nn.RNN`."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(N, T, C) -> the output (N, T, H), or 2H if bidirectional, and None in place of the final state."""
        if x.device.type != "cpu" or torch.compiler.is_exporting():  # exporters know `nn.RNN`
            return super().forward(x)
        h = x.transpose(0, 1)  # (T, N, C)
        for layer in range(self.num_layers):
            forward = self.run(f"l{layer}", h)
            if self.bidirectional:
                backward = self.run(f"l{layer}_reverse", h.flip(0)).flip(0)
                h = torch.cat([forward, backward], dim=2)
            else:
                h = forward
        return h.transpose(0, 1), None

    def run(self, layer: str, x: Tensor) -> Tensor:
        """One layer in one direction: (T, N, C) -> (T, N, H). `layer` is the suffix of its weights."""
        w = getattr(self, f"weight_ih_{layer}")
        u = getattr(self, f"weight_hh_{layer}")
        bias = getattr(self, f"bias_ih_{layer}") + getattr(self, f"bias_hh_{layer}")
        return TanhScan.apply(F.linear(x, w, bias), u)


class TanhScan(torch.autograd.Function):
    """h_t = tanh(z_t + U h_{t-1}), h_{-1} = 0: z (T, N, H), U (H, H) -> (T, N, H)."""

    @staticmethod
    def forward(ctx, z: Tensor, u: Tensor) -> Tensor:
        h = native.tanh_scan(z, u) if native.supports(z) else tanh_scan(z, u)
        ctx.save_for_backward(h, u)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor | None]:
        h, u = ctx.saved_tensors
        d_z = native.tanh_scan_backward(g, h, u) if native.supports(h) else tanh_scan_backward(g, h, u)
        d_u = d_z[1:].flatten(0, 1).T @ h[:-1].flatten(0, 1) if ctx.needs_input_grad[1] else None
        return d_z, d_u


def tanh_scan(z: Tensor, u: Tensor) -> Tensor:
    """`TanhScan` with torch's operations."""
    h = torch.empty_like(z)
    torch.tanh(z[0], out=h[0])
    for t in range(1, len(z)):
        torch.addmm(z[t], h[t - 1], u.T, out=h[t]).tanh_()
    return h


def tanh_scan_backward(g: Tensor, h: Tensor, u: Tensor) -> Tensor:
    """The gradient with respect to z, from the gradient g with respect to h."""
    slope, d = 1 - h.square(), torch.empty_like(h)  # the slope of tanh
    torch.mul(g[-1], slope[-1], out=d[-1])
    for t in reversed(range(len(h) - 1)):
        torch.addmm(g[t], d[t + 1], u, out=d[t]).mul_(slope[t])
    return d
