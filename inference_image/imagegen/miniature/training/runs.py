"""Whole trainings: from a recipe to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

from imagegen.miniature.training.data import make_corpus
from imagegen.miniature.training.denoiser import build_unet, encode_corpus, train_denoiser
from imagegen.miniature.training.folder import assemble, save_folder
from imagegen.miniature.training.recipes import Recipe
from imagegen.miniature.training.text import build_text_encoder, teach_spelling
from imagegen.miniature.training.vae import train_vae

__all__ = ["train"]


def _vae(recipe: Recipe, work: Path) -> Any:
    """Train the autoencoder, or read it when an earlier run has finished it."""
    done = work / "vae"
    if not done.exists():
        train_vae(recipe, work).save_pretrained(work / "vae.new")
        (work / "vae.new").rename(done)
    return diffusers.AutoencoderKL.from_pretrained(done).eval().requires_grad_(requires_grad=False)


def train(recipe: Recipe, *, work: Path, out: Path) -> None:
    """Train a model from nothing and save it; an interrupted training goes on where it was.

    Parameters
    ----------
    recipe
        What to train, with its seed.
    work
        Folder for what is needed on the way: checkpoints, the record of the loss
        (``progress.jsonl``) and sheets of samples. To start anew, name an empty one.
    out
        Folder of the pipeline; it is created.
    """
    work.mkdir(parents=True, exist_ok=True)
    vae = _vae(recipe, work)
    corpus = make_corpus(
        seed=recipe.seed, count=recipe.pictures, look=recipe.look, layouts=recipe.layouts
    )
    torch.manual_seed(recipe.seed)
    unet, encoder = build_unet(recipe), build_text_encoder()
    teach_spelling(encoder, corpus, recipe, work)
    lessons = encode_corpus(vae, corpus)
    unet, encoder = train_denoiser(
        unet, encoder, vae=vae, lessons=lessons, recipe=recipe, work=work
    )
    save_folder(assemble(unet, vae, encoder), out)
