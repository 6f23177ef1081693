"""Revisions: immutable versions of the model and its serving runtime, named by their content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from modelrollout.api.base import ApiModel, DnsLabel
from modelrollout.api.model import Model, Serving
from modelrollout.api.spec import Spec

__all__ = ["RevisionContent", "criteria_digest", "revision_hash"]

_DIGEST_LENGTH = 10


class RevisionContent(ApiModel):
    """What a revision is made of; stored in its ControllerRevision."""

    pool: DnsLabel
    model: Model
    serving: Serving

    @classmethod
    def of(cls, spec: Spec) -> RevisionContent:
        """Return the content of the revision that a spec declares."""
        return cls(pool=spec.pool, model=spec.model, serving=spec.serving)


def revision_hash(content: RevisionContent) -> str:
    """Return the name of a revision: ten hexadecimal digits of its content's SHA-256.

    Members at their defaults are left out, so that a member added to the API later changes the
    name of no revision that does not use it.
    """
    return _digest(content.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def criteria_digest(spec: Spec) -> str:
    """Return a digest of what a candidate is judged by: gates, analysis and strategy."""
    return _digest(
        spec.model_dump(
            mode="json",
            by_alias=True,
            exclude_defaults=True,
            include={"gates", "analysis", "strategy"},
        )
    )


def _digest(document: dict[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]
