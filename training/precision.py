"""--precision: float32, TF32 or bf16 for the training passes.

float32 means IEEE single precision. By default, cuDNN rounds the factors of convolutions and RNNs to TF32's 10 bits of
mantissa. The switch used here is torch's older one, which torch.export still reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils import UserError

PASS_DTYPES = {"float32": None, "tf32": None, "bf16": torch.bfloat16}
"""The dtype that weights and inputs of a pass are cast to; None: they are not cast."""


def set_precision(precision: str, device: torch.device) -> None:
    """Set the precision of float32 products. Raises `UserError` if the device has no TF32 and it is asked for."""
    if precision == "tf32" and not has_tf32(device):
        raise UserError(
            f"--precision tf32: {device} has no TF32, which NVIDIA GPUs have from Ampere on; pass float32 or bf16"
        )
    allow_tf32(precision == "tf32")


def has_tf32(device: torch.device) -> bool:
    """Whether the device can multiply in TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 products in IEEE single precision within this context, whatever --precision is."""
    before = torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        allow_tf32(before)


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
