"""How many tokens of a prompt a pipeline reads, counted apart from its own tokenizers."""

from __future__ import annotations

from typing import Any

import tokenizers

__all__ = ["sequence_length", "token_counter"]

_LONG = 512
_SHORT = 256


def sequence_length(pipeline: Any) -> int | None:
    """Give the tokens that the T5 encoder of a pipeline is to read; None if it has no such encoder.

    Flux was trained with 512, but its distilled variant, which takes no guidance, with 256 like
    Stable Diffusion 3.
    """
    name = type(pipeline).__name__
    if name == "FluxPipeline":
        return _LONG if pipeline.transformer.config.guidance_embeds else _SHORT
    if name == "StableDiffusion3Pipeline" and pipeline.text_encoder_3 is not None:
        return _SHORT
    return None


def token_counter(pipeline: Any) -> tuple[int, tokenizers.Tokenizer]:
    """Give the number of tokens that a pipeline reads, and what counts them.

    Of several text encoders the one with the longest reach decides: what lies beyond the 77 tokens
    of CLIP still reaches SD3 and Flux through T5.

    Parameters
    ----------
    pipeline
        A loaded pipeline.

    Returns
    -------
    tuple
        The limit and a tokenizer of its own: the pipeline's one changes its settings while it
        works, which another thread must not see.
    """
    limit = sequence_length(pipeline)
    tokenizer = pipeline.tokenizer
    if limit is None:
        limit = tokenizer.model_max_length
    else:
        tokenizer = getattr(pipeline, "tokenizer_3", None) or pipeline.tokenizer_2
    counter = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    counter.no_truncation()
    counter.no_padding()
    return limit, counter
