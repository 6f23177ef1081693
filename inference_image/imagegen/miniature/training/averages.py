"""Running averages of weights: what is exported, because it draws better than the last step."""

from __future__ import annotations

import copy

import torch

__all__ = ["Average"]


class Average:
    """An exponential moving average of a module's weights.

    Parameters
    ----------
    module
        What is trained.
    decay
        Weight of the past, reached gradually: early on the average follows the weights closely.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Give the averaged weights."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take averaged weights that were saved."""
        self.module.load_state_dict(state)
