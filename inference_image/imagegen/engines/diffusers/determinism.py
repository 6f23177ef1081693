"""Bit-equal repeats on the same device and software."""

from __future__ import annotations

import os

import torch

__all__ = ["make_deterministic"]


def make_deterministic() -> None:
    """Let torch use only algorithms that give the same bits every time; before CUDA is used.

    An operation that has no such algorithm raises, which the warm-up shows. It costs speed: no
    TF32, no autotuning. What it cannot do is make pictures independent of the batch's size.
    """
    # cuBLAS reads it once, when the first handle is made.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(mode=True)
    # Only there to reveal reads of fresh memory; it would cost every allocation a write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
