"""Tiny pipelines with random weights: real plumbing, no meaning.

The sizes of the parts follow what the diffusers project builds for its own fast tests. Two things
are different on purpose:

* all matrices on the text's way into the denoiser are multiplied by five, because random weights
  otherwise barely react to the prompt;
* the last convolution of the VAE's decoder is scaled so that pictures use the range of colours and
  do not look empty to a check for blank pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers

from imagegen.miniature.tokenizers import clip_tokenizer, t5_tokenizer

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

__all__ = ["ARCHITECTURES", "SCALES", "build_tiny", "make_tiny"]

SCALES: Final = {"tiny": 1, "small": 4}
"""Values of ``--scale``: factor on the widths of the SD denoiser and its VAE."""

_PROMPT_GAIN: Final = 5.0
_PROMPT_PATHS: Final = (".attn2.", "context_embedder.", ".text_embedder.", "add_embedding.")
_PIXEL_SPREAD: Final = 0.4
_CLIP_POSITIONS: Final = 77
_NOISE_LEVELS: Final = 50


def _clip_config(hidden: int, heads: int, layers: int, intermediate: int) -> Any:
    tokenizer = clip_tokenizer()
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        projection_dim=hidden,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        max_position_embeddings=_CLIP_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _t5_encoder() -> Any:
    tokenizer = t5_tokenizer()
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return transformers.T5EncoderModel(config)


def _vae(channels: list[int], *, latents: int, groups: int, **extra: Any) -> Any:
    blocks = len(channels)
    return diffusers.AutoencoderKL(
        block_out_channels=channels,
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        latent_channels=latents,
        norm_num_groups=groups,
        **extra,
    )


def _stable_diffusion(factor: int) -> Any:
    widths = (4 * factor, 8 * factor)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=widths,
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    return diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=_vae(list(widths), latents=4, groups=2),
        text_encoder=transformers.CLIPTextModel(_clip_config(8, 2, 2, 16)),
        tokenizer=clip_tokenizer(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl(factor: int) -> Any:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(2 * factor, 4 * factor),
        layers_per_block=2,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,  # 6 * 8 of the sizes + 32 of the pooled text
        cross_attention_dim=64,
        norm_num_groups=1,
    )
    return diffusers.StableDiffusionXLPipeline(
        unet=unet,
        vae=_vae([32, 64], latents=4, groups=32, sample_size=128),
        text_encoder=transformers.CLIPTextModel(_clip_config(32, 4, 5, 37)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip_config(32, 4, 5, 37)),
        tokenizer_2=clip_tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
        ),
        feature_extractor=None,
        image_encoder=None,
    )


def _flow_vae(latents: int) -> Any:
    return _vae(
        [4],
        latents=latents,
        groups=1,
        layers_per_block=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )


def _stable_diffusion_3(factor: int) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_layers=factor,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_flow_vae(4),
        text_encoder=transformers.CLIPTextModelWithProjection(_clip_config(32, 4, 5, 37)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip_config(32, 4, 5, 37)),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=_t5_encoder(),
        tokenizer_3=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        feature_extractor=None,
        image_encoder=None,
    )


def _flux(factor: int) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=factor,
        num_single_layers=factor,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    return diffusers.FluxPipeline(
        transformer=transformer,
        vae=_flow_vae(1),
        text_encoder=transformers.CLIPTextModel(_clip_config(32, 4, 5, 37)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        feature_extractor=None,
        image_encoder=None,
    )


def _upscaler(factor: int) -> Any:
    """Four times larger: the small picture is a further input of the denoiser."""
    widths = (4 * factor, 8 * factor)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=widths,
        layers_per_block=1,
        sample_size=32,
        in_channels=7,  # 4 of the latents, 3 of the small picture
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
        num_class_embeds=_NOISE_LEVELS + 1,
    )
    return diffusers.StableDiffusionUpscalePipeline(
        unet=unet,
        vae=_vae([*widths, widths[-1]], latents=4, groups=2, scaling_factor=0.08333),
        text_encoder=transformers.CLIPTextModel(_clip_config(8, 2, 2, 16)),
        tokenizer=clip_tokenizer(),
        low_res_scheduler=diffusers.DDPMScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear"
        ),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.0001,
            beta_end=0.02,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            prediction_type="v_prediction",
            steps_offset=1,
        ),
        max_noise_level=_NOISE_LEVELS,
    )


def _latent_upscaler(factor: int) -> Any:
    """Twice larger: the small picture's latents are a further input of the denoiser."""
    widths = [32 * factor] * 2 + [64 * factor] * 2  # its blocks norm groups of 32 channels
    unet = diffusers.UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=8,
        norm_num_groups=None,
        block_out_channels=widths,
        time_cond_proj_dim=128 + 32,  # of the level of noise, and of the pooled text
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=32,
        layers_per_block=1,
        down_block_types=("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
        up_block_types=(*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"),
        in_channels=8,
        mid_block_type=None,
        only_cross_attention=False,
        out_channels=5,  # 4 of the latents, and a variance that is not used
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
    )
    return diffusers.StableDiffusionLatentUpscalePipeline(
        unet=unet,
        vae=_vae([4, 8], latents=4, groups=2),
        text_encoder=transformers.CLIPTextModel(_clip_config(32, 4, 5, 37)),
        tokenizer=clip_tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(prediction_type="sample"),
    )


ARCHITECTURES: Final[dict[str, Callable[[int], Any]]] = {
    "sd": _stable_diffusion,
    "sdxl": _stable_diffusion_xl,
    "sd3": _stable_diffusion_3,
    "flux": _flux,
    "upscaler": _upscaler,
    "latent-upscaler": _latent_upscaler,
}
"""Values of ``--architecture``."""


def _strengthen_prompt(pipeline: Any) -> None:
    denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
    for name, parameter in denoiser.named_parameters():
        if any(part in name for part in _PROMPT_PATHS):
            parameter.mul_(_PROMPT_GAIN)


def _spread_pixels(pipeline: Any) -> None:
    """Scale the decoder's output so that pictures of plain noise have a healthy contrast."""
    vae = pipeline.vae
    generator = torch.Generator("cpu").manual_seed(0)
    latents = torch.randn((1, vae.config.latent_channels, 32, 32), generator=generator)
    pixels = vae.decode(latents / vae.config.scaling_factor).sample
    gain = _PIXEL_SPREAD / float(pixels.std())
    vae.decoder.conv_out.weight.mul_(gain)
    vae.decoder.conv_out.bias.sub_(pixels.mean((0, 2, 3))).mul_(gain)


def build_tiny(architecture: str, *, seed: int, scale: str = "tiny") -> Any:
    """Build a tiny pipeline in memory.

    Parameters
    ----------
    architecture
        A key of :data:`ARCHITECTURES`.
    seed
        Seed of the weights; another seed is another model.
    scale
        A key of :data:`SCALES`.

    Returns
    -------
    diffusers.DiffusionPipeline
        In evaluation mode, on the CPU, in 32-bit floating point.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        pipeline = ARCHITECTURES[architecture](SCALES[scale])
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()  # built by hand, the dropout of T5 would be live
        _strengthen_prompt(pipeline)
        _spread_pixels(pipeline)
    return pipeline


def make_tiny(architecture: str, *, seed: int, out: Path, scale: str = "tiny") -> None:
    """Build a tiny pipeline and save it as safetensors; nothing is downloaded.

    Parameters
    ----------
    architecture, seed, scale
        As in :func:`build_tiny`.
    out
        Folder to write; it is created.
    """
    pipeline = build_tiny(architecture, seed=seed, scale=scale)
    pipeline.save_pretrained(out, safe_serialization=True)
