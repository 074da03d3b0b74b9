"""--precision: the arithmetic of a run's passes on its device.

float32 is IEEE single precision. Left alone, cuDNN rounds the factors of convolutions and RNNs to TF32's 10 bits of
mantissa. It is told so by torch's older switches: Fabric and torch.export read those, which fails once the newer
`fp32_precision` of torch 2.9 is used.
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
    _allow_tf32(precision == "tf32")


def has_tf32(device: torch.device) -> bool:
    """Whether a device multiplies in TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def true_float32() -> Iterator[None]:
    """Within, products of float32 are such whatever --precision says."""
    before = torch.backends.cudnn.allow_tf32
    _allow_tf32(False)
    try:
        yield
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
