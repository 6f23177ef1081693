"""The tokenizer of the trained models."""

from __future__ import annotations

import string
from typing import Final

import tokenizers
import transformers

from imagegen.miniature.scenes.grammar import vocabulary

__all__ = ["MAX_TOKENS", "tokenizer"]

MAX_TOKENS: Final = 32
"""Tokens of a prompt, with those of its beginning and end; more are cut off."""

_SPECIAL: Final = ("<|startoftext|>", "<|endoftext|>", "<|unk|>")
_MARKS: Final = '",.'


def tokenizer() -> transformers.CLIPTokenizer:
    """Build the tokenizer: a token per word of the grammar, and one per letter of other words.

    The last letter of a word has a token of its own. Signs that the grammar does not use become the
    unknown token. Capitals and small letters are the same, as in any CLIP tokenizer.
    """
    symbols = string.ascii_lowercase + _MARKS
    pieces = [*_SPECIAL, *symbols, *(symbol + "</w>" for symbol in symbols)]
    built = transformers.CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        unk_token=_SPECIAL[2],
        model_max_length=MAX_TOKENS,
    )
    # Merges would also join letters of brands; tokens that were added stand before them.
    built.add_tokens(
        [tokenizers.AddedToken(word, single_word=True, normalized=True) for word in vocabulary()]
    )
    return built
