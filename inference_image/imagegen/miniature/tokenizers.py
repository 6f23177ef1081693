"""Tokenizers built in memory: they know single characters, which is enough for tiny models."""

from __future__ import annotations

import string

import transformers

__all__ = ["clip_tokenizer", "t5_tokenizer"]


def _byte_symbols() -> list[str]:
    """List the 256 printable characters that byte-level vocabularies write bytes with.

    Printable Latin-1 stands for itself, every other byte for a character from U+0100 upwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(rest)]


def clip_tokenizer(max_length: int = 77) -> transformers.CLIPTokenizer:
    """Build a CLIP tokenizer without merges: a token is a byte."""
    symbols = _byte_symbols()
    pieces = ["<|startoftext|>", "<|endoftext|>", "<|pad|>"]
    pieces += [*symbols, *(symbol + "</w>" for symbol in symbols)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_length)


def t5_tokenizer() -> transformers.T5Tokenizer:
    """Build a T5 tokenizer whose pieces are the printable characters of ASCII."""
    characters = [char for char in string.printable if not char.isspace()]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(char, -3.0) for char in characters]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
