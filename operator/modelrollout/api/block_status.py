"""``status.candidate.blocks``: how much evidence varies from block to block of requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from modelrollout.api.base import ApiModel

__all__ = ["BlockEnd", "BlocksStatus", "ClassSums", "DispersionStatus"]

_Key = Annotated[str, Field(max_length=128)]
_Number = Annotated[str, Field(max_length=40)]


class DispersionStatus(ApiModel):
    """Sums over finished blocks."""

    key: _Key
    """What varies: `latency:1700`, `errors`, `cost` or `log_seconds`."""

    blocks: Annotated[int, Field(ge=0)]
    weight: _Number
    total: _Number
    squares: _Number


class BlockEnd(ApiModel):
    """Sums at the end of the latest finished block, since the warm-up ended."""

    key: _Key
    total: _Number
    weight: _Number
    requests: Annotated[int, Field(ge=0)]


class ClassSums(ApiModel):
    """Sums of log latency of a class at the end of the latest finished block, in both arms."""

    request_class: _Key
    candidate_count: Annotated[int, Field(ge=0)]
    candidate_total: _Number
    stable_count: Annotated[int, Field(ge=0)]
    stable_total: _Number


class BlocksStatus(ApiModel):
    """Finished blocks of requests, and where the running ones began."""

    dispersions: Annotated[
        list[DispersionStatus],
        Field(max_length=19, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    ends: Annotated[
        list[BlockEnd],
        Field(max_length=18, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    classes: Annotated[
        list[ClassSums],
        Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
