"""``spec.model`` and ``spec.serving``: what a revision is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from modelrollout.api.base import ApiModel, DecimalString, DnsLabel, Quantity, cel

__all__ = [
    "FolderDigest",
    "Gpu",
    "Limits",
    "Model",
    "PersistentVolumeClaimSource",
    "Pipeline",
    "Precision",
    "Resources",
    "Scheduler",
    "Serving",
    "Source",
]


class Precision(StrEnum):
    """Number format of the weights and of the computation."""

    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"


class Scheduler(StrEnum):
    """Sampler of the diffusion process: a diffusers class name without the suffix ``Scheduler``."""

    DDIM = "DDIM"
    DPM_SOLVER_MULTISTEP = "DPMSolverMultistep"
    EULER_ANCESTRAL_DISCRETE = "EulerAncestralDiscrete"
    EULER_DISCRETE = "EulerDiscrete"
    FLOW_MATCH_EULER_DISCRETE = "FlowMatchEulerDiscrete"
    LCM = "LCM"
    PNDM = "PNDM"
    UNI_PC_MULTISTEP = "UniPCMultistep"


_DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"

FolderDigest = Annotated[
    str,
    Field(
        pattern=_DIGEST_PATTERN,
        max_length=255,
        json_schema_extra=cel(
            (
                f"self.matches('{_DIGEST_PATTERN}')",
                (
                    "`digest` must be `sha256:` and 64 hexadecimal digits in lower case; "
                    "`imagegen digest DIR` prints the digest of a folder"
                ),
            )
        ),
    ),
]
"""The digest that pins a folder: of its files' names and contents."""


class PersistentVolumeClaimSource(ApiModel):
    """A diffusers folder on a volume in the rollout's namespace."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the PersistentVolumeClaim; it is mounted read-only."""

    path: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
            max_length=255,
        ),
    ]
    """Folder within the volume, relative, such as `sd35-medium`; it holds `model_index.json`."""

    digest: FolderDigest | None = None
    """What the folder must hold, as `imagegen digest DIR` prints it: `sha256:` and 64 hexadecimal
    digits. A server that finds another folder never loads it, at any start: the candidate fails
    with the reason ModelInvalid. Left out, the folder is not checked."""


class Source(ApiModel):
    """Where the model's weights come from; exactly one of the members is set."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.persistentVolumeClaim)",
                "exactly one source must be set: `persistentVolumeClaim`",
            )
        )
    )

    persistent_volume_claim: PersistentVolumeClaimSource | None = None
    """A folder on a volume."""


class Pipeline(ApiModel):
    """How pictures are made when a request does not say otherwise."""

    precision: Precision = Precision.BFLOAT16
    """Number format. `Float32` takes twice the memory of the others."""

    scheduler: Scheduler
    """Sampler: a diffusers scheduler's class name without the suffix `Scheduler`."""

    steps: Annotated[int, Field(ge=1, le=200)]
    """Denoising steps."""

    guidance_scale: DecimalString
    """Classifier-free guidance; '0' turns it off."""

    width: Annotated[int, Field(ge=16, le=8192, multiple_of=8)]
    """Width in pixels, a multiple of 8."""

    height: Annotated[int, Field(ge=16, le=8192, multiple_of=8)]
    """Height in pixels, a multiple of 8."""


class Limits(ApiModel):
    """What a request may ask for; the server refuses more."""

    max_steps: Annotated[int, Field(ge=1, le=500)]
    """Most denoising steps of one request."""

    max_batch_size: Annotated[int, Field(ge=1, le=64)] = 1
    """Most images generated at once."""

    max_images_per_request: Annotated[int, Field(ge=1, le=64)] = 4
    """Most images of one request."""

    max_pixels: Annotated[int, Field(ge=256, le=67108864)]
    """Most pixels (width times height) of one image."""

    allowed_schedulers: (
        Annotated[
            list[Scheduler],
            AfterValidator(sorted),
            Field(
                min_length=1,
                max_length=len(Scheduler),
                json_schema_extra={"x-kubernetes-list-type": "set"},
            ),
        ]
        | None
    ) = None
    """Samplers that a request may name; `pipeline.scheduler` is always among them. Left out, these
    are all that fit the model. One that does not fit it is refused with the reason ModelInvalid."""


class Model(ApiModel):
    """The desired model. Changing it, `spec.serving` or `spec.pool` starts an attempt."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.pipeline.steps <= self.limits.maxSteps",
                "`pipeline.steps` must be less than or equal to `limits.maxSteps`",
            ),
            (
                "self.pipeline.width * self.pipeline.height <= self.limits.maxPixels",
                (
                    "`pipeline.width` times `pipeline.height` must be less than or equal to "
                    "`limits.maxPixels`"
                ),
            ),
        )
    )

    source: Source
    pipeline: Pipeline
    limits: Limits


class Gpu(ApiModel):
    """The GPUs of one server pod."""

    resource_name: Annotated[
        str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=128)
    ] = "nvidia.com/gpu"
    """The extended resource that the nodes advertise."""

    count: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs of one pod."""


class ResourceList(ApiModel):
    """Amounts of the node's resources."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class Resources(ApiModel):
    """What the scheduler reserves (`requests`) and the kernel enforces (`limits`)."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            *(
                (
                    (
                        f"!has(self.requests) || !has(self.limits) || !has(self.requests.{name}) "
                        f"|| !has(self.limits.{name}) || quantity(self.requests.{name})"
                        f".compareTo(quantity(self.limits.{name})) <= 0"
                    ),
                    f"`requests.{name}` must be less than or equal to `limits.{name}`",
                )
                for name in ("cpu", "memory")
            )
        )
    )

    requests: ResourceList = ResourceList()
    limits: ResourceList = ResourceList()


class Serving(ApiModel):
    """The serving runtime of a revision."""

    runtime: DnsLabel = "default"
    """Name of a server image in the administrator's catalogue."""

    gpu: Gpu = Gpu()
    resources: Resources = Resources()
