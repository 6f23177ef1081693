"""What makes the denoiser look at the right letter: questions about its features in between.

At pure noise a denoiser has to find out from the borders alone where in the picture it is, and then
which letter of the prompt belongs there. By the error of latents it does so late. So heads on its
features, thrown away at the end, must tell: the column, the letter that is to stand in a column,
and what else is to be seen. Prompts that were left empty are not asked about.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch.nn import functional

from imagegen.miniature.scenes import FONTS, WIDTH, Scene
from imagegen.miniature.scenes.drawing import MARGIN
from imagegen.miniature.training.text import PROPERTY_SIZES

__all__ = ["Questions", "letter_columns"]

_FACTOR: Final = 4
_COLUMNS: Final = WIDTH // _FACTOR
_NO_LETTER: Final = len(string.ascii_uppercase)
_IGNORED: Final = -100
_FROM_THE_LEFT: Final = ("left", "upper", "shapes")


def letter_columns(scenes: Sequence[Scene]) -> torch.Tensor:
    """Give the letter that stands in each column of latents, 0 to 25; 26 for none.

    Layouts whose words do not begin at the left are marked to be ignored.
    """
    columns = torch.full((len(scenes), _COLUMNS), _NO_LETTER)
    first = MARGIN // _FACTOR
    for row, scene in enumerate(scenes):
        if scene.layout not in _FROM_THE_LEFT:
            columns[row] = _IGNORED
            continue
        wide = FONTS[scene.font].pitch // _FACTOR
        for index, letter in enumerate("".join(scene.words)):
            start = first + index * wide
            columns[row, start : start + wide] = string.ascii_uppercase.index(letter)
    return columns


class Questions(torch.nn.Module):
    """Heads on the features of a denoiser's middle and of its second last level.

    Parameters
    ----------
    unet
        The denoiser. Its features are taken at every call while it is in training mode.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        widths = unet.config.block_out_channels
        self.column = torch.nn.Linear(widths[-1], _COLUMNS)
        self.letter = torch.nn.Linear(widths[1], _NO_LETTER + 1)
        self.properties = torch.nn.ModuleList(
            torch.nn.Linear(widths[1], size) for size in PROPERTY_SIZES
        )
        self._features: dict[str, torch.Tensor] = {}
        unet.mid_block.register_forward_hook(self._keep("middle"))
        unet.up_blocks[-2].register_forward_hook(self._keep("level"))

    def _keep(self, name: str) -> Any:
        def keep(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
            if module.training:
                self._features[name] = output

        return keep

    def loss(
        self, letters: torch.Tensor, wanted: torch.Tensor, asked: torch.Tensor
    ) -> torch.Tensor:
        """Judge the answers of the call before: the sum of the cross-entropies.

        Parameters
        ----------
        letters, wanted
            Of :func:`letter_columns` and :func:`imagegen.miniature.training.text.properties`.
        asked
            Whether a picture's prompt was given.
        """
        middle = self._features.pop("middle").float().mean(2).transpose(1, 2)
        level = self._features.pop("level").float()
        places = torch.arange(middle.shape[1], device=middle.device).expand(len(middle), -1)
        loss = functional.cross_entropy(self.column(middle).flatten(0, 1), places.flatten())
        if not asked.any():
            return loss
        by_column, whole = level.mean(2).transpose(1, 2)[asked], level.mean((2, 3))[asked]
        shown = letters[asked].flatten()
        found = self.letter(by_column).flatten(0, 1)
        loss = loss + functional.cross_entropy(
            found, shown, ignore_index=_IGNORED, reduction="sum"
        ) / (shown != _IGNORED).sum().clamp(min=1)
        for index, head in enumerate(self.properties):
            of_property = functional.cross_entropy(head(whole), wanted[asked][:, index])
            loss = loss + of_property / len(PROPERTY_SIZES)
        return loss
