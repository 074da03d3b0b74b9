"""--precision: the arithmetic of a run's passes on its device.

float32 is IEEE single precision. Left alone, cuDNN rounds the factors of convolutions and RNNs to TF32's 10 bits of
mantissa, so each of its switches is set, in the one API that torch 2.9 and later do not mix with another.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils import UserError

DTYPES = {"float32": None, "tf32": None, "bf16": torch.bfloat16}
"""The type that passes of low precision are cast to; None: that of the weights."""


def settle(precision: str, device: torch.device) -> None:
    """Set the device to a precision; a `UserError` where it has none such."""
    if precision == "tf32" and not has_tf32(device):
        raise UserError(
            f"--precision tf32: there is no TF32 on {device}, but on NVIDIA's GPUs from Ampere on; pass float32 or bf16"
        )
    _set_switches("tf32" if precision == "tf32" else "ieee")


def has_tf32(device: torch.device) -> bool:
    """Whether a device multiplies in TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def true_float32() -> Iterator[None]:
    """Within, products of float32 are such whatever --precision says."""
    before = [switch.fp32_precision for switch in _switches()]
    _set_switches("ieee")
    try:
        yield
    finally:
        for switch, value in zip(_switches(), before, strict=True):
            switch.fp32_precision = value


def _set_switches(value: str) -> None:
    for switch in _switches():
        switch.fp32_precision = value


def _switches() -> tuple:
    """All that multiplies matrices on a CUDA device; the setting above them does not reach the last two."""
    return torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
