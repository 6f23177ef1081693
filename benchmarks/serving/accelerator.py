"""Measure what only an accelerator shows; refuses where there is none.

Architectures and sizes of SDXL and SD3.5 Medium with random weights: times and memory are those of
the models, pictures mean nothing. Only vocabularies are tiny, and the T5 encoder has two layers of
24. Everything is done by the engine that the server uses.

    python -m benchmarks.serving.accelerator [--architecture sdxl] [--side 1024]
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imagegen.engines.base import Batch, GenerationSettings, Images
from imagegen.engines.diffusers.loading import load_diffusers
from imagegen.engines.folder import check_folder
from imagegen.engines.settings import Demand, DiffusersSettings
from imagegen.errors import DeviceMemoryError, GenerationCancelledError
from imagegen.miniature.tiny import build_tiny

STEPS = 20
GIB = 2**30


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


def engine_of(folder: Path, side: int, *, most: int, **options: Any) -> Any:
    """Load an engine as the server does."""
    demand = Demand(
        width=side,
        height=side,
        steps=STEPS,
        guidance_scale=5.0,
        max_steps=STEPS,
        max_batch_size=most,
    )
    return load_diffusers(check_folder(folder), DiffusersSettings(folder, **options), demand)


def batch_of(side: int, count: int) -> Batch:
    """Give a batch with the seeds 0, 1, ..."""
    settings = GenerationSettings(side, side, STEPS, 5.0)
    return Batch(("a red kite",) * count, tuple(range(count)), settings)


def made(engine: Any, side: int, count: int) -> tuple[Images, float, float]:
    """Make pictures; give them, the seconds and the GiB of memory at most."""
    torch.cuda.empty_cache()  # or what earlier calls held would count
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    images = engine.generate(batch_of(side, count), should_stop=lambda: False).images
    return images, time.perf_counter() - began, torch.cuda.max_memory_reserved() / GIB


def psnr(one: Images, other: Images) -> float:
    """Give the peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.mean((one - other) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def _speed(folder: Path, side: int, most: int) -> None:
    engine = engine_of(folder, side, most=most)
    made(engine, side, most)
    solo, _, _ = made(engine, side, 1)
    for count in (1, most):
        images, seconds, memory = made(engine, side, count)
        print(f"bf16, batch {count}: {count / seconds:.3f} images/s, {memory:.1f} GiB")
        print(f"  PSNR of picture 0 against batch 1: {psnr(images[:1], solo):.1f} dB")
    _cancel(engine, side)
    _out_of_memory(engine, side)


def _cancel(engine: Any, side: int) -> None:
    began = time.perf_counter()
    try:
        engine.generate(batch_of(side, 1), should_stop=lambda: True)
    except GenerationCancelledError:
        print(f"cancelled at the first step: {time.perf_counter() - began:.3f} s")


def _out_of_memory(engine: Any, side: int) -> None:
    """Let the device really run out: all but a little of its memory is forbidden to torch."""
    _, _, one = made(engine, side, 1)
    _, _, four = made(engine, side, 4)
    total = torch.cuda.get_device_properties(0).total_memory / GIB
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((one + four) / 2 / total)
    try:
        expected, _, _ = made(engine, side, 1)
        try:
            made(engine, side, 4)
            print("a batch of 4 fitted: no lack of memory was shown")
        except DeviceMemoryError as error:
            halves = batch_of(side, 4).halves()[0].halves()
            again = engine.generate(halves[0], should_stop=lambda: False).images
            same = bool((again == expected).all())
            print(f"batch of 4 ran {error}; split to 1, equal to before: {same}")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _deterministic(folder: Path, side: int) -> None:
    engine = engine_of(folder, side, most=2, deterministic=True)
    first, _, _ = made(engine, side, 2)
    second, seconds, _ = made(engine, side, 2)
    print(f"deterministic, batch 2: {2 / seconds:.3f} images/s, repeat {psnr(first, second)} dB")
    print(f"  greatest difference of a pixel: {float(np.abs(first - second).max())}")


def _incident(folder: Path, side: int, price: float) -> None:
    for name, precision, count in (("before", "Float32", 8), ("after", "BFloat16", 2)):
        engine = engine_of(folder, side, most=count, precision=precision)
        made(engine, side, count)
        _, seconds, memory = made(engine, side, count)
        cost = seconds / 3600 * price / count
        print(
            f"{name}: {precision}, batch {count}: {seconds:.2f} s a batch, {memory:.1f} GiB, "
            f"{cost:.5f} per image at {price} an hour"
        )
        del engine
        torch.cuda.empty_cache()


PARTS = ("speed", "incident", "deterministic")
"""Each is a process of its own: deterministic algorithms are for a whole process."""


def run_part(part: str, folder: Path, options: argparse.Namespace) -> None:
    """Measure one part and print it."""
    if part == "speed":
        _speed(folder, options.side, options.most)
    elif part == "incident":
        _incident(folder, options.side, options.price_per_hour)
    else:
        _deterministic(folder, options.side)


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.accelerator")
    parser.add_argument("--architecture", choices=("sdxl", "sd35-medium"), default="sd35-medium")
    parser.add_argument("--side", type=int, default=1024, help="of the square pictures")
    parser.add_argument("--most", type=int, default=8, help="the largest batch")
    parser.add_argument("--price-per-hour", type=float, default=1.0, help="of the device")
    parser.add_argument("--part", choices=PARTS, help="one part, of a model that --folder holds")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("there is no CUDA device here, and nothing else shows these figures", file=sys.stderr)
        return 3
    if options.part is not None and options.folder is not None:
        run_part(options.part, options.folder, options)
        return 0
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, {options.architecture}")
    with tempfile.TemporaryDirectory() as folder:
        make(options.architecture, Path(folder))
        for part in PARTS:
            command = [sys.executable, "-m", "benchmarks.serving.accelerator", *arguments]
            subprocess.run([*command, "--part", part, "--folder", folder], check=True)  # noqa: S603
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
