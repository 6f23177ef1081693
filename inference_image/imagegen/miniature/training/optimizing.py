"""What all stages share: the rate of learning, the optimizer's step, the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import torch

__all__ = ["Optimizer", "autocast", "best_device", "rate", "step_generator"]

_FAR: Final = 1_000_003
_PLATEAU: Final = 0.6
"""Share of the steps before the rate begins to fall."""


def best_device() -> torch.device:
    """Give the graphics processor if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 where the processor does so natively, else in 32 bits."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def rate(step: int, total: int, *, peak: float, warmup: int) -> float:
    """Give the rate of learning: a rise, a plateau, and half a cosine down to a hundredth.

    The plateau keeps the first part of a training the same when its length is changed on the way.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - _PLATEAU * total) / ((1 - _PLATEAU) * total)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))))


def step_generator(seed: int, step: int) -> torch.Generator:
    """Give the random numbers of one step; they do not depend on the steps before it."""
    return torch.Generator().manual_seed(seed * _FAR + step)


class Optimizer:
    """AdamW with a schedule and clipped gradients.

    Parameters
    ----------
    parameters
        What to train.
    peak
        Highest rate of learning.
    total, warmup
        Steps of the training, and of them those of the rise.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        peak: float,
        total: int,
        warmup: int,
        decay: float = 0.01,
    ) -> None:
        self._parameters = list(parameters)
        self._peak, self._total, self._warmup = peak, total, warmup
        self._adam = torch.optim.AdamW(
            self._parameters, lr=peak, betas=(0.9, 0.99), weight_decay=decay, fused=True
        )

    def step(self, loss: torch.Tensor, step: int) -> None:
        """Follow the gradients of `loss`, which is that of step number `step`."""
        for group in self._adam.param_groups:
            group["lr"] = rate(step, self._total, peak=self._peak, warmup=self._warmup)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adam.step()
        self._adam.zero_grad()

    def state_dict(self) -> dict[str, object]:
        """Give the state of the optimizer."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take a state that was saved."""
        self._adam.load_state_dict(state)
