"""The text encoder, and the lesson in spelling that it gets before the denoiser begins.

From the noise of pictures alone an encoder learns slowly which letter is the third one of the word
in quotes. So it is first trained by itself, for less than a minute, to say so: every letter's
vector must give away its place in the word, and the vectors from the end of the prompt on the
whole scene. The heads that read the answers are thrown away.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch.nn import functional

from imagegen.miniature.scenes import LAYOUTS, MAX_TOKENS, Scene, tokenizer
from imagegen.miniature.scenes.words import COLOURS, EMBLEMS, MAX_COUNT, SHAPES
from imagegen.miniature.training.checkpoints import Checkpoint
from imagegen.miniature.training.data import Corpus
from imagegen.miniature.training.optimizing import Optimizer, step_generator
from imagegen.miniature.training.progress import Progress
from imagegen.miniature.training.recipes import Recipe

__all__ = [
    "PROPERTY_SIZES",
    "TEXT_WIDTH",
    "build_text_encoder",
    "properties",
    "teach_spelling",
    "token_ids",
]

TEXT_WIDTH: Final = 128
_LONGEST: Final = 8
_LINES: Final = 2
_NO_LETTER: Final = len(string.ascii_uppercase)
_IGNORED: Final = -100


def build_text_encoder() -> Any:
    """Build a CLIP text encoder of two layers with random weights."""
    words = tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return transformers.CLIPTextModel(config)


def token_ids(prompts: Sequence[str]) -> torch.Tensor:
    """Give the tokens of prompts as the pipeline does: padded to the longest that is read."""
    read = tokenizer()(
        list(prompts),
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    ids: torch.Tensor = read.input_ids
    return ids


def _spelling(scene: Scene) -> list[int]:
    """Give the letter at each place of each line, for places without one a number of its own."""
    places = [_NO_LETTER] * (_LINES * _LONGEST)
    for line, word in enumerate(scene.words):
        for index, letter in enumerate(word):
            places[line * _LONGEST + index] = string.ascii_uppercase.index(letter)
    return places


def properties(scene: Scene) -> list[int]:
    """Give numbers for the colours, the shape, the count and the layout of a scene."""
    colours, shapes = tuple(COLOURS), (None, *SHAPES, *EMBLEMS)
    return [
        colours.index(scene.colour),
        colours.index(scene.ink),
        colours.index(scene.ground),
        shapes.index(scene.shape),
        scene.count,
        LAYOUTS.index(scene.layout),
    ]


PROPERTY_SIZES: Final = (
    len(COLOURS),
    len(COLOURS),
    len(COLOURS),
    1 + len(SHAPES) + len(EMBLEMS),
    1 + MAX_COUNT,
    len(LAYOUTS),
)


def _letter_places(ids: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
    """Give for each token its place in a word to be written, or the mark to ignore it."""
    places = torch.full_like(ids, _IGNORED)
    spelled: dict[str, list[int]] = {}
    words = tokenizer()
    for row, scene in enumerate(scenes):
        tokens = ids[row].tolist()
        for line, word in enumerate(scene.words):
            if word not in spelled:
                spelled[word] = words(word).input_ids[1:-1]
            letters = spelled[word]
            starts = [at for at in range(len(tokens)) if tokens[at : at + len(letters)] == letters]
            at = starts[min(line, len(starts) - 1)]
            for index in range(len(letters)):
                places[row, at + index] = line * _LONGEST + index
    return places


class _Reader(torch.nn.Module):
    """The heads that read answers from the encoder's vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.nn.Linear(TEXT_WIDTH, _LINES * _LONGEST)
        self.spelling = torch.nn.Linear(TEXT_WIDTH, _LINES * _LONGEST * (_NO_LETTER + 1))
        self.properties = torch.nn.ModuleList(
            torch.nn.Linear(TEXT_WIDTH, size) for size in PROPERTY_SIZES
        )

    def loss(
        self,
        states: torch.Tensor,
        last: torch.Tensor,
        places: torch.Tensor,
        spelling: torch.Tensor,
        properties: torch.Tensor,
    ) -> torch.Tensor:
        found = self.place(states).flatten(0, 1)
        # In a batch without any word there is nothing to average over.
        of_places = functional.cross_entropy(
            found, places.flatten(), ignore_index=_IGNORED, reduction="sum"
        ) / (places != _IGNORED).sum().clamp(min=1)
        letters = self.spelling(last).unflatten(1, (-1, _NO_LETTER + 1)).flatten(0, 1)
        loss = of_places + functional.cross_entropy(letters, spelling.flatten())
        for index, head in enumerate(self.properties):
            loss = loss + functional.cross_entropy(head(last), properties[:, index])
        return loss


def teach_spelling(encoder: Any, corpus: Corpus, recipe: Recipe, work: Path) -> None:
    """Train the encoder, or go on with it, to give away how words are spelled and what is shown."""
    device = next(encoder.parameters()).device
    reader = _Reader().to(device)
    optimizer = Optimizer(
        [*encoder.parameters(), *reader.parameters()],
        peak=2e-3,
        total=recipe.text_steps,
        warmup=min(50, recipe.text_steps),
    )
    checkpoint = Checkpoint(
        work / "text.pt", {"encoder": encoder, "reader": reader, "optimizer": optimizer}
    )
    start = checkpoint.step
    ids = token_ids([wordings[0] for wordings in corpus.prompts])
    places = _letter_places(ids, corpus.scenes)
    spelling = torch.tensor([_spelling(scene) for scene in corpus.scenes])
    shown = torch.tensor([properties(scene) for scene in corpus.scenes])
    record, end = work / "progress.jsonl", tokenizer().eos_token_id
    with checkpoint, Progress("text", recipe.text_steps, start=start, record=record) as progress:
        for step in range(start, recipe.text_steps):
            chosen = torch.randint(len(ids), (128,), generator=step_generator(recipe.seed, step))
            states = encoder(ids[chosen].to(device)).last_hidden_state
            ends = (ids[chosen] == end).int().argmax(1).to(device)
            last = states[torch.arange(len(chosen), device=device), ends]
            loss = reader.loss(
                states,
                last,
                places[chosen].to(device),
                spelling[chosen].to(device),
                shown[chosen].to(device),
            )
            optimizer.step(loss, step)
            checkpoint.advance()
            progress.advance(float(loss.detach()))
