"""Whole trainings: from a recipe to a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch

from imagegen.miniature.training.data import Corpus, make_corpus
from imagegen.miniature.training.denoiser import (
    Lessons,
    build_unet,
    encode_corpus,
    train_denoiser,
)
from imagegen.miniature.training.folder import assemble, save_folder
from imagegen.miniature.training.recipes import Recipe
from imagegen.miniature.training.text import build_text_encoder, teach_spelling
from imagegen.miniature.training.vae import build_vae, train_vae

__all__ = ["extend", "train"]


@torch.no_grad()
def extend(larger: Any, trained: Any) -> None:
    """Give a denoiser the weights of a trained one that attends to the prompt at fewer levels.

    The output of what the trained one has not is set to zero, so that at first both do the same.
    """
    missing, unexpected = larger.load_state_dict(trained.state_dict(), strict=False)
    strange = [name for name in missing if ".attentions." not in name]
    if unexpected or strange:
        raise ValueError(f"{(unexpected or strange)[0]} is a weight of one of the models only")
    for name, weights in larger.named_parameters():
        if name in missing and ".proj_out." in name:
            weights.zero_()


def _parts(recipe: Recipe, start: Path | None) -> tuple[Any, Any, Any]:
    """Build the autoencoder, the text encoder and the denoiser to begin with."""
    torch.manual_seed(recipe.seed)
    vae, encoder, unet = build_vae(recipe.vae_channels), build_text_encoder(), build_unet(recipe)
    if start is not None:
        trained = diffusers.DiffusionPipeline.from_pretrained(
            start, torch_dtype=torch.float32, local_files_only=True
        )
        vae.load_state_dict(trained.vae.state_dict())
        encoder.load_state_dict(trained.text_encoder.state_dict())
        extend(unet, trained.unet)
    return vae, encoder, unet


def _trained_vae(vae: Any, recipe: Recipe, work: Path) -> Any:
    """Train the autoencoder, or read it when an earlier run has finished it."""
    done = work / "vae"
    if not done.exists():
        train_vae(vae, recipe, work).save_pretrained(work / "vae.new")
        (work / "vae.new").rename(done)
    return diffusers.AutoencoderKL.from_pretrained(done).eval().requires_grad_(requires_grad=False)


def _lessons(vae: Any, corpus: Corpus, work: Path) -> Lessons:
    """Compute the latents of the corpus, or read those that an earlier run has computed."""
    done = work / "lessons.pt"
    if not done.exists():
        torch.save(asdict(encode_corpus(vae, corpus)), work / "lessons.new")
        (work / "lessons.new").rename(done)
    return Lessons(**torch.load(done, weights_only=True))


def train(recipe: Recipe, *, work: Path, out: Path, start: Path | None = None) -> None:
    """Train a model and save it; an interrupted training goes on where it was.

    Parameters
    ----------
    recipe
        What to train, with its seed.
    work
        Folder for what is needed on the way: checkpoints, the record of the loss
        (``progress.jsonl``) and sheets of samples. To start anew, name an empty one.
    out
        Folder of the pipeline; it is created.
    start
        Folder of a trained model to begin with; default: random weights. The recipe may let the
        denoiser attend to the prompt at more levels than that model's.
    """
    work.mkdir(parents=True, exist_ok=True)
    vae, encoder, unet = _parts(recipe, start)
    vae = _trained_vae(vae, recipe, work)
    corpus = make_corpus(
        seed=recipe.seed,
        count=recipe.pictures,
        look=recipe.look,
        layouts=recipe.layouts,
        fonts=recipe.fonts,
    )
    if start is None:  # a trained encoder can spell, and its denoiser knows its vectors
        teach_spelling(encoder, corpus, recipe, work)
    lessons = _lessons(vae, corpus, work)
    unet, encoder = train_denoiser(
        unet, encoder, vae=vae, lessons=lessons, recipe=recipe, work=work
    )
    save_folder(assemble(unet, vae, encoder), out)
