"""Query: a value of the administrator's own, against a limit."""

from __future__ import annotations

from typing import Final

from modelrollout.api.gate_types import QueryGate
from modelrollout.gates.facts import judge_fact, told_apart
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["KIND"]

_LARGEST: Final = 1e300
"""Beyond it a value is no 64-bit float, or about to be none."""


def _judge(gate: QueryGate, look: Look) -> Finding:
    """Judge a value as it is, without statistics: the operator knows nothing of how it varies.

    It fails at the first look beyond the limit and passes at the declared minimum of requests. A
    template should therefore return what holds for the whole stage, such as a maximum or a count
    since its beginning; of a value that comes and goes the worst of many looks decides.
    """
    limit = f"<= {gate.max}"
    value = look.evidence.queries.get(gate.template)
    if value is None:
        return Finding(
            Verdict.INVALID,
            "NoSeries",
            f"the query '{gate.template}' returned no value",
            limit,
        )
    if not abs(value) <= _LARGEST:
        return Finding(
            Verdict.INVALID,
            "NotAMeasurement",
            f"the query '{gate.template}' returned {value}",
            limit,
        )
    shown = told_apart(value, float(gate.max))
    return judge_fact(
        f"'{gate.template}' is {shown}, limit {gate.max}",
        exceeded=value > float(gate.max),
        limit=limit,
        estimate=shown,
        look=look,
    )


KIND = Kind(QueryGate, _judge)
