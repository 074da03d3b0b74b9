"""Autograd functions that compute G linear maps, LSTM layers or tanh RNN layers of one shape together.

On a GPU, a small recurrence takes as long as the launches of its kernels. Here G recurrences advance in time
together: a step is one batched matrix product and a few pointwise kernels, forward and backward. The
gradient of the recurrent weights is one product over all steps, computed only if it is needed. The weights
stay in their modules; they are stacked when they are used, and again in backward, so that no copy is stored.

Shapes: G members of a stack, N utterances, T time steps, C channels, I and O channels in and out; sequences
(G, T, N, C).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def stack_like(x: Tensor, members: Sequence[Tensor]) -> Tensor:
    """Stack weights, (G, ...), in the dtype of x."""
    return torch.stack(tuple(members)).to(x.dtype)


def unstack_like(weight: Tensor, stack: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the members of a stack, in the dtype of their weights."""
    return stack.to(weight.dtype).unbind()


class StackedLinear(torch.autograd.Function):
    """y_g = W_g x_g + b_g: x (G, ..., I), G weights W (O, I), G tensors (O,) for each bias -> (G, ..., O).

    There are none, one or two biases, which add up. G may be the product of the first axes of x.
    """

    @staticmethod
    def forward(ctx, x: Tensor, count: int, *members: Tensor) -> Tensor:
        weights, rows = members[:count], x.reshape(count, -1, x.shape[-1])
        w = stack_like(x, weights).mT
        biases = [stack_like(x, members[i : i + count]) for i in range(count, len(members), count)]
        y = torch.baddbmm(sum(biases).unsqueeze(1), rows, w) if biases else torch.bmm(rows, w)
        ctx.save_for_backward(x if any(ctx.needs_input_grad[2:]) else None, *weights)
        ctx.count, ctx.shape = count, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        count, needed = ctx.count, ctx.needs_input_grad[2:]
        g = g.reshape(count, -1, g.shape[-1])
        gradients: list[Tensor | None] = [None] * len(needed)
        if any(needed[:count]):
            d_weights = g.mT @ x.reshape(count, -1, x.shape[-1])
            gradients[:count] = unstack_like(weights[0], d_weights)
        if any(needed[count:]):
            biases = len(needed) // count - 1
            gradients[count:] = unstack_like(weights[0], g.sum(dim=1)) * biases
        d_x = torch.bmm(g, stack_like(g, weights)).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return d_x, None, *gradients


class StackedTanhScan(torch.autograd.Function):
    """h_t = tanh(z_t + U h_{t-1}), h_{-1} = 0: z (G, T, N, C), G weights U (C, C) -> (G, T, N, C)."""

    @staticmethod
    def forward(ctx, z: Tensor, *recurrent: Tensor) -> Tensor:
        h, u = z.clone(), stack_like(z, recurrent).mT
        h[:, 0].tanh_()
        for t in range(1, h.shape[1]):
            h[:, t].baddbmm_(h[:, t - 1], u).tanh_()
        ctx.save_for_backward(h, *recurrent)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        h, *recurrent = ctx.saved_tensors
        u, slope, d = stack_like(h, recurrent), 1 - h.square(), g.clone()
        d[:, -1].mul_(slope[:, -1])
        for t in reversed(range(h.shape[1] - 1)):
            d[:, t].baddbmm_(d[:, t + 1], u).mul_(slope[:, t])
        return d, *recurrent_gradients(ctx, d, h, recurrent)


class StackedLstmScan(torch.autograd.Function):
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t); i, f, o are sigmoids and g is a tanh of z_t + U h_{t-1}.

    z (G, T, N, 4C), G weights U (4C, C) -> h (G, T, N, C). The gates of z and U are in the order i, f, g, o
    of `nn.LSTM`. Inside, o is moved to the front, so that one kernel computes the three sigmoids.
    """

    @staticmethod
    def forward(ctx, z: Tensor, *recurrent: Tensor) -> Tensor:
        channels = z.shape[-1] // 4
        gates, u = z.roll(channels, -1), stack_like(z, recurrent).roll(channels, 1).mT
        o, i, f, g = gates.chunk(4, dim=-1)
        c, h = z.new_empty(o.shape), z.new_empty(o.shape)
        for t in range(z.shape[1]):
            if t > 0:
                gates[:, t].baddbmm_(h[:, t - 1], u)
            gates[:, t, :, : 3 * channels].sigmoid_()
            g[:, t].tanh_()
            torch.mul(i[:, t], g[:, t], out=c[:, t])
            if t > 0:
                c[:, t].addcmul_(f[:, t], c[:, t - 1])
            torch.tanh(c[:, t], out=h[:, t]).mul_(o[:, t])
        ctx.save_for_backward(gates, c, h, *recurrent)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, c, h, *recurrent = ctx.saved_tensors
        channels = c.shape[-1]
        u = stack_like(h, recurrent).roll(channels, 1)
        d, slope_c = lstm_slopes(gates, c)  # d becomes the gradient with respect to z
        f = gates.chunk(4, dim=-1)[2]
        d_o, d_ifg = d[..., :channels], d[..., channels:].unflatten(-1, (3, channels))
        d_c = torch.zeros_like(c[:, 0])
        for t in reversed(range(c.shape[1])):
            d_h = grad[:, t] if t + 1 == c.shape[1] else torch.baddbmm(grad[:, t], d[:, t + 1], u)
            d_c.addcmul_(d_h, slope_c[:, t])
            d_o[:, t].mul_(d_h)
            d_ifg[:, t].mul_(d_c.unsqueeze(-2))
            d_c.mul_(f[:, t])
        d = d.roll(-channels, -1)
        return d, *recurrent_gradients(ctx, d, h, recurrent)


def lstm_slopes(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """For all steps, the derivatives of h and c that do not depend on the incoming gradient.

    First dh/do and dc/d(i, f, g), each with respect to the input of the gate, (G, T, N, 4C) with o
    first; then dh/dc, (G, T, N, C).
    """
    o, i, _, g = gates.chunk(4, dim=-1)
    tanh_c = c.tanh()
    d = gates * (1 - gates)
    d_o, d_i, d_f, d_g = d.chunk(4, dim=-1)
    d_o.mul_(tanh_c)
    d_i.mul_(g)
    d_f[:, 1:].mul_(c[:, :-1])
    d_f[:, 0] = 0
    torch.mul(i, 1 - g.square(), out=d_g)
    return d, o * (1 - tanh_c.square())


def recurrent_gradients(ctx, d_z: Tensor, h: Tensor, recurrent: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The gradients with respect to each U, from those with respect to z; None if none is needed."""
    if not any(ctx.needs_input_grad[1:]):
        return [None] * len(recurrent)
    return unstack_like(recurrent[0], d_z[:, 1:].flatten(1, 2).mT @ h[:, :-1].flatten(1, 2))
