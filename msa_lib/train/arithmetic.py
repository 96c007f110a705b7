"""In which arithmetic a network is trained.

float32 is the reference, and means it: PyTorch's own default lets convolutions and recurrent layers on a GPU round
their factors to 10 bits (TF32). `tf32` allows that for all products, `bf16` computes the products of training steps in
bfloat16 (autocast; weights, optimiser, validation and prediction stay float32). Not measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]


def check(precision: Precision, device: str) -> None:
    """Raises ValueError for a precision that the device does not have."""
    if precision == "tf32" and torch.device(device).type != "cuda":
        raise ValueError(f"precision='tf32' is a mode of CUDA devices; on {device} expected float32 or bf16.")


@contextmanager
def computing(threads: int, precision: Precision) -> Iterator[None]:
    """Threads of the CPU and the precision of products for all that is computed inside."""
    before = torch.get_num_threads()
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    modes = [place.fp32_precision for place in places]
    torch.set_num_threads(threads)
    for place in places:
        place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for place, mode in zip(places, modes, strict=True):
            place.fp32_precision = mode


def of_a_step(precision: Precision, device: str | torch.device) -> AbstractContextManager:
    """Around each training step."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)
