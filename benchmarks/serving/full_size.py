"""Models in the sizes of SDXL and SD3.5 Medium, with random weights.

Times and memory are those of the models, pictures mean nothing. Only vocabularies are tiny, and
the T5 encoder has two layers of 24.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imagegen.miniature.tiny import build_tiny

__all__ = ["ARCHITECTURES", "make"]

ARCHITECTURES = ("sdxl", "sd35-medium")


def _parts(architecture: str, shrink: int) -> dict[str, Any]:
    """Build denoiser and VAE in the sizes of the model."""
    import diffusers  # noqa: PLC0415

    vae = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [width // shrink for width in (128, 256, 512, 512)],
        "norm_num_groups": 32 // shrink,
        "layers_per_block": 2,
        "sample_size": 1024,
    }
    pooled = 1280 // shrink
    both = 768 // shrink + pooled
    if architecture == "sdxl":
        denoiser = diffusers.UNet2DConditionModel(
            sample_size=128,
            block_out_channels=tuple(width // shrink for width in (320, 640, 1280)),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            norm_num_groups=32 // shrink,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256 // shrink,
            projection_class_embeddings_input_dim=6 * (256 // shrink) + pooled,
            cross_attention_dim=both,
        )
        decoder = diffusers.AutoencoderKL(latent_channels=4, scaling_factor=0.13025, **vae)
        return {"unet": denoiser, "vae": decoder}
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=24,
        attention_head_dim=64 // shrink,
        num_attention_heads=24,
        caption_projection_dim=1536 // shrink,
        joint_attention_dim=4096 // shrink,
        pooled_projection_dim=both,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    )
    decoder = diffusers.AutoencoderKL(
        latent_channels=16,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **vae,
    )
    return {"transformer": transformer, "vae": decoder}


def _encoder(tiny: Any, **sizes: int) -> Any:
    """Build an encoder of texts like a tiny one, in other sizes."""
    return type(tiny)(type(tiny.config)(**{**tiny.config.to_dict(), **sizes}))


def _encoders(tiny: Any, shrink: int) -> dict[str, Any]:
    """Build the encoders of texts: CLIP L, OpenCLIP bigG and, where there is one, T5."""
    built = {}
    for name, width, layers, heads in (
        ("text_encoder", 768 // shrink, 12, 12),
        ("text_encoder_2", 1280 // shrink, 32, 20),
    ):
        built[name] = _encoder(
            getattr(tiny, name),
            hidden_size=width,
            projection_dim=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
    if hasattr(tiny, "text_encoder_3"):
        built["text_encoder_3"] = _encoder(
            tiny.text_encoder_3,
            d_model=4096 // shrink,
            d_kv=64 // shrink,
            d_ff=10240 // shrink,
            num_heads=64,
            num_layers=2,
        )
    return built


def make(architecture: str, folder: Path, *, shrink: int = 1) -> None:
    """Write a pipeline with random weights.

    Parameters
    ----------
    architecture
        ``sdxl`` or ``sd35-medium``.
    folder
        Where to write it.
    shrink
        Divisor of all widths, a power of two up to 32; with 1 they are those of the model.
    """
    torch.manual_seed(0)
    tiny = build_tiny("sdxl" if architecture == "sdxl" else "sd3", seed=0)
    parts = {**_encoders(tiny, shrink), **_parts(architecture, shrink)}
    pipeline = type(tiny)(**{**tiny.components, **parts})
    pipeline.save_pretrained(folder, safe_serialization=True)
