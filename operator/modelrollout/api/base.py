"""What all API types share: names on the wire, bounds, decimal numbers as strings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["ApiModel", "DecimalString", "DnsLabel", "Quantity", "cel"]


class ApiModel(BaseModel):
    """Base of the types in the CRD.

    Unknown fields are ignored when read: an older operator must survive a newer CRD. The API
    server has already pruned or refused what the installed CRD does not know.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form of the API: camelCase names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """Return schema extras holding CEL validation rules.

    Parameters
    ----------
    *rules
        Pairs of a CEL expression that must hold and the message shown when it does not.
    """
    return {
        "x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]
    }


DecimalString = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?$",
        max_length=19,
    ),
]
"""A non-negative decimal number. The API holds no floats: they do not survive a round trip."""

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
"""A name as Kubernetes takes it for a label or a Service (RFC 1123 label)."""

Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
        max_length=24,
    ),
]
